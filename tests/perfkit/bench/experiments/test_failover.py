"""Each fault strikes a real cluster once, and every figure says what really happened."""

from collections.abc import Iterator
from typing import Any

import pytest

from cluster import BASELINE
from perfkit.bench.experiments import failover
from perfkit.bench.experiments.catalogue import run
from perfkit.bench.experiments.failover import FAULTS, Losses, deaths_when_busy, strike
from perfkit.bench.workloads.two_hosts import TwoHosts, two_hosts

LIVENESS_MS = BASELINE.limits.liveness_s * 1e3
HEARTBEAT_MS = BASELINE.limits.heartbeat_s * 1e3


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoHosts]:
    with two_hosts(BASELINE, 2) as running:
        yield running


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_noticed_and_its_tasks_end_once(name: str, cluster: TwoHosts) -> None:
    losses = Losses()
    strike(cluster, FAULTS[name], losses, seed=3)
    (detection_ms,), (delay_ms,) = losses.detection_ms, losses.delay_ms
    # strike has checked that each task of the flow ended once, with its own result
    assert len(losses.timeline) > failover.CALM_TASKS
    assert delay_ms > -min(losses.calm_ms)
    if name in ("sigstop", "network_gone"):
        # A worker's last heartbeat is at most one period older than the fault.
        assert detection_ms > LIVENESS_MS - HEARTBEAT_MS - 50
    if name == "coordinator_killed":  # another one, which has met each worker once
        assert _counters(cluster)["workers_joined"] == 4


def test_a_dead_process_is_replaced_and_noticed_before_its_silence(cluster: TwoHosts) -> None:
    losses, lost = Losses(), _counters(cluster)["worker_deaths"]
    strike(cluster, failover.sigkill, losses, seed=4)
    assert _counters(cluster)["worker_deaths"] == lost + 1
    assert losses.detection_ms[0] < LIVENESS_MS - HEARTBEAT_MS


def test_another_coordinator_gives_other_epochs(cluster: TwoHosts) -> None:
    """Else a worker would take its leases for those of the one before, and ignore them."""
    before = {worker.worker: worker.epoch for worker in cluster.client.status().workers}
    strike(cluster, failover.coordinator_killed, Losses(), seed=5)
    after = {worker.worker: worker.epoch for worker in cluster.client.status().workers}
    assert len(set(after.values())) == 4
    assert all(epoch > before.get(name, 0) for name, epoch in after.items())
    assert not _counters(cluster)["mislaid_leases"]


def test_a_busy_machine_kills_nobody(cluster: TwoHosts) -> None:
    lines: list[str] = []
    assert deaths_when_busy(cluster, 0.5, 0, lines.append) == 0
    assert lines[0].endswith("cores busy for 0 s")


@pytest.mark.slow
def test_the_experiment_has_figures_samples_and_a_timeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(failover.BUSY_S, "quick", 0.5)
    result = run("failover", spec=BASELINE, tasks=3)
    assert result.samples == result.series["sigkill_delay_ms"]
    assert result.counters["false_deaths_high"] == 0
    for name in FAULTS:
        assert len(result.series[f"{name}_detection_ms"]) == 3
        done = result.series[f"{name}_done_s"]
        assert done == sorted(done, key=float)
        assert done[0] < 0 < done[-1]


def _counters(cluster: TwoHosts) -> dict[str, Any]:
    return cluster.client.status().counters
