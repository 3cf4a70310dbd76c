"""The table of goals: verdicts, rows, and a small table of real measurements."""

import json
import os
from unittest.mock import Mock

import msgspec
import psutil
import pytest

from cluster import BASELINE, LocalCluster
from perfkit.bench.goals import cluster as limits
from perfkit.bench.goals import cluster_runs as runs
from perfkit.bench.goals.cluster import GOALS, ClusterSizes, measure_cluster
from perfkit.bench.goals.table import Contest, GoalTable, make_row
from perfkit.bench.workloads.load import ExperimentError, WrongResult, echo_work, submit_s
from perfkit.bench.workloads.pinning import layouts
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.samples import Interval

TINY = ClusterSizes(
    rounds=3, map_tasks=400, baseline_tasks=100, submit_tasks=1_250, latency_tasks=30,
    mixed_rounds=3, open_tasks=40, burst_tasks=60, big_payloads=2, choices=20, codec_tasks=50,
)  # fmt: skip
BURST = msgspec.structs.replace(BASELINE, name="optimized", burst=100)
FIELDS = "name value unit low high limit ratio goal met".split()
GOAL_NAMES = {goal.name: goal for goal in GOALS}


def interval(value: float | None, low: float | None, high: float | None) -> Interval:
    return Interval(value, low, high, 0.95, "")


def readings(**arms: list[float]) -> dict[str, dict[str, list[float]]]:
    return {"map": {name.replace("_", " "): list(figures) for name, figures in arms.items()}}


def test_a_row_is_held_against_its_limit_or_another_arm() -> None:
    found = readings(
        optimized=[790.0, 800.0, 810.0, 800.0],
        baseline=[19.8, 20.0, 20.2, 20.0],
        packed_broker=[399.0, 400.0, 401.0, 400.0],
    )
    row = make_row(GOAL_NAMES["map_vs_packed"], found)
    assert (row.value, row.limit, row.baseline) == (800.0, 400.0, 20.0)
    assert row.ratio == pytest.approx(2.0, rel=0.02)
    assert (row.against, row.limit_name) == ("packed broker", "packed broker")
    assert 1.5 < row.ratio_low < 2 < row.ratio_high
    assert row.met is True
    row = make_row(GOAL_NAMES["optimized_vs_baseline"], found)
    assert row.ratio == pytest.approx(40.0, rel=0.02)
    assert (row.against, row.limit, row.met) == ("baseline", None, True)
    assert make_row(GOAL_NAMES["map_throughput"], found).met is False


def test_a_row_without_samples_is_unknown() -> None:
    for goal in GOALS:
        row = make_row(goal, {})
        assert {row.value, row.low, row.high, row.limit, row.ratio, row.met} == {None}
    half = make_row(GOAL_NAMES["map_vs_packed"], readings(optimized=[1.0, 2.0, 3.0]))
    assert (half.value, half.ratio, half.met) == (2.0, None, None)
    none = readings(optimized=[1.0, 0.0], packed_broker=[1.0, 2.0])
    assert make_row(GOAL_NAMES["map_vs_packed"], none).ratio is None


def test_a_tail_is_that_of_all_rounds_together() -> None:
    quick, slow = [1.0] * 995, [9.0] * 5
    found = {"mixed_p99": {"optimized": [1.0, 1.0, 9.0]}, "mixed_ms": {"optimized": quick + slow}}
    row = make_row(GOAL_NAMES["mixed_p99"], found)
    assert (row.value, row.low) == (1.0, 1.0)
    assert row.met is (True if (row.high or 9.0) <= 5.0 else None)


@pytest.fixture(scope="module")
def measured() -> tuple[GoalTable, list[str]]:
    lines: list[str] = []
    cores = os.sched_getaffinity(0)
    before = set(psutil.Process().children(recursive=True))
    table = measure_cluster(TINY, optimized=BURST, seed=4, progress=lines.append)
    assert set(psutil.Process().children(recursive=True)) == before
    assert os.sched_getaffinity(0) == cores
    return table, lines


def test_every_goal_is_measured(measured: tuple[GoalTable, list[str]]) -> None:
    table, _ = measured
    every_ms = table.of("mixed_p99").samples
    assert set(every_ms) == {"optimized", "baseline"}
    assert [row.name for row in table] == [goal.name for goal in GOALS]
    for row in table:
        assert row.value is not None, row.name
        # Processor time comes in ticks, and a small block may end before the first.
        assert row.value > 0 or row.name == "coordinator_cpu_per_task"
        arms = {runs.OPTIMIZED, row.against, row.limit_name} - {None}
        assert arms <= row.samples.keys(), row.name
        rounds = {len(figures) for figures in row.samples.values()}
        assert rounds == {3}, row.name
        if row.name not in ("mixed_p99", "coordinator_cpu_per_task"):
            assert row.low is not None, row.name
            assert row.ratio_low is not None, row.name


def test_the_layout_is_known_and_rounds_are_told(measured: tuple[GoalTable, list[str]]) -> None:
    table, lines = measured
    assert table.layout in {layout.name for layout in layouts()}
    assert all(line.startswith("limits: ") for line in lines)
    assert any("round 2 of 3, packed broker" in line for line in lines)
    for arm in ("three-process round trip", "bare with messages"):
        told = [line for line in lines if f"round 3 of 3, {arm}" in line]
        assert len(told) == 2, "pinned and not pinned"


def test_the_table_as_json_and_as_a_frame(measured: tuple[GoalTable, list[str]]) -> None:
    table, _ = measured
    rows = json.loads(table.encode())
    assert [list(row)[: len(FIELDS)] for row in rows] == [FIELDS] * len(GOALS)
    for row in rows:
        assert row["met"] in (True, False, None)
        assert row["machine_id"] == fingerprint().machine_id
        assert row["seed"] == 4
    assert list(table.to_frame()["name"]) == [goal.name for goal in GOALS]
    shown = table._repr_html_()
    assert all(goal.name in shown for goal in GOALS)
    assert table.layout in shown


def test_a_wrong_result_ends_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Mock(side_effect=WrongResult("task 3 came back as task 4"))
    monkeypatch.setattr(limits.runs.Work, "check", wrong)
    with pytest.raises(WrongResult, match="task 4"):
        runs.throughput(Contest(BURST, TINY, 1, lambda line: None))


def test_futures_in_a_window_are_all_collected() -> None:
    with LocalCluster(1, BURST) as local, local.client() as client:
        for tasks in (1, 1_000, 1_234):
            assert submit_s(client, echo_work(tasks, seed=tasks)) > 0


def test_a_table_reads_the_processor_time_of_a_million_tasks_in_every_profile() -> None:
    with pytest.raises(ExperimentError, match="no profile 'quik'; there are quick, full"):
        measure_cluster("quik")
    for sizes in limits.PROFILES.values():
        assert sizes.rounds * sizes.map_tasks >= 1_000_000
