"""The measurements behind the table of limits: each puts the cluster, its baseline and the bare
thing beside each other under one kind of load, and lets them take turns.

Every run gives back readings by figure and arm, one for each round, and nothing else: what they are
held against is written in `perfkit.bench.goals.cluster`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain

import psutil

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.shells.futures import TaskFuture
from cluster.spec import ClusterSpec
from cluster.vocabulary.task import Requirements
from perfkit.bench.bare import Forwarder, PackedBroker, RawLink
from perfkit.bench.counts.headers import codec_us, packing_us
from perfkit.bench.counts.selection import measure_selection
from perfkit.bench.goals.table import BASELINE, OPTIMIZED
from perfkit.bench.workloads.load import Work, echo_work, map_s, one_by_one_ms, result_of
from perfkit.bench.workloads.mixed import mixed_load, open_loop_ms
from perfkit.bench.workloads.pinning import Layout, affinity_restored, apply, layouts
from perfkit.bench.workloads.rounds import Arm, Readings, take_turns
from perfkit.evidence.samples import percentile

# The arms. The first two are clusters, the others what they are held against.
PACKED, FORWARDER, ROUND_TRIP = "packed broker", "forwarder", "three-process round trip"
RAW, UNCOPIED = "raw send/recv", "zero-copy forwarder"
CONSERVING, QUEUE, PACKING = "no worker idle", "bare queue of workers", "bare packing"
FEW_WORKERS = "10 workers"

WORKERS, MIXED_WORKERS, MIXED_FREE = 2, 4, 3
IN_FLIGHT, REFILL = 1_000, 100
MIB = 1 << 20
#: Sockets that an echo's payload crosses: client, coordinator, worker and back.
ECHO_HOPS = 4
BIG_IN_FLIGHT = 16
#: So often the bare arms send the same payloads in one block, which would be too short otherwise.
UNCOPIED_TIMES, RAW_TIMES = 3, 8
TRIAL_TASKS = 200
ROSTERS = (10, 100, 1_000)
NEEDED = Requirements(min_vram_bytes=4 << 30, gpu_family="polaris")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
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


@dataclass(frozen=True)
class Contest:
    """Who is compared: the spec under study beside its baseline; and how long, and who is told."""

    optimized: ClusterSpec
    baseline: ClusterSpec
    sizes: Sizes
    seed: int
    say: Say

    @property
    def specs(self) -> Mapping[str, ClusterSpec]:
        """The spec of each arm that is a cluster."""
        return {OPTIMIZED: self.optimized, BASELINE: self.baseline}

    def clusters(self, stack: ExitStack, workers: int) -> dict[str, tuple[LocalCluster, Client]]:
        """A fresh cluster of each spec with a client, closed with the stack."""
        found = {}
        for arm, spec in self.specs.items():
            self.say(f"starting {arm} with {workers} workers")
            local = stack.enter_context(LocalCluster(workers, spec))
            found[arm] = (local, local.client())
        return found

    def take_turns(self, arms: Mapping[str, Arm], unit: str, rounds: int = 0) -> Readings:
        """A block of every arm in each round."""
        return take_turns(arms, rounds or self.sizes.rounds, self.seed, unit, self.say)


def throughput(contest: Contest) -> Readings:
    """Tasks per second and the coordinator's CPU per task of a map; tasks per second of submit."""
    sizes = contest.sizes
    work = echo_work(max(sizes.map_tasks, sizes.submit_tasks), contest.seed)
    amounts = {OPTIMIZED: sizes.map_tasks, BASELINE: sizes.baseline_tasks}
    with ExitStack() as stack:
        running = contest.clusters(stack, WORKERS)
        packed = stack.enter_context(PackedBroker(WORKERS))
        forwarder = stack.enter_context(Forwarder(WORKERS))
        maps: dict[str, Arm] = {
            arm: _mapping(
                partial(map_s, client),
                local.coordinator_pid,
                work.part(0, amounts[arm]),
            )
            for arm, (local, client) in running.items()
        }
        maps[PACKED] = _mapping(packed.map_s, packed.pids[0], work.part(0, sizes.map_tasks))
        readings = contest.take_turns(maps, "tasks/s mapped")
        submitted = {arm: min(amounts[arm], sizes.submit_tasks) for arm in running}
        submits: dict[str, Arm] = {
            arm: _rate(
                "submit",
                partial(submit_s, client),
                work.part(0, submitted[arm]),
            )
            for arm, (_, client) in running.items()
        }
        submits[FORWARDER] = _rate(
            "submit",
            lambda part: forwarder.stream_s(part, IN_FLIGHT),
            work.part(0, sizes.submit_tasks),
        )
        return readings | contest.take_turns(submits, "tasks/s submitted one by one")


def submit_s(client: Client, work: Work) -> float:
    """The seconds that so many futures take, IN_FLIGHT of them at a time, their results checked.

    Whoever keeps a window refills it when a part of it is done, here a tenth.
    """
    results: list[bytes] = []
    open_ones: deque[TaskFuture] = deque()
    began_s = time.perf_counter()
    for payload in work.payloads:
        if len(open_ones) == IN_FLIGHT:
            result_of(open_ones[REFILL - 1])
            results += [result_of(open_ones.popleft()) for _ in range(REFILL)]
        open_ones.append(client.submit(work.kind, payload))
    results += [result_of(future) for future in open_ones]
    took_s = time.perf_counter() - began_s
    work.check(results)
    return took_s


def latency(contest: Contest) -> tuple[Readings, Layout]:
    """Percentiles in µs of one task in flight through three pinned processes.

    The layout is the one in which the bare round trip is fastest here.
    """
    work = echo_work(contest.sizes.latency_tasks, contest.seed)
    with ExitStack() as stack:
        bare = stack.enter_context(Forwarder(1, messages_held=1))
        running = contest.clusters(stack, 1)
        stack.enter_context(affinity_restored())
        trial = work.part(0, TRIAL_TASKS)
        best, best_ms = layouts()[0], float("inf")
        for layout in layouts():
            apply(layout, bare.pids)
            bare.one_by_one_ms(trial)
            took_ms = percentile(bare.one_by_one_ms(trial), 50) or 0.0
            if took_ms < best_ms:
                best, best_ms = layout, took_ms
        for pids in (bare.pids, *(_pids(local) for local, _ in running.values())):
            apply(best, pids)
        arms: dict[str, Arm] = {
            arm: _percentiles(partial(one_by_one_ms, client, work))
            for arm, (_, client) in running.items()
        }
        arms[ROUND_TRIP] = _percentiles(partial(bare.one_by_one_ms, work))
        return contest.take_turns(arms, "µs from submit to result"), best


def mixed(contest: Contest) -> Readings:
    """Quick tasks among slow ones: their latencies in ms, and how long a burst of both takes.

    `mixed_p99` is that of each round, `mixed_ms` every latency of all rounds.
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
        running = contest.clusters(stack, MIXED_WORKERS)
        bursts: dict[str, Arm] = {
            arm: partial(burst, client) for arm, (_, client) in running.items()
        }
        readings = contest.take_turns(bursts, "s for a burst", sizes.mixed_rounds)
        arrivals: dict[str, Arm] = {
            arm: partial(arrive, arm, client) for arm, (_, client) in running.items()
        }
        readings |= contest.take_turns(arrivals, "ms p99 of no-ops", sizes.mixed_rounds)
    bound_s = at_once.conserving_s(MIXED_WORKERS)
    readings["mixed_burst"][CONSERVING] = [bound_s] * sizes.mixed_rounds
    counted = {arm: list(chain(*found[-sizes.mixed_rounds :])) for arm, found in blocks.items()}
    return readings | {"mixed_ms": counted}


def payloads(contest: Contest) -> Readings:
    """MB per second over all sockets that payloads of 1 MiB cross: four for an echo, one raw."""
    work = echo_work(contest.sizes.big_payloads, contest.seed, MIB)
    with ExitStack() as stack:
        running = contest.clusters(stack, WORKERS)
        raw = stack.enter_context(RawLink())
        uncopied = stack.enter_context(Forwarder(WORKERS, uncopied=True, messages_held=4))
        mb = len(work) * MIB / 1e6

        def arm(hops: int, drive: Callable[[Work], float], times: int = 1) -> Arm:
            return lambda: {"one_mib": times * hops * mb / sum(drive(work) for _ in range(times))}

        arms = {
            name: arm(ECHO_HOPS, partial(map_s, client)) for name, (_, client) in running.items()
        }
        arms[UNCOPIED] = arm(
            ECHO_HOPS, lambda part: uncopied.stream_s(part, BIG_IN_FLIGHT), UNCOPIED_TIMES
        )
        arms[RAW] = arm(1, raw.send_s, RAW_TIMES)
        return contest.take_turns(arms, "MB/s with 1 MiB payloads")


def choosing(contest: Contest) -> Readings:
    """Microseconds to choose a worker for a task that needs a card, among more and more workers."""
    readings: Readings = {}
    choices, seed = contest.sizes.choices, contest.seed

    def choose(spec: ClusterSpec, workers: int) -> Mapping[str, float]:
        found = measure_selection(
            spec, workers=workers, choices=choices, seed=seed, requirements=NEEDED
        )
        return {f"selection_{workers}": found.value or 0.0}

    def take_next(workers: int) -> Mapping[str, float]:
        return {f"selection_{workers}": _queue_us(workers, choices)}

    for workers in ROSTERS:
        arms: dict[str, Arm] = {
            arm: partial(choose, spec, workers) for arm, spec in contest.specs.items()
        }
        arms[QUEUE] = partial(take_next, workers)
        readings |= contest.take_turns(arms, f"µs to choose among {workers:,} workers")
    few, many = (readings[f"selection_{workers}"] for workers in (ROSTERS[0], ROSTERS[-1]))
    return readings | {"selection_flat": {OPTIMIZED: many[OPTIMIZED], FEW_WORKERS: few[OPTIMIZED]}}


def headers(contest: Contest) -> Readings:
    """Microseconds to encode and decode a task on one hop."""
    work = echo_work(contest.sizes.codec_tasks, contest.seed)

    def pass_on(spec: ClusterSpec) -> Mapping[str, float]:
        return {"codec": codec_us(spec, work)}

    arms: dict[str, Arm] = {arm: partial(pass_on, spec) for arm, spec in contest.specs.items()}
    arms[PACKING] = lambda: {"codec": packing_us(work)}
    return contest.take_turns(arms, "µs to encode and decode a task")


def _pids(local: LocalCluster) -> Sequence[int]:
    return [local.coordinator_pid, *(worker.pid for worker in local.workers)]


def _rate(figure: str, drive: Callable[[Work], float], work: Work) -> Arm:
    return lambda: {figure: len(work) / drive(work)}


def _mapping(drive: Callable[[Work], float], broker_pid: int, work: Work) -> Arm:
    """Tasks per second, and µs of processor time that the broker takes for one."""
    broker = psutil.Process(broker_pid)

    def used_s() -> float:
        times = broker.cpu_times()
        return times.user + times.system

    def block() -> Mapping[str, float]:
        before_s = used_s()
        took_s = drive(work)
        cpu_us = (used_s() - before_s) * 1e6 / len(work)
        return {"map": len(work) / took_s, "cpu": cpu_us}

    return block


def _percentiles(drive: Callable[[], list[float]]) -> Arm:
    def block() -> Mapping[str, float]:
        took_us = [took_ms * 1e3 for took_ms in drive()]
        return {
            "latency_p50": percentile(took_us, 50) or 0.0,
            "latency_p99": percentile(took_us, 99) or 0.0,
        }

    return block


def _queue_us(workers: int, choices: int) -> float:
    """The median of taking the worker that was free first, timed as a policy's choice is."""
    free = deque(range(workers))
    took_us = []
    for _ in range(choices):
        began_ns = time.perf_counter_ns()
        chosen = free.popleft()
        took_us.append((time.perf_counter_ns() - began_ns) / 1e3)
        free.append(chosen)
    return percentile(took_us, 50) or 0.0
