"""How long a loss takes to be noticed, and how much later its tasks end.

A cluster on two hosts serves a steady flow of tasks that wait for SERVICE_S, a third of what the
workers could do. Then one thing breaks while it holds a task. The time to notice ends when the
coordinator's status no longer shows the victim, whose tasks are queued again in the same step (or,
for the coordinator's own death, when the next one knows every worker again). It is an upper bound,
late by at most one poll. The delay of the last affected task is the longest latency from then on
less the median of undisturbed ones, so it includes the work that is done again.

Last, every core is kept busy with other processes for a while, and nobody may be taken for dead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

from cluster.supervision.crew import WorkerProcess
from cluster.vocabulary.status import Status
from perfkit.bench.experiments.setting import (
    Experiment,
    Measurement,
    Setting,
    exact,
    percentiles,
)
from perfkit.bench.workloads.flow import Flow, Passage
from perfkit.bench.workloads.load import RESULT_TIMEOUT_S, ExperimentError
from perfkit.bench.workloads.rounds import Say
from perfkit.bench.workloads.two_hosts import TwoHosts, two_hosts
from perfkit.evidence.samples import bootstrap_interval
from perfkit.evidence.text import quantity
from perfkit.evidence.verdicts import FigureGoal

#: Long enough that a victim still holds its task when it is struck.
SERVICE_S = 0.05
#: Of what the workers of one host can do, so that they can stand in for the other's.
LOAD = 0.6
CALM_TASKS = 5
POLL_S = 0.002
BUSY_S = {"quick": 5.0, "full": 60.0}
#: An upper bound of p99 at 95 % confidence needs this many samples (`percentile_interval`).
P99_SAMPLES = 368
#: A supervisor starts a worker at most ten times a minute: many deaths need many workers.
WORKERS = {"quick": 2, "full": 6}
BUSY_LOOP = "while True: pass"


@dataclass
class Losses:
    """What repeats of one fault have shown, in ms, a sample each; `timeline` is of the first."""

    detection_ms: list[float] = field(default_factory=list)
    delay_ms: list[float] = field(default_factory=list)
    calm_ms: list[float] = field(default_factory=list)
    timeline: list[Passage] = field(default_factory=list)
    struck_s: float = 0.0


Noticed = Callable[[Status | None], bool]
#: Breaks a cluster, one worker of it above all; returns how a status shows that this was noticed,
#: and what undoes the damage.
Fault = Callable[[TwoHosts, WorkerProcess], tuple[Noticed, Callable[[], None]]]


def failover(setting: Setting) -> Measurement:
    """The delay of the last affected task of each fault, and the time until it is noticed.

    Each fault is repeated `tasks` times; the first, in the full profile, often enough to bound its
    p99.
    """
    found = {name: Losses() for name in FAULTS}
    workers = max(setting.workers, WORKERS[setting.profile])
    with two_hosts(setting.spec, workers) as cluster:
        for name, losses in found.items():
            repeats = setting.tasks
            if FAULTS[name] is sigkill and setting.profile == "full":
                repeats = max(repeats, P99_SAMPLES)
            for number in range(1, repeats + 1):
                strike(cluster, FAULTS[name], losses, setting.seed + number)
                setting.say(
                    f"{name} {number} of {repeats}, noticed in "
                    f"{quantity(losses.detection_ms[-1], 'ms')}, last task "
                    f"{quantity(losses.delay_ms[-1], 'ms')} late"
                )
        deaths = deaths_when_busy(cluster, BUSY_S[setting.profile], setting.seed, setting.say)
    limits, kills = setting.spec.limits, found["sigkill"].delay_ms
    return Measurement(
        kills,
        bootstrap_interval(kills, seed=setting.seed),
        counters={**_figures(found), **exact("false_deaths", deaths)},
        series={
            name: [*column] for fault, losses in found.items()
            for name, column in _columns(fault, losses).items()
        },
        parameters={
            "workers_per_host": workers,
            "service_s": SERVICE_S,
            "liveness_s": limits.liveness_s,
            "heartbeat_s": limits.heartbeat_s,
            "busy_s": BUSY_S[setting.profile],
        },
    )  # fmt: skip


def strike(cluster: TwoHosts, fault: Fault, losses: Losses, seed: int) -> None:
    """Break something under a steady flow, and add a sample once all is well again."""
    everyone = len(cluster.workers)
    _await(cluster, lambda status: status is not None and len(status.workers) == everyone)
    with _flow(cluster, seed) as flow:
        flow.await_results(CALM_TASKS)
        victims = cluster.far_workers if fault is network_gone else cluster.workers
        victim = _busy_worker(cluster, victims)
        struck_s = time.perf_counter()
        is_noticed, mend = fault(cluster, victim)
        try:
            noticed_s = _await(cluster, is_noticed)
            # One more than those under way: a fault may strike between two tasks.
            flow.await_results(flow.sent + 1)
        finally:
            mend()
        passages = flow.end()
    calm = [p.latency_s for p in passages if p.ended_s <= struck_s]
    last_s = max(p.latency_s for p in passages if p.ended_s > struck_s)
    losses.detection_ms.append((noticed_s - struck_s) * 1e3)
    losses.delay_ms.append((last_s - median(calm)) * 1e3)
    losses.calm_ms += [latency_s * 1e3 for latency_s in calm]
    if not losses.timeline:
        losses.timeline, losses.struck_s = passages, struck_s


def sigkill(cluster: TwoHosts, victim: WorkerProcess) -> tuple[Noticed, Callable[[], None]]:
    """A worker's process is gone; its supervisor starts another."""
    victim.send_signal(signal.SIGKILL)
    return _without([victim]), lambda: None


def sigstop(cluster: TwoHosts, victim: WorkerProcess) -> tuple[Noticed, Callable[[], None]]:
    """A worker's process stands still, and goes on after it is given up."""
    victim.suspend()
    return _without([victim]), victim.resume


def network_gone(cluster: TwoHosts, victim: WorkerProcess) -> tuple[Noticed, Callable[[], None]]:
    """The far host can't be reached, workers and supervisor alike, until it is given up."""
    cluster.link.cut()
    return _without(cluster.far_workers), cluster.link.mend


def coordinator_killed(
    cluster: TwoHosts, victim: WorkerProcess
) -> tuple[Noticed, Callable[[], None]]:
    """The coordinator is gone, with all it knew, and started again at once."""
    everyone = len(cluster.workers)
    cluster.kill_coordinator()
    cluster.restart_coordinator()
    return lambda status: status is not None and len(status.workers) == everyone, lambda: None


FAULTS: Mapping[str, Fault] = {
    fault.__name__: fault for fault in (sigkill, sigstop, network_gone, coordinator_killed)
}


def deaths_when_busy(cluster: TwoHosts, busy_s: float, seed: int, say: Say) -> int:
    """Workers and clients taken for dead while other processes keep every core busy."""
    before = _deaths(cluster)
    with _busy_cores() as cores:
        say(f"{cores} cores busy for {busy_s:.0f} s")
        with _flow(cluster, seed) as flow:
            flow.await_results(round(flow.rate_per_s * busy_s))
            flow.end()
        return _deaths(cluster) - before


def _flow(cluster: TwoHosts, seed: int) -> Flow:
    rate_per_s = LOAD * len(cluster.workers) / 2 / SERVICE_S
    return Flow(cluster.client, rate_per_s, SERVICE_S, seed, idempotent=True)


@contextmanager
def _busy_cores() -> Iterator[int]:
    """A process on each core that never waits; yields their number."""
    cores = len(os.sched_getaffinity(0))
    loops = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(cores)]
    try:
        yield cores
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _deaths(cluster: TwoHosts) -> int:
    counters = cluster.client.status().counters
    return sum(counters[name] for name in ("workers_lost", "clients_lost"))


def _busy_worker(cluster: TwoHosts, candidates: Sequence[WorkerProcess]) -> WorkerProcess:
    """One of the candidates, which holds a task now."""
    by_pid = {worker.pid: worker for worker in candidates}
    found: list[WorkerProcess] = []

    def look(status: Status | None) -> bool:
        workers = status.workers if status is not None else []
        found[:] = [by_pid[w.pid] for w in workers if w.held and w.pid in by_pid]
        return bool(found)

    _await(cluster, look)
    return found[0]


def _without(victims: Sequence[WorkerProcess]) -> Noticed:
    """Whether a status shows none of these processes."""
    pids = {worker.pid for worker in victims}
    return lambda status: status is not None and pids.isdisjoint(w.pid for w in status.workers)


def _await(cluster: TwoHosts, condition: Noticed) -> float:
    """When the coordinator's status first met a condition; raises ExperimentError if never."""
    until_s = time.perf_counter() + RESULT_TIMEOUT_S
    while not condition(cluster.status()):
        if time.perf_counter() > until_s:
            raise ExperimentError(
                f"the cluster did not get there within {RESULT_TIMEOUT_S:.0f} s: {cluster.status()}"
            )
        time.sleep(POLL_S)
    return time.perf_counter()


def _figures(found: Mapping[str, Losses]) -> dict[str, float | int | None]:
    figures: dict[str, float | int | None] = {}
    for fault, losses in found.items():
        figures |= percentiles(f"{fault}_detection_ms", losses.detection_ms, 50, 99)
        figures |= percentiles(f"{fault}_delay_ms", losses.delay_ms, 50, 99)
        figures[f"{fault}_delay_ms_max"] = max(losses.delay_ms)
    calm = [ms for losses in found.values() for ms in losses.calm_ms]
    return figures | percentiles("calm_latency_ms", calm, 50, 99)


def _columns(fault: str, losses: Losses) -> dict[str, list[float | None]]:
    """The samples, and when each task of the first repeat was sent and done, from the fault on."""
    ordered = sorted(losses.timeline, key=lambda passage: passage.ended_s)
    return {
        f"{fault}_detection_ms": [*losses.detection_ms],
        f"{fault}_delay_ms": [*losses.delay_ms],
        f"{fault}_sent_s": [p.sent_s - losses.struck_s for p in ordered],
        f"{fault}_done_s": [p.ended_s - losses.struck_s for p in ordered],
    }


EXPERIMENTS = (
    Experiment(
        "failover", "delay of the last task that a loss affects; TASKS of each loss", "ms",
        {"quick": 4, "full": 30}, 1_000, "lower", failover,
        (
            FigureGoal("sigkill_delay_ms_p99", "p99 delay after a worker's SIGKILL", "ms",
                       "lower", 500.0),
            FigureGoal("false_deaths", "peers taken for dead while every core was busy", "",
                       "lower", 0.0),
        ),
        cluster_only=True,
    ),
)  # fmt: skip
