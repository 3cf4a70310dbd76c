"""The bounds of a makespan, fairness, and one small run on a real cluster."""

import pytest

from cluster import BASELINE
from cluster.core.policy import POLICIES
from perfkit.bench.experiments import balancing
from perfkit.bench.experiments.balancing import (
    SPEEDS,
    bimodal,
    conserving_s,
    jain,
    lower_bound_s,
    of_bound,
)
from perfkit.bench.experiments.catalogue import run
from perfkit.optimized import policy
from perfkit.optimized.specs import OPTIMIZED


def test_tasks_are_bimodal_and_differ() -> None:
    payloads = bimodal(50, 3)
    assert len({*payloads}) == 50
    assert sorted(round(float(p), 6) for p in payloads) == [0.02] * 45 + [0.2] * 5
    assert payloads == bimodal(50, 3) != bimodal(50, 4)


def test_bounds_enclose_what_a_schedule_can_take() -> None:
    payloads = bimodal(50, 3)
    work_s = 45 * 0.02 + 5 * 0.2
    assert lower_bound_s(payloads) == pytest.approx(work_s / sum(SPEEDS))
    assert conserving_s(payloads) == pytest.approx(work_s / sum(SPEEDS) + 0.2)
    assert lower_bound_s(bimodal(1, 0)) == pytest.approx(0.02 / max(SPEEDS))


@pytest.mark.parametrize(
    ("spec", "name"),
    [(BASELINE, name) for name in POLICIES] + [(OPTIMIZED, name) for name in policy.POLICIES],
)
def test_no_policy_lets_a_worker_idle_while_work_waits(spec, name) -> None:
    payloads = bimodal(60, 1)
    found = of_bound(spec, name, payloads)
    slack = spec.limits.recall_after_s * 3 / lower_bound_s(payloads)
    assert 1.0 <= found <= conserving_s(payloads) / lower_bound_s(payloads) + slack


def test_jain_s_index() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1.0)
    assert jain([3, 0, 0]) == pytest.approx(1 / 3)
    assert jain([1, 2]) == pytest.approx(0.9)


def test_a_small_run_has_every_policy_and_no_starvation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(balancing.REPEATS, "quick", 1)
    monkeypatch.setitem(balancing.DRAWS, "quick", 1)
    monkeypatch.setattr(balancing, "LOW_TASKS", 3)
    result = run("balancing", spec=BASELINE, tasks=10)
    assert result.parameters["policies"] == [*POLICIES]
    for name in POLICIES:
        assert result.counters[f"simulated_makespan_of_bound_{name}"] >= 1
        (ratio,) = result.series[f"makespan_of_bound_{name}"]
        assert ratio >= 1
    assert result.samples == result.series["makespan_of_bound_least-loaded"]
    assert 1 / 3 <= result.counters["jain_index"] <= 1
    assert len(result.series["low_wait_ms"]) == 3
    # A level is passed over `bypasses` times, while each of four workers may have one task ahead.
    # A client that is slow to hand in the next adds some; to starve is to wait for hundreds.
    most = 4 * (BASELINE.limits.bypasses + 2 * len(SPEEDS))
    assert 0 < result.counters["urgent_tasks_per_low_task"] <= most
