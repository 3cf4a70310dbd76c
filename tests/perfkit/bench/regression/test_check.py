"""A check measures until it is clear, asks twice before it alarms, and says what it lacks."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from perfkit.bench.regression import check as checking
from perfkit.bench.regression import measure
from perfkit.bench.regression.check import BATCHES_MAX, check
from perfkit.bench.regression.cost import CASES, CostSample
from perfkit.bench.regression.measure import BATCH, Costs, measure_costs, results_of_run, save_costs
from perfkit.bench.workloads.load import ExperimentError
from perfkit.evidence.baselines import Baseline
from perfkit.evidence.results import ResultError
from perfkit.evidence.verdicts import Verdict

TRAFFIC = {"messages_in_per_task": 2.0, "bytes_in_per_task": 400.0}
COUNTED = {spec: {"single": TRAFFIC, "stream": TRAFFIC} for spec in ("baseline", "optimized")}


@pytest.fixture
def level(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The costs of the next processes, the last one for all that follow; no process is started."""
    levels = [1.0]

    def sampled(*_: Any, **__: Any) -> str:
        cost = levels.pop(0) if len(levels) > 1 else levels[0]
        return msgspec.json.encode(
            {case.name: CostSample(cost, 35.0, 4_000.0) for case in CASES}
        ).decode()

    monkeypatch.setattr(measure, "run_module", sampled)
    monkeypatch.setattr(measure, "_counts", lambda say: (COUNTED, None))
    return levels


def test_a_clear_run_takes_one_batch(level: list[float]) -> None:
    said: list[str] = []
    found = check(Baseline(results=measure_costs()), said.append)
    assert found.table.verdict is Verdict.SAME
    assert found.table.sentence == "no regression in 16 figures"
    assert [len(result.samples) for result in found.results] == [BATCH] * len(CASES)
    assert said[-1] == "coordinator cost: process 5, 35 µs/task of baseline, single"


def test_an_alarm_has_been_judged_twice(level: list[float]) -> None:
    baseline = Baseline(results=measure_costs())
    level[0] = 1.1
    found = check(baseline)
    assert found.table.verdict is Verdict.REGRESSION
    assert len(found.results[0].samples) == 2 * BATCH


def test_a_first_batch_that_was_disturbed_is_outvoted(level: list[float]) -> None:
    baseline = Baseline(results=measure_costs())
    level[:0] = [1.2] * BATCH
    found = check(baseline)
    assert found.table.verdict is Verdict.SAME
    assert len(found.results[0].samples) == BATCHES_MAX * BATCH


def test_another_machine_is_named_and_takes_one_batch(level: list[float]) -> None:
    there = [
        msgspec.structs.replace(
            result, environment=msgspec.structs.replace(result.environment, cpu_model="another")
        )
        for result in measure_costs()
    ]
    level[0] = 2.0
    found = check(Baseline(results=there))
    assert found.table.verdict is Verdict.SAME
    assert found.other_machine[0].startswith("processor: another against ")
    assert len(found.results[0].samples) == BATCH


def test_a_baseline_without_costs_is_refused(level: list[float]) -> None:
    other = msgspec.structs.replace(measure_costs()[0], experiment="latency")
    with pytest.raises(ResultError, match=r"has no cost of the coordinator .*`perfkit baseline"):
        check(Baseline(results=[other]))


def test_a_check_is_data_with_its_raw_results(level: list[float]) -> None:
    found = msgspec.json.decode(check(Baseline(results=measure_costs())).encode())
    assert found["verdict"] == "same"
    assert len(found["rows"]) == 16
    assert found["results"][0]["samples"] == [1.0] * BATCH


def test_costs_saved_in_a_run_are_found_there(level: list[float], tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"has no coordinator_cost\*.json: only a run of"):
        results_of_run(tmp_path)
    found = measure_costs(BATCH)
    save_costs(found, tmp_path / "results")
    assert sorted(map(str, results_of_run(tmp_path))) == sorted(map(str, found))


def test_without_memray_allocations_are_missing_and_have_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise ExperimentError("no memray today")

    monkeypatch.setattr(measure, "count_afresh", fail)
    monkeypatch.setattr(measure, "count_specs", lambda: COUNTED)
    costs = Costs()
    costs._samples = [{case.name: CostSample(1.0, 35.0, 4_000.0) for case in CASES}]
    result = costs.results()[0]
    assert result.parameters["no_allocations"] == "no memray today"
    assert result.counters == {**TRAFFIC, "bytecodes_per_task": 4_000.0}


def test_a_count_that_processes_disagree_on_is_unknown(level: list[float]) -> None:
    costs = Costs()
    costs._samples = [
        {case.name: CostSample(1.0, 35.0, float(n)) for case in CASES} for n in range(2)
    ]
    assert costs.results()[0].counters["bytecodes_per_task"] is None


@pytest.mark.slow
def test_the_real_check_finds_this_code_no_slower_in_counts() -> None:
    baseline = Baseline(results=measure_costs(4))
    table = checking.check(baseline).table
    counts = [row for row in table if not row.name.endswith("time")]
    assert len(counts) == 28
    assert all(row.verdict is Verdict.SAME and row.gates for row in counts)
    exact = [row for row in counts if not row.name.endswith("blocks per queued task")]
    assert {row.ratio.value for row in exact} == {1.0}
