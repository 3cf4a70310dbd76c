"""The rule that decides: from seeded samples it finds 10 %, and identical code raises no alarm."""

import math
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from perfkit.bench.regression.judge import (
    BETWEEN_RUNS,
    PROCESSES_MIN,
    GateTable,
    judge_ratio,
    judge_runs,
    ratio_of_runs,
)
from perfkit.bench.regression.measure import BASELINE_PROCESSES, BATCH
from perfkit.evidence.results import Result
from perfkit.evidence.samples import Interval
from perfkit.evidence.verdicts import Verdict
from tests.perfkit.machine import HERE

FIGURES = (("baseline", "single"), ("baseline", "stream"), ("optimized", "single"))
#: As seen among fresh processes: a deviation of 1.5 %, and one of 15 off by a tenth.
PROCESS_DEVIATION, OUTLIERS = 0.015, 1 / 15
CHECKS = 200


def cost(
    samples: Sequence[float], spec: str = "baseline", load: str = "single", **more: Any
) -> Result:
    fields: dict[str, Any] = {
        "experiment": "coordinator_cost", "spec": spec, "engine": "in process", "workers": 2,
        "tasks": 16, "value": samples[0], "unit": "reference loads", "low": None, "high": None,
        "samples": [*samples], "environment": HERE, "parameters": {"load": load},
    }  # fmt: skip
    return Result(**{**fields, **more})


def run(rng: random.Random, processes: int, factor: float = 1.0) -> list[Result]:
    """A run of one code: every figure moves with the run, and every sample with its process."""
    results = []
    for spec, load in FIGURES:
        level = factor * math.exp(rng.gauss(0, BETWEEN_RUNS))
        samples = [
            level
            * math.exp(rng.gauss(0, PROCESS_DEVIATION))
            * (1.1 if rng.random() < OUTLIERS else 1.0)
            for _ in range(processes)
        ]
        results.append(cost(samples, spec, load))
    return results


def verdicts(factor: float, processes: int = BATCH) -> list[Verdict]:
    rng = random.Random(factor)
    return [
        judge_runs(run(rng, BASELINE_PROCESSES), run(rng, processes, factor)).verdict
        for _ in range(CHECKS)
    ]


def test_a_slowdown_of_10_percent_is_found_19_times_in_20() -> None:
    found = verdicts(1.10)
    assert found.count(Verdict.REGRESSION) >= 0.95 * CHECKS
    assert Verdict.SAME not in found


@pytest.mark.parametrize("factor", [1.0, 0.9])
def test_code_that_is_no_slower_raises_an_alarm_once_in_20_runs_at_most(factor: float) -> None:
    assert verdicts(factor).count(Verdict.REGRESSION) <= 0.05 * CHECKS


def test_more_processes_decide_what_a_batch_left_open() -> None:
    batch, three = verdicts(1.0), verdicts(1.0, 3 * BATCH)
    assert three.count(Verdict.INCONCLUSIVE) < batch.count(Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (1.02, 1.08, 1.14, Verdict.REGRESSION),
        (0.99, 1.08, 1.18, Verdict.INCONCLUSIVE),
        (1.01, 1.04, 1.07, Verdict.INCONCLUSIVE),
        (1.01, 1.03, 1.049, Verdict.SAME),
        (0.96, 1.0, 1.04, Verdict.SAME),
        (0.8, 0.9, 0.99, Verdict.FASTER),
        (None, 1.5, None, Verdict.INCONCLUSIVE),
    ],
)
def test_the_whole_interval_decides(
    low: float | None, value: float, high: float | None, verdict: Verdict
) -> None:
    assert judge_ratio(Interval(value, low, high, 0.95, ""))[0] is verdict


def test_a_ratio_needs_several_processes_and_ignores_one_that_is_off() -> None:
    few = ratio_of_runs([1.0] * 9, [2.0] * (PROCESSES_MIN - 1))
    assert (few.value, few.low, few.high) == (pytest.approx(2.0), None, None)
    steady = ratio_of_runs([1.0] * 9, [1.0] * 9)
    assert ratio_of_runs([1.0] * 9, [1.0] * 8 + [9.0]) == steady
    half = math.log(steady.high or 0)
    assert half == pytest.approx(1.96 * math.sqrt(2) * BETWEEN_RUNS, rel=1e-3)


COUNTS = {"messages_in_per_task": 2.0, "allocations_per_task": 100.0, "bytecodes_per_task": 4_000.0}


def judged(
    before: dict[str, float | None], now: dict[str, float | None], **machine: Any
) -> GateTable:
    there = msgspec.structs.replace(HERE, **machine)
    samples = [1.0] * BATCH
    return judge_runs(
        [cost(samples, counters=before, environment=there)], [cost(samples, counters=now)]
    )


@pytest.mark.parametrize(
    ("counter", "factor", "verdict"),
    [
        ("messages_in_per_task", 1.01, Verdict.REGRESSION),
        ("allocations_per_task", 1.01, Verdict.REGRESSION),
        ("bytecodes_per_task", 1.06, Verdict.REGRESSION),
        ("bytecodes_per_task", 1.04, Verdict.SAME),
        ("messages_in_per_task", 0.5, Verdict.SAME),
    ],
)
def test_a_count_that_grows_is_a_regression(counter: str, factor: float, verdict: Verdict) -> None:
    table = judged({**COUNTS}, {**COUNTS, counter: COUNTS[counter] * factor})
    assert table.verdict is verdict
    assert (counter.replace("_", " ") in table.sentence) == (verdict is Verdict.REGRESSION)


def test_on_another_machine_only_counts_gate() -> None:
    slower = [cost([2.0] * BATCH, counters={**COUNTS})]
    there = msgspec.structs.replace(HERE, cpu_model="another")
    before = [cost([1.0] * BATCH, counters={**COUNTS}, environment=there)]
    table = judge_runs(before, slower)
    time = table.rows[0]
    assert (time.verdict, time.gates) == (Verdict.MEASURED, False)
    assert f"processor: another against {HERE.cpu_model}" in time.reason
    assert table.verdict is Verdict.SAME
    grown = {**COUNTS, "bytecodes_per_task": 5_000.0}
    assert judged({**COUNTS}, grown, cpu_model="another").verdict is Verdict.REGRESSION


@pytest.mark.parametrize(
    "other", [{"parameters": {"load": "single", "reference_version": 9}}, {"tasks": 17}]
)
def test_another_yardstick_asks_for_a_new_baseline(other: dict[str, Any]) -> None:
    table = judge_runs([cost([1.0] * BATCH)], [cost([1.0] * BATCH, **other)])
    assert table.verdict is Verdict.INCONCLUSIVE
    assert "save a new baseline" in table.rows[0].reason


def test_counts_that_follow_from_python_gate_for_one_minor_version_only() -> None:
    grown = {**COUNTS, "bytecodes_per_task": 5_000.0, "allocations_per_task": 200.0}
    assert judged({**COUNTS}, grown, python="3.99.0").verdict is Verdict.SAME
    grown["messages_in_per_task"] = 3.0
    assert judged({**COUNTS}, grown, python="3.99.0").verdict is Verdict.REGRESSION


def test_a_count_on_one_side_only_is_shown_and_gates_nothing() -> None:
    table = judged({"messages_in_per_task": 2.0, "allocations_per_task": None}, {**COUNTS})
    assert table.verdict is Verdict.SAME
    reasons = {row.name.split(": ")[1]: row.reason for row in table.rows}
    assert reasons["allocations per task"] == "not counted in the baseline"


def test_a_figure_without_a_partner_is_inconclusive() -> None:
    alone = [cost([1.0] * BATCH)]
    for before, now, why in (([], alone, "no such figure"), (alone, [], "no longer measured")):
        table = judge_runs(before, now)
        assert table.verdict is Verdict.INCONCLUSIVE
        assert why in table.rows[0].reason


def test_a_table_is_shown_escaped_with_its_sentence() -> None:
    table = judge_runs([cost([1.0] * BATCH, "<b>")], [cost([2.0] * BATCH, "<b>")])
    assert table.sentence == "regression: <b>, single: coordinator time"
    html = table._repr_html_()
    assert "&lt;b&gt;, single" in html
    assert "<b>" not in html
