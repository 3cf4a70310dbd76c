"""The rate of 1 to 100 workers against what as many could do at best, measured and simulated.

The coordinator is a process of its own, its sockets and protocol are real. A task only waits, 5 ms
or 50 ms: a stand-in for a card that computes (perfkit/bench/workloads/stand_ins.py). Efficiency is
the rate of task starts times the service time per worker, in blocks of the time in which every
worker had work; 1 would be no gap between two tasks. A wait overshoots a little: the same loop
without a cluster gives the stand-in's own efficiency beside it.

The simulator (simulated/prediction.py) is given the costs of the points with few workers and
predicts all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cluster.local import LocalCluster
from cluster.scratch import ScratchFolder
from cluster.shells.client import Client
from cluster.spec import BASELINE
from cluster.vocabulary.printable import count_of
from perfkit.bench.experiments.setting import Experiment, Measurement, Setting, exact
from perfkit.bench.simulated.prediction import Cost, Costs, Predicted, predict
from perfkit.bench.workloads.arrivals import waiting_payload
from perfkit.bench.workloads.load import Work, WrongResult, map_s
from perfkit.bench.workloads.progress import efficiencies
from perfkit.bench.workloads.stand_ins import KIND, StandIns
from perfkit.bench.workloads.thread_times import ThreadTimes, Used, thread_times
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.text import quantity
from perfkit.evidence.verdicts import FigureGoal
from perfkit.optimized.specs import OPTIMIZED

WORKERS = (1, 2, 5, 10, 20, 50, 100)
SIMULATED_WORKERS = (1_000, 10_000)
SERVICES_S = (0.005, 0.05)
#: Each worker gets tasks for this long.
WINDOW_S = {"quick": 0.6, "full": 6.0}
BARE_S = {"quick": 0.4, "full": 2.0}
IDLE_S = {"quick": 0.5, "full": 2.0}
VIRTUAL_S = {"quick": 0.2, "full": 1.0}
BLOCKS = 10
#: Points up to here give the simulator its costs.
CALIBRATED_WORKERS = 20


@dataclass(frozen=True)
class Point:
    """What one number of workers achieved, and the processor time of each process."""

    workers: int
    service_s: float
    blocks: list[float]
    bare: Interval
    tasks: int
    took_s: float
    coordinator: ThreadTimes
    stand_ins: ThreadTimes
    client: ThreadTimes

    @property
    def efficiency(self) -> Interval:
        """The median of the blocks."""
        return bootstrap_interval(self.blocks)

    @property
    def cores(self) -> float:
        """Cores that all processes kept busy."""
        processes = (self.coordinator, self.stand_ins, self.client)
        return sum(process.busy_s for process in processes) / self.took_s

    @property
    def rest(self) -> Used:
        """What all threads have used but the main threads of coordinator and stand-ins."""
        others = self.coordinator.others.plus(self.stand_ins.others)
        return others.plus(self.client.main).plus(self.client.others)


def scaling(setting: Setting) -> Measurement:
    """Efficiency over the number of workers, at most `tasks` of them, for each service time."""
    profile, most = setting.profile, setting.tasks
    counts = sorted({min(workers, most) for workers in WORKERS})
    with (
        ScratchFolder("scaling-") as folder,
        LocalCluster(0, setting.spec) as cluster,
        cluster.client() as client,
    ):
        stand_ins = StandIns(cluster.endpoint, setting.spec, Path(folder))
        try:
            points = []
            for workers in counts:
                stand_ins.grow_to(workers)
                for service_s in SERVICES_S:
                    point = _measure(cluster, client, stand_ins, workers, service_s, setting)
                    points.append(point)
            heartbeat_s = _heartbeat_s(cluster, stand_ins, counts[-1], setting)
        finally:
            stand_ins.end()
    costs = _costs(points, heartbeat_s)
    predicted = {}
    for service_s in SERVICES_S:
        for workers in (*counts, *_simulated_alone(setting)):
            setting.say(f"simulating {count_of(workers, 'worker')}, {service_s * 1e3:g} ms")
            is_real = workers in counts
            predicted[workers, service_s] = predict(
                setting.spec,
                workers,
                service_s,
                costs,
                VIRTUAL_S[profile],
                own_machines=not is_real,
            )
    last = next(p for p in points if (p.workers, p.service_s) == (counts[-1], SERVICES_S[0]))
    return Measurement(
        last.blocks,
        last.efficiency,
        counters={**_figures(points, predicted), **costs.counters()},
        series=_series(points, predicted),
        parameters={
            "service": "a fixed wait, which stands in for a card",
            "services_s": SERVICES_S,
            "blocks": BLOCKS,
            "cores": len(os.sched_getaffinity(0)),
            "calibrated_with_workers": CALIBRATED_WORKERS,
            "saturates_first": {
                f"{workers} simulated workers, {service_s * 1e3:g} ms": found.bottleneck
                for (workers, service_s), found in predicted.items()
                if workers > CALIBRATED_WORKERS
            },
        },
    )


def _simulated_alone(setting: Setting) -> Sequence[int]:
    """The numbers of workers that are simulated and not measured.

    A policy that looks at every worker for every task takes hours for ten thousand of them.
    """
    if setting.tasks < WORKERS[-1]:
        return ()
    return SIMULATED_WORKERS[: 1 if setting.spec.policies == BASELINE.policies else None]


def _measure(
    cluster: LocalCluster,
    client: Client,
    stand_ins: StandIns,
    workers: int,
    service_s: float,
    setting: Setting,
) -> Point:
    """Run enough tasks to keep every worker busy for a while; every result is checked."""
    tasks = round(workers * WINDOW_S[setting.profile] / service_s)
    payloads = [waiting_payload(service_s, number) for number in range(tasks)]
    pids = cluster.coordinator_pid, stand_ins.pid, os.getpid()
    before = [thread_times(pid) for pid in pids]
    took_s = map_s(client, Work(KIND, payloads, payloads))
    used = [thread_times(pid).since(b) for pid, b in zip(pids, before, strict=True)]
    starts = stand_ins.starts()
    if (begun := sum(map(len, starts))) != tasks:
        raise WrongResult(f"{tasks:,} tasks were begun {begun:,} times")
    bare = stand_ins.bare_starts(workers, service_s, BARE_S[setting.profile])
    point = Point(
        workers,
        service_s,
        efficiencies(starts, service_s, BLOCKS),
        bootstrap_interval(efficiencies(bare, service_s, BLOCKS)),
        tasks,
        took_s,
        *used,
    )
    shown = quantity(point.efficiency.value), quantity(point.bare.value)
    setting.say(
        f"{count_of(workers, 'worker')}, {service_s * 1e3:g} ms, {shown[0]} of the best rate; "
        f"{shown[1]} without a cluster; {quantity(point.cores)} cores busy"
    )
    return point


def _heartbeat_s(
    cluster: LocalCluster, stand_ins: StandIns, workers: int, setting: Setting
) -> float:
    """Processor time of the coordinator for a heartbeat of an idle worker."""
    pid, idle_s = cluster.coordinator_pid, IDLE_S[setting.profile]
    before = thread_times(pid)
    time.sleep(idle_s)
    used = thread_times(pid).since(before)
    return used.main.busy_s * setting.spec.limits.heartbeat_s / (idle_s * workers)


def _costs(points: Sequence[Point], heartbeat_s: float) -> Costs:
    """What a task costs each part, from the points with few workers."""
    few = [point for point in points if point.workers <= CALIBRATED_WORKERS]
    short = [point for point in few if point.service_s == SERVICES_S[0]]
    return Costs(
        coordinator=_fit([(p.coordinator.main, p.tasks) for p in few]),
        stand_ins=_fit([(p.stand_ins.main, p.tasks) for p in few]),
        # Many threads, which sleep by turns: what they share is a round of all workers.
        rest=_fit([(Used(p.rest.busy_s, p.tasks // p.workers), p.tasks) for p in few]),
        heartbeat_s=heartbeat_s,
        overshoot_s=median(p.service_s * (1 / (p.bare.value or 1.0) - 1) for p in short),
        gap_s=median(_gap_s(p) for p in few if p not in short),
    )


def _gap_s(point: Point) -> float:
    """What lies between two tasks of a worker, besides the stand-in's own overshoot."""
    own, bare = point.efficiency.value or 1.0, point.bare.value or 1.0
    return max(0.0, point.service_s * (1 / own - 1 / bare))


def _fit(found: Sequence[tuple[Used, int]]) -> Cost:
    """Seconds for each time that a thread was woken and for each task that explain its time best,
    by least squares of the relative errors; neither is negative.
    """
    rows = [(used.waits / used.busy_s, tasks / used.busy_s) for used, tasks in found]
    aa, ab, bb = (sum(r[i] * r[j] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = (sum(r[i] for r in rows) for i in (0, 1))
    scale = aa * bb - ab * ab
    wake_s = (a * bb - b * ab) / scale if scale > 0 else 0.0
    task_s = (b - wake_s * ab) / bb
    if wake_s < 0:
        return Cost(0.0, b / bb)
    return Cost(wake_s, task_s) if task_s >= 0 else Cost(a / aa, 0.0)


def _label(service_s: float) -> str:
    return f"{service_s * 1e3:g}ms"


def _figures(
    points: Sequence[Point], predicted: Mapping[tuple[int, float], Predicted]
) -> dict[str, float | int | None]:
    """Each point's efficiency, the worst up to 50 workers, and how far the simulator was off."""
    figures: dict[str, float | int | None] = {}
    errors = []
    for service_s in SERVICES_S:
        mine = [point for point in points if point.service_s == service_s]
        for point in mine:
            name = f"efficiency_{_label(service_s)}_{point.workers}"
            figures |= point.efficiency.columns(name)
            measured = point.efficiency.value
            if measured:
                errors.append(abs(predicted[point.workers, service_s].efficiency / measured - 1))
        upto = [p.efficiency for p in mine if p.workers <= 50 and p.efficiency.value is not None]
        worst = min(upto, key=lambda interval: interval.value or 0.0)
        figures |= worst.columns(f"efficiency_{_label(service_s)}_to_50")
    return figures | exact("simulation_error_max", max(errors))


def _series(
    points: Sequence[Point], predicted: Mapping[tuple[int, float], Predicted]
) -> dict[str, list[float | None]]:
    """Columns over the number of workers, for each service time; simulated ones go further."""
    series: dict[str, list[float | None]] = {}
    for service_s in SERVICES_S:
        label = _label(service_s)
        mine = [point for point in points if point.service_s == service_s]
        found = {n: p for (n, s), p in predicted.items() if s == service_s}
        series |= {
            "workers": [p.workers for p in mine],
            f"efficiency_{label}": [p.efficiency.value for p in mine],
            f"efficiency_{label}_low": [p.efficiency.low for p in mine],
            f"efficiency_{label}_high": [p.efficiency.high for p in mine],
            f"bare_efficiency_{label}": [p.bare.value for p in mine],
            f"rate_{label}_per_s": [p.tasks / p.took_s for p in mine],
            f"cores_{label}": [p.cores for p in mine],
            f"coordinator_us_{label}": [p.coordinator.main.busy_s * 1e6 / p.tasks for p in mine],
            "simulated_workers": [*found],
            f"simulated_efficiency_{label}": [p.efficiency for p in found.values()],
            f"simulated_tasks_cores_{label}": [p.tasks_cores for p in found.values()],
            f"simulated_heartbeats_cores_{label}": [p.heartbeats_cores for p in found.values()],
        }
    return series


EXPERIMENTS = (
    Experiment(
        "scaling", "rate of 1 to TASKS workers whose tasks wait, against the best possible", "",
        {"quick": 100, "full": 100}, 1_000, "higher", scaling,
        goals=(
            *(
                FigureGoal(f"efficiency_{ms}ms_to_50", f"efficiency up to 50 workers at {ms} ms",
                           "of the best", "higher", 0.95)
                for ms in (5, 50)
            ),
            *(
                FigureGoal(f"efficiency_{ms}ms_100", f"efficiency of 100 workers at {ms} ms",
                           "of the best", "higher", 0.9)
                for ms in (5, 50)
            ),
            FigureGoal("simulation_error_max", "largest error of the simulation",
                       "", "lower", 0.1),
        ),
        cluster_only=True, specs=(OPTIMIZED.name,),
    ),
)  # fmt: skip
