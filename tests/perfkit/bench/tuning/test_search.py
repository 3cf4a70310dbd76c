"""The search: on a planted surface without processes, and (slow) on living clusters."""

import json
import math
import random
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.tuning import trials
from perfkit.bench.tuning.loads import LATENCIES, THROUGHPUT, Load, make_load
from perfkit.bench.tuning.search import tune
from perfkit.bench.tuning.space import turned
from perfkit.bench.tuning.trials import ARMS, confirm, judge_arms
from perfkit.bench.tuning.tuned import Tuned
from perfkit.bench.workloads.load import ExperimentError, echo_work
from perfkit.evidence.results import ResultError, load
from perfkit.evidence.verdicts import Verdict
from perfkit.optimized.specs import spec_named

#: Enough for some hundred candidates where a cluster takes no time.
MINUTES = 0.004
NOISE = 0.03
Surface = Callable[[ClusterSpec], float]


def best_at(spec: ClusterSpec) -> float:
    """Tasks per second with a single peak, at burst 256 and credit 512."""
    off = (math.log2(spec.burst / 256) / 8) ** 2 + (math.log2(spec.credit / 512) / 8) ** 2
    return 1e4 * math.exp(-off)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Load]:
    """A load whose figure is a surface over the spec, on a machine with noise and drift."""

    def make(surface: Surface, seed: int = 0, **facts: Any) -> Load:
        rng, moment = random.Random(seed), [0]

        class Local(nullcontext):
            def __init__(self, workers: int, spec: ClusterSpec, **_: object) -> None:
                super().__init__()
                self.client = partial(nullcontext, spec)

        def samples(spec: Any, work: object) -> list[float]:
            moment[0] += 1
            drift = 1 + 0.26 * math.sin(moment[0] / 40)
            return [surface(spec) * drift * math.exp(rng.gauss(0, NOISE))]

        monkeypatch.setattr(trials, "LocalCluster", Local)
        return Load("planted", facts.get("objective", THROUGHPUT), echo_work(4, 0), samples)

    return make


def search(planted: Load, **options: Any) -> Tuned:
    asked = {"knobs": ["burst", "credit"], "minutes": MINUTES, "hints": False, "block_s": 0.0}
    return tune(BASELINE, planted, **{**asked, **options})


def test_the_search_finds_nine_tenths_of_the_best_of_a_planted_surface(
    planted: Callable[..., Load],
) -> None:
    for seed in range(4):
        found = search(planted(best_at, seed), seed=seed)
        assert found.verdict is Verdict.FASTER, found
        assert best_at(found.spec) >= 0.9 * best_at(turned(BASELINE, {"burst": 256, "credit": 512}))
        assert found.gain.low > 2


def test_less_is_better_of_a_latency(planted: Callable[..., Load]) -> None:
    load = planted(lambda spec: 1e4 / best_at(spec), objective=LATENCIES[0])
    found = search(load)
    assert found.verdict is Verdict.FASTER
    assert found.gain.low > 2 > 1 > found.comparison.high
    assert "latency_p95 ×" in found.headline


def test_a_knob_without_effect_gets_no_gain_from_noise_and_the_start_stays(
    planted: Callable[..., Load],
) -> None:
    for seed in range(6):
        found = search(planted(lambda spec: 1e4, seed), seed=seed)
        assert found.verdict in (Verdict.SAME, Verdict.INCONCLUSIVE), found
        assert found.spec is BASELINE
        assert "baseline stays" in found.headline


def test_the_grid_is_tried_once_each_and_idle_changes_are_undone(
    planted: Callable[..., Load],
) -> None:
    knobs = {"burst": [1, 256], "drain": [16, 64], "credit": [2, 512]}
    found = search(planted(best_at), knobs=knobs, sampler="grid", minutes=0.2)
    assert len(found.trials) == 8
    assert found.duration_s < 6
    assert found.values == {"burst": 256, "credit": 512}


def test_a_candidate_that_fails_is_named_and_the_others_count(
    planted: Callable[..., Load],
) -> None:
    def breaks(spec: ClusterSpec) -> float:
        if spec.burst > 256:
            raise ClusterError("no such luck\nand more")
        return best_at(spec)

    found = search(planted(breaks), knobs={"burst": [1, 256, 512]}, sampler="grid")
    assert found.values == {"burst": 256}
    assert [trial.error for trial in found.trials if not trial.ratios] == ["no such luck"]
    assert "failed: no such luck" in str(found)
    nothing = search(planted(breaks), knobs={"burst": [1, 512]}, sampler="grid")
    assert nothing.spec is BASELINE
    assert nothing.headline == "no candidate ran, so baseline stays"
    assert nothing.reason == "no such luck"


def test_an_interrupt_keeps_the_best_so_far_which_is_not_proved(
    planted: Callable[..., Load], tmp_path: Path
) -> None:
    def interrupt(line: str) -> None:
        if "of the search left" in line and "; best × " in line:
            raise KeyboardInterrupt

    found = search(planted(best_at), progress=interrupt)
    assert found.interrupted
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.spec == turned(BASELINE, found.values) != BASELINE
    assert found.headline.startswith("interrupted: ")

    def interrupted(spec: ClusterSpec) -> float:
        if spec != BASELINE:
            raise KeyboardInterrupt
        return 1.0

    assert "failed: interrupted" in str(search(planted(interrupted)))
    target, evidence = found.save_spec(tmp_path / "so-far.json")
    assert spec_named(str(target)) == found.spec
    assert load(evidence).parameters["interrupted"] is True


def test_the_outcome_is_saved_with_its_evidence_and_shown_as_table_and_picture(
    planted: Callable[..., Load], tmp_path: Path
) -> None:
    found = search(planted(best_at))
    target, evidence = found.save_spec(tmp_path / "tuned.json")
    assert spec_named(str(target)) == found.spec
    saved = load(evidence)
    assert (saved.experiment, saved.spec, saved.seed) == ("tune", "baseline-tuned", 0)
    assert saved.value == found.gain.value
    assert len(saved.samples) == found.comparison.blocks
    assert set(saved.series) == {f"{arm} (tasks/s)" for arm in ARMS}
    assert saved.parameters["knobs"]["burst"][0] == 1
    assert len(saved.parameters["trials"]) == len(found.trials)
    assert json.loads(target.read_text())["burst"] == found.spec.burst
    frame = found.to_frame()
    assert {"burst", "credit", "ratio", "pairs"} <= {*frame.columns}
    assert frame["ratio"].is_monotonic_decreasing
    assert "proof: " in found.plot().alt
    assert found.headline in found._repr_html_()
    assert "<script" not in found._repr_html_()
    for name in ("tuned.toml", "tuned.evidence.json"):
        with pytest.raises(ResultError, match="ends in"):
            found.save_spec(tmp_path / name)


def test_a_huge_gain_counts_on_a_machine_that_favours_an_arm() -> None:
    start = [100.0, 101.0, 99.0, 100.0]
    arms = {
        "start": start,
        "tuned": [7 * x for x in start],
        "start again": [1.2 * x for x in start],
    }
    assert judge_arms(arms, "higher", 0).verdict is Verdict.FASTER
    assert judge_arms(arms, "lower", 0).verdict is Verdict.SLOWER
    assert judge_arms(arms | {"tuned": [1.15 * x for x in start]}, "higher", 0).verdict == (
        "inconclusive"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [({"minutes": 0}, "takes some minutes"), ({"minutes": math.nan}, "takes some minutes")],
)
def test_a_search_without_time_is_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        tune(BASELINE, **options)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_living_clusters_the_search_reaches_nine_tenths_of_the_best_of_a_grid() -> None:
    work = make_load("throughput", tasks=1_000)
    knobs = {"burst": [1, 16, 256, 2_048], "credit": [2, 32, 512, 8_192]}
    truth = tune(BASELINE, work, knobs=knobs, sampler="grid", minutes=5, hints=False)
    assert len(truth.trials) == 16
    found = tune(BASELINE, work, knobs=knobs, minutes=3, hints=False, seed=1)
    assert found.duration_s <= 5 * 60
    assert found.verdict is Verdict.FASTER
    specs = (truth.best, found.best, truth.best)
    arms = confirm(
        work, dict(zip(ARMS, specs, strict=True)), blocks=8, workers=2, seed=0, block_s=0.4,
        say=print,
    )  # fmt: skip
    ratio = judge_arms(arms, "higher", 0)
    print(truth, found, ratio.describe(), sep="\n")
    assert ratio.high >= 0.9
