"""Choosing one of many made-up workers: timed, and every choice proved right."""

from typing import Any

import msgspec
import pytest

from cluster import BASELINE
from cluster.core.policy import LeastLoaded, ScanPolicy
from cluster.vocabulary.task import NO_REQUIREMENTS, Requirements
from perfkit.bench.counts.selection import measure_selection
from perfkit.bench.workloads.load import ExperimentError, WrongResult


@pytest.mark.parametrize("policy", ["least-loaded", "round-robin", "adaptive"])
def test_the_policy_of_the_spec_is_the_one_that_is_measured(policy: str) -> None:
    spec = msgspec.structs.replace(BASELINE, policy=policy)
    result = measure_selection(spec, workers=10, choices=200, seed=2)
    assert result.parameters["policy"] == policy
    assert (result.experiment, result.unit, result.workers) == ("selection", "µs", 10)
    assert len(result.samples) == 200
    assert None not in (result.low, result.value, result.high)
    assert 0 < result.low <= result.value <= result.high


@pytest.mark.parametrize(
    ("choose", "complaint"),
    [
        (lambda self, *_: max(self.workers, key=lambda w: w.held * (w.free > 0)), "is better"),
        (lambda self, *_: None, "chose no worker although one has credit"),
    ],
)
def test_a_wrong_choice_is_not_timed(
    choose: Any, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LeastLoaded, "choose", choose)
    with pytest.raises(WrongResult, match=complaint):
        measure_selection(BASELINE, workers=20, choices=50)


def test_a_choice_without_credit_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_ever(self: ScanPolicy, *_: Any) -> Any:
        return self.workers[0]

    monkeypatch.setattr(LeastLoaded, "choose", first_ever)
    monkeypatch.setattr(LeastLoaded, "score", None)
    with pytest.raises(WrongResult, match="chose worker-0, which has no credit left"):
        measure_selection(BASELINE, workers=20, choices=500)


def test_only_workers_that_meet_requirements_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    vega = Requirements(min_vram_bytes=4 << 30, gpu_family="vega")
    result = measure_selection(BASELINE, workers=6, choices=300, requirements=vega)
    assert result.parameters["requirements"] == {"min_vram_bytes": 4 << 30, "gpu_family": "vega"}
    assert len(result.samples) == 300
    with pytest.raises(ExperimentError, match=r"none of 1 made-up workers meets .*'vega'"):
        measure_selection(BASELINE, workers=1, requirements=vega)
    truly = LeastLoaded.choose

    def blindly(self: LeastLoaded, needs: Any, suspect: bool) -> Any:
        return truly(self, (needs[0], NO_REQUIREMENTS), suspect)

    monkeypatch.setattr(LeastLoaded, "choose", blindly)
    with pytest.raises(WrongResult, match="which cannot do the task"):
        measure_selection(BASELINE, workers=20, choices=500, requirements=vega)


@pytest.mark.parametrize("numbers", [{"workers": 0}, {"choices": 0}, {"workers": 10_001}])
def test_numbers_out_of_range_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ExperimentError, match="selection takes 1 to 10,000 workers"):
        measure_selection(BASELINE, **numbers)
