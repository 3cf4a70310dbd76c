"""The table of memory: real processes, little of each, and every figure held against its goal."""

from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from cluster.local import LocalCluster
from cluster.models.repository.manifest import ModelError
from perfkit.bench.goals import memory, memory_runs
from perfkit.bench.goals.memory import GOALS, measure_memory
from perfkit.bench.goals.memory_runs import MemoryContest, MemorySizes
from perfkit.bench.goals.sharing import SharingSizes
from perfkit.bench.goals.table import Contest
from perfkit.bench.leaks.check import CheckSizes
from perfkit.bench.leaks.churn import KINDS
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import ArmSamples, Say
from perfkit.optimized.specs import OPTIMIZED

LITTLE = MemorySizes(
    rounds=1,
    passed_tasks=2_000,
    baseline_passed_tasks=200,
    queued_tasks=20_000,
    baseline_queued_tasks=2_000,
    full_rounds=1,
    stream_rounds=1,
    streamed_bytes=16 << 20,
    sharing=SharingSizes((4,), memory_rounds=1, load_rounds=4, first_loads=1, item_rounds=4),
    leaks=CheckSizes(tasks=2_600, churn=260),
)
SMALL = replace(OPTIMIZED, limits=replace(OPTIMIZED.limits, tasks=3_000))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory settles sooner, because these tests do not need the last digits."""
    monkeypatch.setattr(memory_runs, "STILL_S", 0.7)


def contest(say: Say = lambda line: None) -> MemoryContest:
    return Contest(SMALL, LITTLE, 1, say)


@pytest.mark.usefixtures("brief")
def test_a_full_queue_refuses_one_more_and_says_how_much_it_holds() -> None:
    assert 15 < memory_runs.filling(contest(), "optimized", SMALL)["full"] < 100


@pytest.mark.usefixtures("brief")
def test_a_queue_that_should_be_full_and_is_not_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_runs, "Busy", KeyError)
    with pytest.raises(ExperimentError, match="one more should be refused with the bound"):
        memory_runs.filling(contest(), "optimized", SMALL)


@pytest.mark.slow
def test_every_goal_has_a_figure_from_real_processes() -> None:
    lines: list[str] = []
    table = measure_memory(
        LITTLE, optimized=replace(OPTIMIZED, limits=replace(OPTIMIZED.limits, tasks=30_000)),
        progress=lines.append,
    )  # fmt: skip
    own = list(table)[: len(GOALS)]
    assert [row.name for row in own] == [goal.name for goal in GOALS]
    assert all(row.value is not None and row.value > 0 for row in own)
    assert all(row.baseline for row in own if row.name != "queue_of_1m")
    others = {row.name: row for row in list(table)[len(GOALS) :]}
    assert {"shared_pss_4", "shared_load", "shared_latency"} < others.keys()
    assert {f"growth_{event.replace(' ', '_')}" for event in KINDS} < others.keys()
    assert all(row.value is not None for row in others.values())
    assert all(line.startswith("memory: ") for line in lines)
    assert 5 < (table.of("coordinator_idle").value or 0) < 100


def test_a_missing_model_is_unknown_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Mock(side_effect=ModelError("model 'minilm' needs its package"))
    monkeypatch.setattr(memory, "measure_sharing", missing)
    lines: list[str] = []
    rows = memory.sharing_a_model(contest(lines.append))
    assert {row.name: row.value for row in rows}["shared_pss_4"] is None
    assert lines == ["sharing is not measured: model 'minilm' needs its package"]


def test_a_figure_without_samples_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(_: MemoryContest) -> ArmSamples:
        return {"idle": {"optimized": [27.0, 27.0, 27.5, 26.0], "baseline": [25.0] * 4}}

    monkeypatch.setattr(memory, "in_fresh_clusters", make)
    for empty in ("allocating", "sharing_a_model"):
        monkeypatch.setattr(memory, empty, lambda _: {})
    monkeypatch.setattr(memory, "check_leaks", lambda *_, **__: ())
    table = measure_memory("quick")
    assert (table.of("coordinator_idle").met, table.of("worker").value) == (True, None)
    assert "Latency" not in table._repr_html_()


def test_a_missing_package_is_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "in_fresh_clusters", Mock(side_effect=AssertionError("too late")))
    monkeypatch.setattr(memory, "EXTRAS", {"no_such_package": "infer", "zmq": "lab"})
    with pytest.raises(ExperimentError, match=r"needs no_such_package; .*perfkit\[infer\]"):
        measure_memory("quick")


def test_sizes_without_rounds_leave_their_rows_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in ("in_fresh_clusters", "allocating"):
        monkeypatch.setattr(memory, empty, lambda _: {})
    monkeypatch.setattr(memory, "check_leaks", lambda *_, **__: ())
    sizes = MemorySizes(
        rounds=1, passed_tasks=1, baseline_passed_tasks=1, queued_tasks=1,
        baseline_queued_tasks=1, full_rounds=0, stream_rounds=0, sharing=None,
    )  # fmt: skip
    names = {row.name for row in measure_memory(sizes)}
    left_out = {goal.name for goal in GOALS} - names
    assert left_out == {"queue_of_1m", *(f"streamed_{role}" for role in memory.ROLES)}
    assert not any(name.startswith("shared") for name in names)


def test_without_memray_allocations_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    missing = Mock(side_effect=ExperimentError("memray is not installed"))
    monkeypatch.setattr(memory_runs, "count_afresh", missing)
    assert memory_runs.allocating(contest(said.append)) == {}
    assert said == ["allocations are not counted: memray is not installed"]


def test_a_process_that_is_gone_or_never_rests_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCluster(0) as local:
        pid = local.coordinator_pid
        monkeypatch.setattr(memory_runs, "MOVING_S", -1.0)
        with pytest.raises(ExperimentError, match="did not settle"):
            memory_runs.settled(pid)
    with pytest.raises(ExperimentError, match="ended while its memory was measured"):
        memory_runs.settled(pid)


def test_a_queue_that_never_is_as_wanted_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_runs, "QUEUED_S", -1.0)
    with LocalCluster(0) as local, pytest.raises(ExperimentError, match="the queue did not become"):
        memory_runs.await_status(local.client(), lambda status: False)
