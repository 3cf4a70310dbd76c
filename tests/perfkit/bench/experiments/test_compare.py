"""Two specs on real clusters, pairs of saved results, and the limits of their verdicts."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from cluster import BASELINE, LocalCluster
from perfkit.bench.experiments import catalogue
from perfkit.bench.experiments.compare import BLOCKS, NotComparable, compare_saved, compare_specs
from perfkit.bench.workloads.load import ExperimentError
from perfkit.evidence.environment import machine_id
from perfkit.evidence.results import Result, ResultError
from perfkit.evidence.stats import abba
from perfkit.evidence.verdicts import Verdict
from tests.perfkit.machine import HERE

OTHER = msgspec.structs.replace(BASELINE, name="other", burst=100)
EVIDENCE = Path(__file__).parents[2] / "evidence"
RECORDED = json.loads((EVIDENCE / "recorded_throughput.json").read_text())


def result(samples: list[float], **fields: Any) -> Result:
    usual: dict[str, Any] = {
        "experiment": "throughput", "spec": "baseline", "engine": "zmq", "workers": 2,
        "tasks": 20_000, "value": None, "unit": "tasks/s", "low": None, "high": None,
        "samples": samples, "environment": HERE,
    }  # fmt: skip
    return Result(**{**usual, **fields})


def test_every_run_of_three_arms_has_processes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    truly = LocalCluster.start
    pids: list[int] = []

    def start(self: LocalCluster) -> LocalCluster:
        truly(self)
        pids.extend((self.coordinator.pid, self.workers[0].pid))
        return self

    monkeypatch.setattr(LocalCluster, "start", start)
    lines: list[str] = []
    found = compare_specs(
        BASELINE, OTHER, experiment="startup", blocks=4, workers=1, tasks=1, seed=3,
        progress=lines.append,
    )  # fmt: skip
    assert len(set(pids)) == len(pids) == 4 * 3 * 2
    assert found.order == tuple(abba(4, 3, "ABC"))
    names = {arm: {one.spec for one in results} for arm, results in found.results.items()}
    assert names == {"A": {"baseline"}, "B": {"other"}, "C": {"baseline"}}
    assert [len(results) for results in found.results.values()] == [4, 4, 4]
    began = {one.started_utc: arm for arm, results in found.results.items() for one in results}
    assert "".join(began[utc] for utc in sorted(began, key=str)) == "".join(found.order)
    assert found.comparison.blocks == 4
    assert lines[0].startswith("block 1 of 4, ")
    assert sum("A again: startup of baseline" in line for line in lines) == 4


def run_with(figures: Callable[[str], list[float]]) -> Callable[..., Result]:
    """In place of `catalogue.run`: samples made from the name of the spec."""

    def run(name: str, *, spec: Any, workers: int, tasks: int | None, **facts: Any) -> Result:
        unit = catalogue.EXPERIMENTS[name].unit
        return result(
            figures(spec.name), experiment=name, spec=spec.name, unit=unit,
            workers=workers, tasks=tasks, seed=facts["seed"],
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    ("experiment", "factor", "verdict"),
    [
        ("throughput", 1.5, Verdict.FASTER),
        ("throughput", 0.5, Verdict.SLOWER),
        ("latency", 1.5, Verdict.SLOWER),
        ("latency", 0.5, Verdict.FASTER),
        ("burst", 1.0, Verdict.SAME),
    ],
)
def test_the_experiment_knows_which_way_is_better(
    experiment: str, factor: float, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One sample of three is far off: a run's figure is its median.
    samples = {"baseline": [1.0, 2.0, 900.0], "other": [factor, 2 * factor, 2 * factor]}
    monkeypatch.setattr(catalogue, "run", run_with(samples.__getitem__))
    found = compare_specs(BASELINE, OTHER, experiment=experiment)
    assert found.comparison.verdict is verdict
    assert found.comparison.ratio == pytest.approx(factor)
    assert found.comparison.aa_ratio == 1
    assert found.comparison.blocks == BLOCKS
    assert found.title.startswith(f"{experiment} of other against baseline (")


def test_an_a_that_differs_from_itself_spoils_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    position = iter("".join(abba(8, 0, "ABC")))
    by_arm = {"A": 100.0, "B": 150.0, "C": 120.0}
    monkeypatch.setattr(catalogue, "run", run_with(lambda _: [by_arm[next(position)]]))
    found = compare_specs(BASELINE, OTHER)
    assert found.comparison.verdict is Verdict.INCONCLUSIVE
    assert found.comparison.aa_ratio == pytest.approx(1.2)


def test_a_comparison_is_one_line_a_table_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = {"baseline": [100.0], "other": [150.0]}
    monkeypatch.setattr(catalogue, "run", run_with(samples.__getitem__))
    found = compare_specs(BASELINE, OTHER, tasks=7, seed=2)
    assert found.describe() == (
        "throughput of other against baseline (tasks/s, higher is better): faster: B/A 1.5, "
        "A/A control 1; the whole interval lies on one side of 1"
    )
    assert "<caption>throughput of other against baseline" in found._repr_html_()
    saved = json.loads(found.encode())
    assert (saved["a"], saved["b"], saved["experiment"]) == ("baseline", "other", "throughput")
    assert (saved["verdict"], saved["ratio"]) == ("faster", found.comparison.ratio)
    assert saved["order"] == abba(8, 2, "ABC")
    assert msgspec.convert(saved["results"], dict[str, list[Result]]) == found.results


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"experiment": "thruput"}, r"no experiment 'thruput'; .* did you mean 'throughput'\?"),
        ({"blocks": 3}, "a verdict needs at least 4 blocks, not 3"),
        ({"workers": 0}, "1 to 64 workers, not 0"),
    ],
)
def test_bad_options_are_refused_before_a_cluster_starts(
    options: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalCluster, "start", Mock(side_effect=AssertionError))
    with pytest.raises(ExperimentError, match=complaint):
        compare_specs(BASELINE, OTHER, **options)


def test_nothing_is_claimed_of_saved_runs_of_the_same_code() -> None:
    """Recorded runs of the baseline, each on a machine that may be 26 % up or down."""
    for seed in range(50):
        rng = random.Random(seed)
        a, b = (
            result([rate * rng.choice([1 / 1.26, 1, 1.26]) for rate in run])
            for run in rng.sample(RECORDED["samples_by_run"], 2)
        )
        found = compare_saved(a, b).comparison
        assert (found.verdict, found.aa_ratio) == (Verdict.INCONCLUSIVE, None)
        assert "not interleaved" in found.reason
    same = compare_saved(a, a).comparison
    assert (same.ratio, same.verdict) == (1, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(5.0, Verdict.FASTER), (0.2, Verdict.SLOWER), (1.5, Verdict.INCONCLUSIVE)],
)
def test_only_differences_beyond_a_factor_of_2_are_claimed(factor: float, verdict: Verdict) -> None:
    a, b = RECORDED["samples_by_run"][:2]
    found = compare_saved(result(a), result([factor * x for x in b], spec="other"))
    assert found.comparison.verdict is verdict
    assert found.comparison.low < factor < found.comparison.high
    assert "no A/A control" in found.comparison.reason
    assert found.comparison.method.endswith("within two single runs")
    assert found.order == ()
    assert found.results["C"] == []


def test_single_latencies_are_taken_in_ten_parts_and_few_samples_as_they_are() -> None:
    latency = {"experiment": "latency", "unit": "ms"}
    a = result([1.0 + 0.001 * i for i in range(2_000)], **latency)
    b = result([x / 4 for x in a.samples[:1_990]], **latency)
    found = compare_saved(a, b).comparison
    assert (found.blocks, found.verdict) == (10, Verdict.FASTER)
    few = compare_saved(a, result([0.25, 0.25, 0.25], **latency)).comparison
    assert (few.blocks, few.verdict) == (3, Verdict.INCONCLUSIVE)
    assert few.reason.startswith("3 samples of a run are fewer than 4")
    none = compare_saved(a, result([], **latency)).comparison
    assert (none.blocks, none.ratio) == (0, None)


ELSEWHERE = msgspec.structs.replace(HERE, cpu_model="Another processor")
ELSEWHERE = msgspec.structs.replace(ELSEWHERE, machine_id=machine_id(ELSEWHERE))
SAMPLES = [100.0, 101.0, 99.0, 100.0]


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"environment": ELSEWHERE}, "against Another processor"),
        ({"workers": 4}, "workers: 2 against 4"),
        ({"tasks": 10}, "tasks: 20000 against 10"),
        ({"parameters": {"model": "digits"}}, "parameter model: unknown against digits"),
    ],
)
def test_different_runs_are_refused_or_labelled(fields: dict[str, Any], difference: str) -> None:
    a, b = result(SAMPLES), result([9 * x for x in SAMPLES], **fields)
    with pytest.raises(NotComparable, match=r"not measured alike .*--force") as refused:
        compare_saved(a, b)
    assert difference in str(refused.value)
    assert isinstance(refused.value, ResultError)
    found = compare_saved(a, b, force=True)
    assert found.comparison.verdict is Verdict.FASTER
    assert found.differences[0].endswith(difference)
    for shown in (found.describe(), found._repr_html_()):
        assert "not measured alike, compared by force" in shown
        assert difference in shown
    assert json.loads(found.encode())["differences"] == [*found.differences]


@pytest.mark.parametrize(
    ("a", "b", "complaint"),
    [
        ({}, {"experiment": "latency", "unit": "ms"}, "in tasks/s and latency in ms cannot"),
        ({}, {"unit": "items/s"}, "mood in tasks/s and mood in items/s cannot"),
        ({}, {"samples": [0.0] * 4}, r"no ratio: .* finite figures above 0"),
        ({"unit": "smiles"}, {"unit": "smiles"}, "whether more or fewer smiles are better"),
    ],
)
def test_results_without_a_verdict_are_refused_by_force_too(
    a: dict[str, Any], b: dict[str, Any], complaint: str
) -> None:
    one, other = (result(**{"samples": SAMPLES, "experiment": "mood", **it}) for it in (a, b))
    with pytest.raises(NotComparable, match=complaint):
        compare_saved(one, other, force=True)


@pytest.mark.parametrize(
    ("unit", "verdict"), [("MB/s", Verdict.FASTER), ("µs", Verdict.SLOWER), ("bytes", "slower")]
)
def test_an_experiment_of_another_time_is_judged_by_its_unit(unit: str, verdict: str) -> None:
    fields = {"experiment": "selection", "unit": unit}
    found = compare_saved(result(SAMPLES, **fields), result([9 * x for x in SAMPLES], **fields))
    assert found.comparison.verdict == verdict
