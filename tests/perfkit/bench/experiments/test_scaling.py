"""A tiny curve on a real cluster, the arithmetic behind it, and the simulator at its limits."""

from functools import partial

import pytest

from cluster import BASELINE
from perfkit.bench.experiments import scaling
from perfkit.bench.experiments.catalogue import run
from perfkit.bench.experiments.scaling import SERVICES_S, _fit
from perfkit.bench.simulated.machine import Machine, Thread
from perfkit.bench.simulated.prediction import Cost, Costs, makespan_s, predict
from perfkit.bench.workloads.arrivals import waiting_payload
from perfkit.bench.workloads.progress import efficiencies
from perfkit.bench.workloads.thread_times import Used
from perfkit.optimized.specs import OPTIMIZED


def test_a_tiny_curve_is_measured_and_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("WINDOW_S", 0.4), ("BARE_S", 0.3), ("IDLE_S", 0.05)):
        monkeypatch.setitem(getattr(scaling, name), "quick", seconds)
    lines: list[str] = []
    result = run("scaling", spec=BASELINE, tasks=2, progress=lines.append)
    assert result.series["workers"] == result.series["simulated_workers"] == [1, 2]
    for label in ("5ms", "50ms"):
        columns = [name for name in result.series if label in name]
        assert {len(result.series[name]) for name in columns} == {2}
        for name in (f"efficiency_{label}", f"bare_efficiency_{label}"):
            assert all(0 < (value or 0) <= 1 for value in result.series[name])
        worst = min(result.counters[f"efficiency_{label}_{n}"] or 0 for n in (1, 2))
        assert result.counters[f"efficiency_{label}_to_50"] == worst
    assert len(result.samples) == scaling.BLOCKS
    assert lines[0].startswith("scaling: 1 worker, 5 ms, ")
    costs = {name: value for name, value in result.counters.items() if name.startswith("cost_")}
    assert len(costs) == 9
    assert all((value or 0) >= 0 for value in costs.values())


def test_efficiency_is_the_share_of_the_time_without_gaps() -> None:
    fast = [number * 0.010 for number in range(40)]
    slow = [0.003 + number * 0.020 for number in range(20)]
    assert efficiencies([fast, fast], 0.010, 5) == pytest.approx([1.0] * 5)
    assert efficiencies([fast, slow], 0.010, 5) == pytest.approx([0.75] * 5)
    assert efficiencies([fast, slow[:4]], 0.010, 5) == []


def test_costs_are_found_again_in_what_they_make() -> None:
    wake_s, task_s = 300e-6, 40e-6
    points = [(100, 100), (210, 400), (180, 900), (40, 10)]
    found = _fit([(Used(wake_s * w + task_s * t, w), t) for w, t in points])
    assert (found.wake_s, found.task_s) == (pytest.approx(wake_s), pytest.approx(task_s))
    assert _fit([(Used(task_s * t, 0), t) for _, t in points]).task_s == pytest.approx(task_s)


def test_threads_share_cores_and_pay_for_waking() -> None:
    machine = Machine(1)
    one, other = Thread(machine, 0.5), Thread(machine, 0.0)
    ended: list[tuple[str, float]] = []

    def job(name: str) -> float:
        ended.append((name, machine.now))
        return 1.0

    for thread, name in ((one, "one"), (other, "other"), (one, "one"), (other, "other")):
        thread.put(partial(job, name))
    machine.run(10.0)
    assert ended == [("one", 0.0), ("other", 1.5), ("one", 2.5), ("other", 3.5)]
    assert (one.busy_s, other.busy_s) == (2.5, 2.0)


@pytest.mark.parametrize("spec", [BASELINE, OPTIMIZED], ids=lambda spec: spec.name)
def test_the_simulator_knows_the_limits(spec) -> None:
    free = predict(spec, 4, 0.005, Costs(overshoot_s=0.001), 0.1, own_machines=False)
    assert free.efficiency == pytest.approx(5 / 6, rel=0.02)
    assert free.bottleneck == "nothing: all parts keep up"
    dear = Costs(coordinator=Cost(task_s=0.001))
    full = predict(spec, 20, 0.005, dear, 0.2, own_machines=True)
    # A message costs 1 ms, so a turn for all takes 20 ms, and a task may begin after its end.
    assert 0.005 / 0.025 <= full.efficiency <= 0.005 / 0.020
    assert full.tasks_cores == pytest.approx(4.0)
    assert full.bottleneck == "the coordinator's thread, by tasks"


def test_many_workers_fill_the_coordinator_with_heartbeats() -> None:
    costs = Costs(coordinator=Cost(task_s=1e-5), heartbeat_s=1e-3)
    found = predict(OPTIMIZED, 300, 1.0, costs, 0.1, own_machines=True)
    assert found.heartbeats_cores == pytest.approx(1.5)
    assert found.bottleneck == "the coordinator's thread, by heartbeats"


def test_a_short_task_is_leased_ahead_and_a_long_one_is_not() -> None:
    """So an optimised worker idles for a round trip only after long tasks."""
    costs = Costs(gap_s=0.002)
    lost = {
        service_s: 1 - predict(OPTIMIZED, 2, service_s, costs, 0.5, own_machines=False).efficiency
        for service_s in SERVICES_S
    }
    assert lost[0.005] == pytest.approx(0.0, abs=0.01)
    assert lost[0.05] == pytest.approx(0.002 / 0.052, abs=0.01)


def test_a_lone_worker_takes_as_long_as_its_tasks() -> None:
    payloads = [waiting_payload(0.01, number) for number in range(30)]
    for spec in (BASELINE, OPTIMIZED):
        assert makespan_s(spec, [1.0], payloads, 5.0) == pytest.approx(0.3)
        assert makespan_s(spec, [2.0, 1.0], payloads, 5.0) == pytest.approx(0.1, abs=0.011)
