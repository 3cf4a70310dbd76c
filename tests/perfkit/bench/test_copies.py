"""How often a tensor is copied on its way to the handler: only code changes that number."""

import pytest

from cluster.spec import BASELINE
from perfkit.bench import copies as module
from perfkit.bench.copies import CopyTrail, count_copies
from perfkit.bench.load import ExperimentError
from perfkit.specs import OPTIMIZED

pytest.importorskip("numpy")


@pytest.fixture(scope="module")
def optimized() -> CopyTrail:
    return count_copies(OPTIMIZED)


def test_the_optimized_cluster_copies_a_tensor_four_times_at_most(optimized: CopyTrail) -> None:
    assert optimized.tensor_bytes == 16 << 20
    assert optimized.of("client") == 1  # the frame that pack_tensor makes
    assert optimized.of("socket") == 2  # into the coordinator's memory, into the worker's
    assert optimized.of("coordinator") == 0
    assert optimized.of("worker") <= 1
    assert optimized.copies == sum(map(optimized.of, ("client", "socket", "worker")))


def test_the_baseline_copies_it_at_every_turn(optimized: CopyTrail) -> None:
    baseline = count_copies(BASELINE, 1 << 20)
    assert baseline.of("socket") == 6
    assert baseline.of("coordinator") == 2
    assert baseline.copies > 2 * optimized.copies


def test_a_view_is_made_bytes_once(optimized: CopyTrail) -> None:
    viewed = count_copies(OPTIMIZED, as_view=True)
    more = {
        it.step: it.copies - other.copies
        for it, other in zip(viewed.steps, optimized.steps, strict=True)
    }
    assert {step: copies for step, copies in more.items() if copies} in ({}, {"submit": 1})


def test_a_trail_is_a_table(optimized: CopyTrail) -> None:
    pytest.importorskip("pandas")
    frame = optimized.to_frame()
    assert frame["copies"].sum() == optimized.copies
    assert (
        f"{optimized.copies} copies of a tensor of 16.00 MiB, spec optimized"
        in optimized._repr_html_()
    )


def test_a_tensor_that_does_not_arrive_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_send", lambda spec, payload, seen: None)
    with pytest.raises(ExperimentError, match="spec 'optimized': the tensor did not arrive"):
        count_copies(OPTIMIZED, 1 << 20)
