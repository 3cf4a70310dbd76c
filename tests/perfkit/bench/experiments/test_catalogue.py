"""The experiments on real clusters, small; and that wrong answers make no figure."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from cluster import BASELINE, LocalCluster
from cluster.shells.client import Client
from cluster.spec import decode_spec
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.experiments import catalogue
from perfkit.bench.experiments.catalogue import (
    EXPERIMENTS,
    NO_SPEC,
    figure_of,
    judged,
    run,
    run_all,
)
from perfkit.bench.experiments.setting import Measurement, Setting
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.engines import MissingExtra
from perfkit.engines.base import ColumnEngine
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.results import Result, decode, encode
from perfkit.evidence.verdicts import FigureGoal, Verdict, judge

TASKS = {"submission": 40, "throughput": 40, "latency": 30, "burst": 10, "startup": 1}


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """Every experiment once, on one worker."""
    return {
        name: run(name, spec=BASELINE, workers=1, tasks=tasks, seed=5)
        for name, tasks in TASKS.items()
    }


@pytest.mark.parametrize("name", TASKS)
def test_an_experiment_ends_in_a_result_with_samples(name: str, results: dict[str, Result]) -> None:
    result = results[name]
    assert (result.experiment, result.spec, result.engine) == (name, "baseline", "zmq")
    assert (result.workers, result.tasks, result.seed) == (1, TASKS[name], 5)
    assert result.unit == EXPERIMENTS[name].unit
    assert result.environment.machine_id == fingerprint().machine_id
    assert result.samples
    assert all(sample > 0 for sample in result.samples)
    assert min(result.samples) <= result.value <= max(result.samples)
    assert decode(encode(result)) == result


def test_samples_are_blocks_tasks_bursts_or_clusters(results: dict[str, Result]) -> None:
    counts = {name: len(result.samples) for name, result in results.items()}
    assert counts == {"submission": 10, "throughput": 10, "latency": 30, "burst": 7, "startup": 1}
    unknown = [name for name, result in results.items() if None in (result.low, result.high)]
    assert unknown == ["startup"]


def test_latency_has_its_tail_beside_it(results: dict[str, Result]) -> None:
    latency = results["latency"]
    p95, p99 = latency.counters["latency_ms_p95"], latency.counters["latency_ms_p99"]
    assert latency.value <= p95 <= p99
    assert latency.counters["latency_ms_p99_high"] is None  # 30 samples cannot bound it


def test_every_call_of_submit_is_timed_and_judged(results: dict[str, Result]) -> None:
    submission = results["submission"]
    assert len(submission.series["submit_ms"]) == TASKS["submission"]
    p50, p95, p99 = (submission.counters[f"submit_ms_p{q}"] for q in (50, 95, 99))
    assert 0 < p50 <= p95 <= p99
    goals = judged(submission)
    assert [(found.goal.goal, found.goal.unit) for found in goals] == [
        (2.0, "ms"), (5.0, "ms"), (10.0, "ms"),
    ]  # fmt: skip
    assert [found.figure.value for found in goals] == [p50, p95, p99]
    assert goals[2].verdict in (Verdict.INCONCLUSIVE, Verdict.MISSED)  # 40 calls cannot bound p99


def test_the_last_task_of_a_burst_is_its_figure(results: dict[str, Result]) -> None:
    burst = results["burst"]
    every = burst.series["task_ms"]
    bursts = [every[start : start + 10] for start in range(0, len(every), 10)]
    assert [max(t for t in one if t is not None) for one in bursts] == burst.samples


def test_the_baseline_costs_2_messages_in_and_3_out_a_task(results: dict[str, Result]) -> None:
    for name in ("throughput", "latency", "burst"):
        counters = results[name].counters
        assert counters["messages_in_per_task"] == 2
        assert counters["messages_out_per_task"] == 3
    assert 200 < (results["throughput"].counters["bytes_in_per_task"] or 0) / 2 < 1_000


def test_a_served_model_is_measured_with_its_accuracy() -> None:
    lines: list[str] = []
    result = run(
        "throughput", spec=BASELINE, workers=1, tasks=30, model="digits", progress=lines.append
    )
    assert result.unit == "items/s"
    assert result.parameters["model"] == "digits"
    assert result.parameters["provider"].endswith("ExecutionProvider")
    low, accuracy = result.counters["accuracy_low"], result.counters["accuracy"]
    assert 0.9 < low < accuracy < 1
    assert lines[0] == "throughput: warm-up, 3 tasks"
    assert lines[-1].startswith("throughput: block 10, ")


@pytest.mark.parametrize("name", TASKS)
def test_an_experiment_on_another_engine_claims_no_spec_and_counts_nothing(name: str) -> None:
    result = run(name, spec=BASELINE, workers=1, tasks=TASKS[name], engine="local")
    assert (result.experiment, result.engine, result.spec) == (name, "local", NO_SPEC)
    assert (result.workers, result.tasks) == (1, TASKS[name])
    assert min(result.samples) <= result.value <= max(result.samples)
    assert not [counter for counter in result.counters if counter.endswith("_per_task")]
    assert decode(encode(result)) == result
    with pytest.raises(ClusterError, match="name"):
        decode_spec(json.dumps({"name": NO_SPEC}))


@pytest.mark.parametrize("engine", ["dask", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_peer_serves_the_same_model(engine: str) -> None:
    amount = {"workers": 1, "tasks": 20, "model": "digits"}
    try:
        result = run("throughput", spec=BASELINE, engine=engine, **amount)
    except MissingExtra as missing:
        pytest.skip(str(missing))
    assert (result.engine, result.spec, result.unit) == (engine, NO_SPEC, "items/s")
    assert (result.counters["accuracy"] or 0) > 0.9


def test_a_peer_that_answers_wrongly_makes_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    truly = ColumnEngine.map

    def swapped(self: ColumnEngine, kind: str, payloads: Any) -> Iterator[bytes]:
        return reversed(list(truly(self, kind, payloads)))

    monkeypatch.setattr(ColumnEngine, "map", swapped)
    with pytest.raises(WrongResult, match=r"echo task 0 of .* the run counts for nothing"):
        run("throughput", spec=BASELINE, workers=1, tasks=40, engine="local")


@pytest.fixture
def corrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every client gives a wrong result for its second task."""
    truly_map, truly_submit = Client.map, Client.submit
    asked = iter(range(10**9))

    def map_wrongly(self: Client, kind: str, payloads: Any, **options: Any) -> Iterator[bytes]:
        for number, result in enumerate(truly_map(self, kind, payloads, **options)):
            yield result if number != 1 else b"wrong"

    def submit_wrongly(self: Client, kind: str, payload: bytes, **options: Any) -> Any:
        return truly_submit(self, kind, payload if next(asked) != 1 else b"wrong", **options)

    monkeypatch.setattr(Client, "map", map_wrongly)
    monkeypatch.setattr(Client, "submit", submit_wrongly)


@pytest.mark.usefixtures("corrupted")
@pytest.mark.parametrize("name", ["submission", "throughput", "latency", "burst"])
def test_one_wrong_answer_spoils_the_experiment(name: str) -> None:
    with pytest.raises(WrongResult, match=r"echo task 1 of .* the run counts for nothing"):
        run(name, spec=BASELINE, workers=1, tasks=20)


def test_a_start_that_is_announced_too_early_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    truly = LocalCluster.__init__

    def with_one_less(self: LocalCluster, n_workers: int, *args: Any, **options: Any) -> None:
        truly(self, n_workers - 1, *args, **options)

    monkeypatch.setattr(LocalCluster, "__init__", with_one_less)
    with pytest.raises(WrongResult, match="2 workers said it was ready with 1"):
        run("startup", spec=BASELINE, workers=2, tasks=1)


def test_a_result_is_judged_by_whole_intervals_and_an_unknown_one_is_inconclusive(
    results: dict[str, Result],
) -> None:
    known = results["submission"]
    goal = FigureGoal("", "rate", "tasks/s", "higher", known.low or 0)
    assert judge(figure_of(known, ""), goal.goal, goal.better) is Verdict.MET
    nothing = figure_of(known, "no_such_counter")
    assert (nothing.value, nothing.low, nothing.high) == (None, None, None)
    assert judge(nothing, 1.0, "lower") is Verdict.INCONCLUSIVE
    assert judged(results["startup"]) == []
    assert judged(msgspec.structs.replace(known, experiment="of another version")) == []


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of one real experiment, one that fails, and one with a bug."""

    def fail(setting: Setting) -> Measurement:
        raise ExperimentError("no luck\nat all")

    def slip(setting: Setting) -> Measurement:
        raise KeyError("typo")

    real = replace(EXPERIMENTS["startup"], tasks={"quick": 1, "full": 2}, workers=1)
    rows = {
        "failing": replace(real, name="failing", function=fail, specs=("baseline",)),
        "startup": real,
        "buggy": replace(real, name="buggy", function=slip, specs=("optimized",)),
    }
    monkeypatch.setattr(catalogue, "EXPERIMENTS", rows)


@pytest.mark.usefixtures("three")
def test_a_series_goes_on_after_one_that_fails_and_takes_each_ones_specs() -> None:
    lines: list[str] = []
    ran = list(run_all(progress=lines.append))
    assert [(one.experiment, one.spec, one.error) for one in ran] == [
        ("failing", "baseline", "no luck"),
        ("startup", "baseline", ""),
        ("startup", "optimized", ""),
        ("buggy", "optimized", "KeyError: 'typo'"),
    ]
    assert [one.result is not None for one in ran] == [False, True, True, False]
    assert ran[1].result is not None
    assert (ran[1].result.workers, ran[1].result.tasks) == (1, 1)
    assert lines[0] == "1 of 4, baseline: failing: begins"
    assert any(line.startswith("3 of 4, optimized: startup: cluster 1 of 1") for line in lines)


@pytest.mark.usefixtures("three")
def test_a_series_of_one_spec_runs_each_experiment_once() -> None:
    ran = list(run_all(specs=[BASELINE]))
    assert [one.spec for one in ran] == ["baseline"] * 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": "x"}, "no experiment 'x'; there are submission, latency, "),
        ({"engine": "desk"}, "no engine 'desk'; there are local, zmq, dask, ray$"),
        ({"profile": "fulll"}, r"no profile 'fulll'; there are quick, full; did you mean 'full'\?"),
        ({"tasks": 0}, "latency takes 1 to 200,000 tasks, not 0"),
        ({"workers": 0}, "latency takes 1 to 64 workers, not 0"),
        ({"name": "network", "engine": "dask"}, "network is of this cluster: it takes no other"),
        ({"name": "overhead", "model": "digits"}, "overhead is of this cluster: .* and no model"),
        ({"model": "magica"}, "no inputs are known for model 'magica'; take digits, magika"),
    ],
)
def test_impossible_arguments_are_refused_in_one_sentence(
    arguments: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalCluster, "start", Mock(side_effect=AssertionError))
    with pytest.raises(ExperimentError, match=complaint) as refused:
        run(**{"name": "latency", "spec": BASELINE, **arguments})
    assert isinstance(refused.value, ClusterError)
