"""How often a tensor is copied on its way to the handler: only code changes that number."""

from pathlib import Path
from threading import Thread

import pytest

from cluster.shells.client import Client
from cluster.shells.coordinator import ClusterCoordinator
from cluster.shells.worker import Worker
from cluster.spec import BASELINE, ClusterSpec
from cluster.work.workloads import HANDLERS
from perfkit.bench.counts import copies as module
from perfkit.bench.counts.copies import CopyTrail, count_copies
from perfkit.bench.workloads.load import ExperimentError
from perfkit.optimized.specs import OPTIMIZED

pytest.importorskip("numpy")


@pytest.fixture(scope="module")
def optimized() -> CopyTrail:
    return count_copies(OPTIMIZED)


def test_the_optimized_cluster_receives_a_tensor_twice_without_copies(optimized: CopyTrail) -> None:
    assert optimized.tensor_bytes == 16 << 20
    assert optimized.of("client") == 1  # the frame that pack_tensor makes
    assert optimized.of("socket") == 2  # into the coordinator's memory, into the worker's
    assert optimized.of("coordinator") == 0
    assert optimized.of("worker") == 0
    assert optimized.copies == sum(map(optimized.of, ("client", "socket", "worker")))


def test_the_baseline_copies_it_at_every_turn(optimized: CopyTrail) -> None:
    baseline = count_copies(BASELINE, 1 << 20)
    assert baseline.of("socket") == 6
    assert baseline.of("coordinator") == 2
    assert baseline.copies > 2 * optimized.copies


def test_a_view_is_sent_as_it_is(optimized: CopyTrail) -> None:
    viewed = count_copies(OPTIMIZED, as_view=True)
    assert [step.copies for step in viewed.steps] == [step.copies for step in optimized.steps]


def test_a_trail_is_a_table(optimized: CopyTrail) -> None:
    pytest.importorskip("pandas")
    assert optimized.to_frame()["copies"].sum() == optimized.copies
    told = f"{optimized.copies} copies of a tensor of 16.0 MiB, spec optimized"
    assert told in optimized._repr_html_()


def test_a_tensor_that_does_not_arrive_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_send", lambda spec, payload, seen: None)
    with pytest.raises(ExperimentError, match="spec 'optimized': the tensor did not arrive"):
        count_copies(OPTIMIZED, 1 << 20)


def buffers_allocated(spec: ClusterSpec, size_bytes: int, folder: Path) -> int:
    """How many blocks of an input's size memray sees between a submitter and a handler of views."""
    memray = pytest.importorskip("memray")
    payload, recording = memoryview(bytearray(size_bytes)), folder / f"{spec.name}.bin"
    with ClusterCoordinator(spec) as coordinator:
        worker = Worker(coordinator.endpoint, HANDLERS, spec=spec)
        thread = Thread(target=worker.run)
        thread.start()
        try:
            with Client(coordinator.endpoint, spec=spec) as client:
                client.submit("length", b"x").result(30)
                with memray.Tracker(recording):
                    result = client.submit("length", payload).result(30)
        finally:
            worker.stop()
            thread.join()
    assert int(result) == size_bytes
    with memray.FileReader(recording) as reader:
        records = [r for r in reader.get_allocation_records() if r.size >= size_bytes]
    return sum(record.n_allocations for record in records)


def test_an_input_is_received_twice_and_never_copied(tmp_path: Path) -> None:
    assert buffers_allocated(OPTIMIZED, 4 << 20, tmp_path) == 2
    assert buffers_allocated(BASELINE, 4 << 20, tmp_path) > 2
