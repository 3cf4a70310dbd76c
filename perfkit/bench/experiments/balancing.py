"""How well uneven work is spread over uneven workers, clients and priorities.

Workers of speed 1, 2 and 5 get tasks of which a tenth take ten times as long. Tasks wait, as those
of `scaling` do, so the makespan has a lower bound that no schedule beats: all work at the speed of
all workers, or the longest task on the fastest. Each policy of the spec runs on a real cluster,
and in the simulator, where messages take no time, with many more draws.

A second bound is what any schedule keeps that lets no worker idle while work waits: all work at
the speed of all, and then the longest task on the slowest (R. L. Graham, 1966, for uneven speeds).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from statistics import fmean

from msgspec.structs import replace

from cluster.local import LocalCluster
from cluster.scratch import ScratchFolder
from cluster.shells.client import Client
from cluster.spec import ClusterSpec, load_part
from cluster.vocabulary.task import Priority
from perfkit.bench.experiments.setting import Experiment, Measurement, Setting, exact
from perfkit.bench.simulated.prediction import makespan_s
from perfkit.bench.workloads.arrivals import waiting_payload
from perfkit.bench.workloads.load import Work, WrongResult, map_s, result_of
from perfkit.bench.workloads.stand_ins import KIND, StandIns
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.text import quantity
from perfkit.evidence.verdicts import FigureGoal

SPEEDS = (1.0, 1.0, 2.0, 5.0)
SHORT_S, LONG_S, LONG_SHARE = 0.02, 0.2, 0.1
REPEATS = {"quick": 3, "full": 10}
DRAWS = {"quick": 10, "full": 100}
#: More than any policy needs, so that one that starves a task fails.
MOST_S = 60.0
#: Tasks that clients hand in at once to compete; how many each has done counts when half are done.
SHARES = {"a": 100, "b": 200, "c": 400}
COMPETING_S = 0.005
#: LOW tasks, and the URGENT ones that are kept waiting meanwhile.
LOW_TASKS, URGENT_WAITING = 20, 40


def balancing(setting: Setting) -> Measurement:
    """Makespans of `tasks` tasks by policy, of their lower bound; fairness; the wait of LOW."""
    spec = setting.spec
    found: dict[str, list[float]] = {}
    series: dict[str, list[float | None]] = {}
    simulated = {
        name: [
            of_bound(spec, name, payloads)
            for payloads in map(partial(bimodal, setting.tasks), range(DRAWS[setting.profile]))
        ]
        for name in load_part(spec.policies)
    }
    with _cluster(spec) as cluster, cluster.client() as client:
        for name in simulated:
            client.change_policy(name)
            found[name] = [
                map_s(client, Work(KIND, payloads, payloads)) / lower_bound_s(payloads)
                for payloads in map(
                    partial(bimodal, setting.tasks), range(REPEATS[setting.profile])
                )
            ]
            setting.say(
                f"{name}, makespan {quantity(fmean(found[name]))} of its lower bound, "
                f"simulated {quantity(fmean(simulated[name]))}"
            )
        client.change_policy(spec.policy)
        setting.say("three clients compete")
        fairness = jain(_compete(cluster))
        setting.say("LOW tasks while URGENT ones keep coming")
        low_ms, overtaken = _low_waits(client)
    own = found[spec.policy]
    payloads = bimodal(setting.tasks, 0)
    slack = conserving_s(payloads) / lower_bound_s(payloads)
    counters: dict[str, float | int | None] = {}
    for kind, results in (("", found), ("simulated_", simulated)):
        for name, ratios in results.items():
            counters |= _mean(ratios).columns(f"{kind}makespan_of_bound_{name}")
            series[f"{kind}makespan_of_bound_{name}"] = [*ratios]
    return Measurement(
        own,
        _mean(own),
        counters={
            **counters,
            **_mean([ratio / slack for ratio in own]).columns("makespan_of_conserving"),
            **exact("jain_index", fairness),
            **exact("low_wait_ms_max", max(low_ms)),
            **exact("urgent_tasks_per_low_task", overtaken),
        },
        series=series | {"low_wait_ms": [*low_ms]},
        parameters={
            "speeds": SPEEDS,
            "short_s": SHORT_S,
            "long_s": LONG_S,
            "policies": [*found],
            "simulated_draws": DRAWS[setting.profile],
            "bypasses": spec.limits.bypasses,
        },
    )


def bimodal(tasks: int, seed: int) -> list[bytes]:
    """Payloads of tasks that wait for SHORT_S, a tenth of them for LONG_S, in an order by lot."""
    longer = round(tasks * LONG_SHARE)
    waits = [LONG_S] * longer + [SHORT_S] * (tasks - longer)
    random.Random(seed).shuffle(waits)
    return [waiting_payload(wait_s, number) for number, wait_s in enumerate(waits)]


def lower_bound_s(payloads: Sequence[bytes]) -> float:
    """No schedule ends earlier: all work at the speed of all, or the longest on the fastest."""
    waits = [float(payload) for payload in payloads]
    return max(sum(waits) / sum(SPEEDS), max(waits) / max(SPEEDS))


def conserving_s(payloads: Sequence[bytes]) -> float:
    """No schedule ends later that lets no worker idle while a task waits: when the last task begins
    every worker has been busy.
    """
    waits = [float(payload) for payload in payloads]
    return sum(waits) / sum(SPEEDS) + max(waits) / min(SPEEDS)


def of_bound(spec: ClusterSpec, policy: str, payloads: Sequence[bytes]) -> float:
    """A simulated makespan of its lower bound."""
    took_s = makespan_s(replace(spec, policy=policy), SPEEDS, payloads, MOST_S)
    return took_s / lower_bound_s(payloads)


def jain(shares: Sequence[float]) -> float:
    """1 if all have the same, 1/n if one has all: R. Jain, D. Chiu and W. Hawe, "A Quantitative
    Measure of Fairness" (DEC-TR-301, 1984).
    """
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


@contextmanager
def _cluster(spec: ClusterSpec) -> Iterator[LocalCluster]:
    """A coordinator with a stand-in of each speed."""
    with (
        ScratchFolder("balancing-") as folder,
        LocalCluster(0, spec) as cluster,
    ):
        stand_ins = StandIns(cluster.endpoint, spec, Path(folder))
        try:
            stand_ins.grow_to(len(SPEEDS), SPEEDS)
            yield cluster
        finally:
            stand_ins.end()


def _compete(cluster: LocalCluster) -> list[float]:
    """How many tasks each client has done when the one with the fewest has done all."""
    clients = {name: cluster.client() for name in SHARES}
    done = dict.fromkeys(SHARES, 0)
    found: list[float] = []
    lock = threading.Lock()

    def note(name: str, _: Future[bytes]) -> None:
        with lock:
            done[name] += 1
            if not found and done[name] == SHARES[name]:
                found.extend(done.values())

    numbers = count()
    submitted: list[tuple[bytes, Future[bytes]]] = []
    for name in sorted(SHARES, key=SHARES.__getitem__, reverse=True):
        payloads = [waiting_payload(COMPETING_S, next(numbers)) for _ in range(SHARES[name])]
        futures = clients[name].submit_batch(KIND, payloads)
        for payload, future in zip(payloads, futures, strict=True):
            future.add_done_callback(partial(note, name))
            submitted.append((payload, future))
    _check(submitted)
    return found


def _low_waits(client: Client) -> tuple[list[float], float]:
    """Milliseconds until each LOW task was done while URGENT ones kept waiting, and how many of
    these were done meanwhile for each.
    """
    numbers = count()
    urgent: list[tuple[bytes, Future[bytes]]] = []

    def hurry(_: Future[bytes] | None = None) -> None:
        if not is_over.is_set():
            payload = waiting_payload(COMPETING_S, next(numbers))
            future = client.submit(KIND, payload, priority=Priority.URGENT)
            urgent.append((payload, future))
            future.add_done_callback(hurry)

    is_over = threading.Event()
    for _ in range(URGENT_WAITING):
        hurry()
    began_s = time.perf_counter()
    ended_s: list[float] = []
    payloads = [waiting_payload(COMPETING_S, 10**9 + n) for n in range(LOW_TASKS)]
    low = client.submit_batch(KIND, payloads, priority=Priority.LOW)
    for future in low:
        future.add_done_callback(lambda _: ended_s.append(time.perf_counter()))
    before = sum(future.done() for _, future in urgent)
    _check([*zip(payloads, low, strict=True)])
    overtaken = sum(future.done() for _, future in [*urgent]) - before
    is_over.set()
    _check(urgent)
    return [(end_s - began_s) * 1e3 for end_s in ended_s], overtaken / LOW_TASKS


def _check(submitted: Sequence[tuple[bytes, Future[bytes]]]) -> None:
    for payload, future in submitted:
        if result_of(future) != payload:
            raise WrongResult("a task of a busy cluster came back as another one")


def _mean(ratios: Sequence[float]) -> Interval:
    return bootstrap_interval(ratios, "mean")


EXPERIMENTS = (
    Experiment(
        "balancing", "makespan on uneven workers by policy, of its lower bound; fairness", "",
        {"quick": 60, "full": 400}, 10_000, "lower", balancing,
        goals=(
            FigureGoal("makespan_of_conserving",
                       "makespan over that of a schedule that never idles", "", "lower", 1.0),
            FigureGoal("jain_index", "Jain's index of clients that compete", "", "higher", 0.95),
            FigureGoal("urgent_tasks_per_low_task", "urgent tasks that overtake each low one", "",
                       "lower", 20.0),
        ),
        cluster_only=True,
    ),
)  # fmt: skip
