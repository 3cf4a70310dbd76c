"""The measurements behind the cluster's goals.

Each puts the cluster, its baseline and a bare limit under one kind of load, in turns, and returns
samples by figure and arm; the goals themselves are in `perfkit.bench.goals.cluster`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TypeAlias

import psutil

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.vocabulary.printable import count_of
from cluster.vocabulary.task import Requirements
from perfkit.bench.bare import Forwarder, Messenger, PackedBroker, RawLink
from perfkit.bench.counts.headers import codec_us, packing_us
from perfkit.bench.counts.selection import measure_selection
from perfkit.bench.goals.table import BASELINE, OPTIMIZED, Contest
from perfkit.bench.workloads.load import (
    IN_FLIGHT,
    Work,
    echo_work,
    map_s,
    one_by_one_ms,
    rate_and_cpu_us,
    submit_s,
)
from perfkit.bench.workloads.mixed import mixed_load, open_loop_ms
from perfkit.bench.workloads.pinning import UNPINNED, Layout, affinity_restored, apply, layouts
from perfkit.bench.workloads.rounds import Arm, ArmSamples
from perfkit.evidence.samples import percentile

# The arms that the clusters are compared with.
PACKED, FORWARDER, ROUND_TRIP = "packed broker", "forwarder", "three-process round trip"
MESSAGES = "bare with messages"
RAW, UNCOPIED = "raw send/recv", "zero-copy forwarder"
CONSERVING, QUEUE, PACKING = "no worker idle", "bare queue of workers", "bare packing"
FEW_WORKERS = "10 workers"

WORKERS, MIXED_WORKERS, MIXED_FREE = 2, 4, 3
MIB = 1 << 20
#: Sockets that an echo's payload crosses: client, coordinator, worker and back.
ECHO_HOPS = 4
BIG_IN_FLIGHT = 16
#: The bare arms repeat their payloads, because a block of them would be too short.
UNCOPIED_TIMES, RAW_TIMES = 3, 8
TRIAL_TASKS = 200
ROSTERS = (10, 100, 1_000)
NEEDED = Requirements(min_vram_bytes=4 << 30, gpu_family="polaris")


@dataclass(frozen=True)
class ClusterSizes:
    """How much is measured: rounds, and tasks, payloads, choices or repeats in one block."""

    rounds: int
    map_tasks: int
    baseline_tasks: int
    submit_tasks: int
    latency_tasks: int
    mixed_rounds: int
    open_tasks: int
    burst_tasks: int
    big_payloads: int
    choices: int
    codec_tasks: int


ClusterContest: TypeAlias = Contest[ClusterSizes]


def _clusters(
    contest: ClusterContest, stack: ExitStack, workers: int
) -> dict[str, tuple[LocalCluster, Client]]:
    """A fresh cluster of each spec with a client, closed with the stack."""
    found = {}
    for arm, spec in contest.specs.items():
        contest.say(f"starting {arm} with {count_of(workers, 'worker')}")
        local = stack.enter_context(LocalCluster(workers, spec))
        found[arm] = (local, local.client())
    return found


def _arms(
    running: Mapping[str, tuple[LocalCluster, Client]], make: Callable[[Client], Arm]
) -> dict[str, Arm]:
    """An arm for the client of each cluster."""
    return {arm: make(client) for arm, (_, client) in running.items()}


def throughput(contest: ClusterContest) -> ArmSamples:
    """Tasks per second and the coordinator's CPU per task of a map; tasks per second of submit."""
    sizes = contest.sizes
    work = echo_work(max(sizes.map_tasks, sizes.submit_tasks), contest.seed)
    amounts = {OPTIMIZED: sizes.map_tasks, BASELINE: sizes.baseline_tasks}
    with ExitStack() as stack:
        running = _clusters(contest, stack, WORKERS)
        packed = stack.enter_context(PackedBroker(WORKERS))
        forwarder = stack.enter_context(Forwarder(WORKERS))
        brokers = {
            arm: (partial(map_s, client), local.coordinator_pid, amounts[arm])
            for arm, (local, client) in running.items()
        } | {PACKED: (packed.map_s, packed.pids[0], sizes.map_tasks)}
        maps = {
            arm: partial(_mapping, drive, psutil.Process(pid), work.part(0, tasks))
            for arm, (drive, pid, tasks) in brokers.items()
        }
        samples = contest.take_turns(maps, sizes.rounds, "tasks/s mapped")

        def submitting(tasks: int, drive: Callable[[Work], float]) -> Arm:
            part = work.part(0, tasks)
            return lambda: {"submit": tasks / drive(part)}

        submits = {
            arm: submitting(min(amounts[arm], sizes.submit_tasks), partial(submit_s, client))
            for arm, (_, client) in running.items()
        }
        submits[FORWARDER] = submitting(
            sizes.submit_tasks, lambda part: forwarder.stream_s(part, IN_FLIGHT)
        )
        return samples | contest.take_turns(submits, sizes.rounds, "tasks/s submitted one by one")


def latency(contest: ClusterContest) -> tuple[ArmSamples, Layout]:
    """Percentiles in µs of one task in flight through three processes: `latency_…` where they are
    pinned, `unpinned_…` where the system puts them, as for most users.

    The layout is the one with the fastest bare round trip.
    """
    work, unit = echo_work(contest.sizes.latency_tasks, contest.seed), "µs from submit to result"
    with ExitStack() as stack:
        bare = stack.enter_context(Forwarder(1, messages_held=1))
        messenger = stack.enter_context(Messenger(contest.optimized.codec))
        running = _clusters(contest, stack, 1)
        stack.enter_context(affinity_restored())
        trial = work.part(0, TRIAL_TASKS)

        def trial_ms(layout: Layout) -> float:
            apply(layout, bare.pids)
            bare.one_by_one_ms(trial)
            return percentile(bare.one_by_one_ms(trial), 50) or 0.0

        drives: dict[str, Callable[[Work], list[float]]] = {
            arm: partial(one_by_one_ms, client) for arm, (_, client) in running.items()
        }
        drives |= {ROUND_TRIP: bare.one_by_one_ms, MESSAGES: messenger.one_by_one_ms}
        processes = [bare.pids, messenger.pids, *(_pids(local) for local, _ in running.values())]
        best, samples = min(layouts(), key=trial_ms), ArmSamples()
        for figure, layout in (("latency", best), ("unpinned", UNPINNED)):
            for pids in processes:
                apply(layout, pids)
            arms: dict[str, Arm] = {
                arm: partial(_percentiles, figure, drive, work) for arm, drive in drives.items()
            }
            samples |= contest.take_turns(arms, contest.sizes.rounds, f"{unit}, {layout.name}")
        return samples, best


def mixed(contest: ClusterContest) -> ArmSamples:
    """Quick tasks among slow ones: their latencies in ms, and seconds for a burst of both.

    `mixed_p99` is the p99 of each round, `mixed_ms` holds the latencies of all rounds.
    """
    sizes = contest.sizes
    arriving = mixed_load(sizes.open_tasks, contest.seed)
    at_once = mixed_load(sizes.burst_tasks, contest.seed)
    blocks: dict[str, list[list[float]]] = {arm: [] for arm in contest.specs}

    def arrive(arm: str, client: Client) -> Mapping[str, float]:
        took_ms = open_loop_ms(client, arriving, MIXED_WORKERS, MIXED_FREE)
        blocks[arm].append(took_ms)
        return {"mixed_p99": percentile(took_ms, 99) or 0.0}

    def burst(client: Client) -> Mapping[str, float]:
        return {"mixed_burst": map_s(client, at_once.work)}

    with ExitStack() as stack:
        running = _clusters(contest, stack, MIXED_WORKERS)
        bursts = _arms(running, lambda client: partial(burst, client))
        samples = contest.take_turns(bursts, sizes.mixed_rounds, "s for a burst")
        arrivals: dict[str, Arm] = {
            arm: partial(arrive, arm, client) for arm, (_, client) in running.items()
        }
        samples |= contest.take_turns(arrivals, sizes.mixed_rounds, "ms p99 of no-ops")
    bound_s = at_once.conserving_s(MIXED_WORKERS)
    samples["mixed_burst"][CONSERVING] = [bound_s] * sizes.mixed_rounds
    counted = {arm: list(chain(*found[-sizes.mixed_rounds :])) for arm, found in blocks.items()}
    return samples | {"mixed_ms": counted}


def payloads(contest: ClusterContest) -> ArmSamples:
    """MB per second of 1 MiB payloads over all sockets they cross: four for an echo, one raw."""
    work = echo_work(contest.sizes.big_payloads, contest.seed, MIB)
    with ExitStack() as stack:
        running = _clusters(contest, stack, WORKERS)
        raw = stack.enter_context(RawLink())
        uncopied = stack.enter_context(Forwarder(WORKERS, uncopied=True, messages_held=4))
        mb = len(work) * MIB / 1e6

        def arm(hops: int, drive: Callable[[Work], float], times: int = 1) -> Arm:
            return lambda: {"one_mib": times * hops * mb / sum(drive(work) for _ in range(times))}

        arms = _arms(running, lambda client: arm(ECHO_HOPS, partial(map_s, client)))
        arms[UNCOPIED] = arm(
            ECHO_HOPS, lambda part: uncopied.stream_s(part, BIG_IN_FLIGHT), UNCOPIED_TIMES
        )
        arms[RAW] = arm(1, raw.send_s, RAW_TIMES)
        return contest.take_turns(arms, contest.sizes.rounds, "MB/s with 1 MiB payloads")


def choosing(contest: ClusterContest) -> ArmSamples:
    """Microseconds to choose a worker for a task that needs a card, by number of workers."""
    samples: ArmSamples = {}
    sizes, seed = contest.sizes, contest.seed

    def choose(spec: ClusterSpec, workers: int) -> Mapping[str, float]:
        found = measure_selection(
            spec, workers=workers, choices=sizes.choices, seed=seed, requirements=NEEDED
        )
        return {f"selection_{workers}": found.value or 0.0}

    def take_next(workers: int) -> Mapping[str, float]:
        return {f"selection_{workers}": _queue_us(workers, sizes.choices)}

    for workers in ROSTERS:
        arms: dict[str, Arm] = {
            arm: partial(choose, spec, workers) for arm, spec in contest.specs.items()
        }
        arms[QUEUE] = partial(take_next, workers)
        unit = f"µs to choose among {count_of(workers, 'worker')}"
        samples |= contest.take_turns(arms, sizes.rounds, unit)
    few, many = (samples[f"selection_{workers}"] for workers in (ROSTERS[0], ROSTERS[-1]))
    return samples | {"selection_flat": {OPTIMIZED: many[OPTIMIZED], FEW_WORKERS: few[OPTIMIZED]}}


def headers(contest: ClusterContest) -> ArmSamples:
    """Microseconds to encode and decode a task on one hop."""
    work = echo_work(contest.sizes.codec_tasks, contest.seed)

    def pass_on(spec: ClusterSpec) -> Mapping[str, float]:
        return {"codec": codec_us(spec, work)}

    arms: dict[str, Arm] = {arm: partial(pass_on, spec) for arm, spec in contest.specs.items()}
    arms[PACKING] = lambda: {"codec": packing_us(work)}
    return contest.take_turns(arms, contest.sizes.rounds, "µs to encode and decode a task")


def _pids(local: LocalCluster) -> Sequence[int]:
    return [local.coordinator_pid, *(worker.pid for worker in local.workers)]


def _mapping(
    drive: Callable[[Work], float], broker: psutil.Process, work: Work
) -> Mapping[str, float]:
    """Tasks per second, and µs of the broker's processor time for each."""
    rate, cpu_us = rate_and_cpu_us(drive, work, broker)
    return {"map": rate, "cpu": cpu_us}


def _percentiles(
    figure: str, drive: Callable[[Work], list[float]], work: Work
) -> Mapping[str, float]:
    took_us = [took_ms * 1e3 for took_ms in drive(work)]
    return {f"{figure}_p{q}": percentile(took_us, q) or 0.0 for q in (50, 99)}


def _queue_us(workers: int, choices: int) -> float:
    """The median time to take the worker that was free first, timed like a policy's choice."""
    free = deque(range(workers))
    took_us = []
    for _ in range(choices):
        began_ns = time.perf_counter_ns()
        chosen = free.popleft()
        took_us.append((time.perf_counter_ns() - began_ns) / 1e3)
        free.append(chosen)
    return percentile(took_us, 50) or 0.0
