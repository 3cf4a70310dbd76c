"""The measurements behind the table of memory: real processes, read from outside.

What a process holds depends on its past, so every reading is taken in a cluster of its own, and the
specs take turns. RSS is that of one process; PSS divides shared pages among those who share them.
What is still moving is not read: a reading waits until the figure stays where it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import Busy
from cluster.vocabulary.status import Status
from perfkit.bench.counts.per_task import PYTHON, count_afresh
from perfkit.bench.goals.cluster_runs import WORKERS, Say
from perfkit.bench.goals.sharing import SharingSizes
from perfkit.bench.goals.streaming import RESULT_BYTES, stream_use
from perfkit.bench.goals.table import BASELINE, OPTIMIZED
from perfkit.bench.leaks.check import CheckSizes
from perfkit.bench.workloads.load import ExperimentError, Work, echo_work, map_s, result_of
from perfkit.bench.workloads.rounds import Arm, Readings, take_turns
from perfkit.profile.watch import MemorySample, process_memory

MB = 1e6
#: The smallest model there is: what its worker holds is the runtime.
MODEL = "digits"
#: A figure is read when it has moved by less than this for so long; a coordinator may trim its
#: heap with the next timer of a worker, which comes every 0.6 s.
STILL_BYTES, STILL_S, READ_EVERY_S, MOVING_S = 65_536, 1.5, 0.1, 20.0
QUEUED_S = 120.0
#: The model's and the events' tables have sizes of their own.
FOUR_WORKERS = SharingSizes(workers=(4,))
ALL_EVENTS = CheckSizes()


@dataclass(frozen=True)
class Amounts:
    """How much is measured: rounds, and the tasks of one block.

    Where tasks come one by one the baseline is given fewer; a figure is per task, so it may be.
    """

    rounds: int
    passed_tasks: int
    baseline_passed_tasks: int
    queued_tasks: int
    baseline_queued_tasks: int
    full_rounds: int
    stream_rounds: int = 2
    streamed_bytes: int = RESULT_BYTES
    sharing: SharingSizes = FOUR_WORKERS
    leaks: CheckSizes = ALL_EVENTS


@dataclass(frozen=True)
class Subjects:
    """Whose memory is measured, how much of it, and who is told."""

    optimized: ClusterSpec
    baseline: ClusterSpec
    amounts: Amounts
    seed: int
    say: Say

    def take_turns(self, unit: str, arm: Callable[[ClusterSpec, bool], Arm]) -> Readings:
        """A block of each spec in each round; `arm` is told whether it is the baseline."""
        arms = {OPTIMIZED: arm(self.optimized, False), BASELINE: arm(self.baseline, True)}
        return take_turns(arms, self.amounts.rounds, self.seed, unit, self.say, warm=False)


def passing(subjects: Subjects) -> Readings:
    """A coordinator's RSS in MB before and after many tasks of a map."""
    amounts = subjects.amounts

    def arm(spec: ClusterSpec, plain: bool) -> Arm:
        tasks = amounts.baseline_passed_tasks if plain else amounts.passed_tasks
        return partial(_pass, spec, echo_work(min(tasks, 100_000), subjects.seed), tasks)

    return subjects.take_turns("MB idle", arm)


def queueing(subjects: Subjects) -> Readings:
    """Bytes of a coordinator's RSS per task that waits, and what is left when all are done."""
    amounts, seed = subjects.amounts, subjects.seed

    def arm(alone: bool, spec: ClusterSpec, plain: bool) -> Arm:
        tasks = amounts.baseline_queued_tasks if plain and alone else amounts.queued_tasks
        return partial(_queue, spec, echo_work(tasks, seed), alone)

    runs = subjects.take_turns("B per task in a run", partial(arm, False))
    return runs | subjects.take_turns("B per task submitted alone", partial(arm, True))


def filling(subjects: Subjects) -> Readings:
    """A coordinator's RSS in MB with as many tasks as it takes; one more must be refused."""
    spec, rounds = subjects.optimized, subjects.amounts.full_rounds
    work = echo_work(spec.limits.tasks, subjects.seed)
    arms: dict[str, Arm] = {OPTIMIZED: partial(_fill, spec, work)}
    return take_turns(arms, rounds, subjects.seed, "MB full", subjects.say, warm=False)


def working(subjects: Subjects) -> Readings:
    """A worker's RSS in MB without models, its PSS with ONNX Runtime and the smallest model."""

    def arm(spec: ClusterSpec, _: bool) -> Arm:
        return partial(_work, spec)

    return subjects.take_turns("MB a worker", arm)


def allocating(subjects: Subjects) -> Readings:
    """Allocations per task of both specs' coordinators, as memray counts them in a fresh process.

    They are exact, so that one count stands for every round; empty where memray is not installed.
    The specs are those of `perfkit.bench.counts.per_task`.
    """
    try:
        counts = count_afresh().by_python[PYTHON].counts
    except ExperimentError as error:
        subjects.say(f"allocations are not counted: {error}")
        return {}
    rounds = subjects.amounts.rounds
    return {
        f"allocations_{load}": {
            arm: [counts[arm][load]["allocations_per_task"]] * rounds
            for arm in (OPTIMIZED, BASELINE)
        }
        for load in ("stream", "single")
    }


def streaming(subjects: Subjects) -> Readings:
    """MB that one large result adds to each role at its worst moment."""
    amounts = subjects.amounts

    def arm(spec: ClusterSpec, plain: bool) -> Arm:
        return partial(_stream, spec, amounts.streamed_bytes)

    arms = {OPTIMIZED: arm(subjects.optimized, False), BASELINE: arm(subjects.baseline, True)}
    return take_turns(
        arms, amounts.stream_rounds, subjects.seed, "MB streamed", subjects.say, warm=False
    )


#: All of them; whoever has another figure of memory adds its maker here and its goal to the table.
MAKERS: Sequence[Callable[[Subjects], Readings]] = (
    passing,
    queueing,
    filling,
    working,
    allocating,
    streaming,
)


def _pass(spec: ClusterSpec, work: Work, tasks: int) -> Mapping[str, float]:
    with LocalCluster(WORKERS, spec) as local, local.client() as client:
        client.status()
        idle = settled(local.coordinator_pid).rss_bytes
        for start in range(0, tasks, len(work)):
            map_s(client, work.part(0, min(len(work), tasks - start)))
        passed = settled(local.coordinator_pid).rss_bytes
    return {"idle": idle / MB, "passed": passed / MB}


def _queue(spec: ClusterSpec, work: Work, alone: bool) -> Mapping[str, float]:
    name, told = ("alone", replace(spec, burst=1)) if alone else ("run", spec)
    with LocalCluster(0, spec) as local, Client(local.endpoint, spec=told) as client:
        client.status()
        idle = settled(local.coordinator_pid).rss_bytes
        if alone:
            futures = [client.submit(work.kind, payload) for payload in work.payloads]
        else:
            futures = client.submit_batch(work.kind, work.payloads)
        await_status(client, lambda status: sum(status.queued.values()) == len(work))
        queued = settled(local.coordinator_pid).rss_bytes
        for _ in range(WORKERS):
            local.add_worker()
        work.check([result_of(future) for future in futures])
        await_status(client, lambda status: status.runs == 0)
        drained = settled(local.coordinator_pid).rss_bytes
    return {f"{name}_per_task": (queued - idle) / len(work), f"{name}_drained": drained / idle}


def _fill(spec: ClusterSpec, work: Work) -> Mapping[str, float]:
    with LocalCluster(0, spec) as local, local.client() as client:
        client.submit_batch(work.kind, work.payloads)
        await_status(client, lambda status: sum(status.queued.values()) == len(work))
        refusal = client.submit(work.kind, b"one more").exception(QUEUED_S)
        if not isinstance(refusal, Busy) or f"of at most {len(work)}" not in str(refusal):
            raise ExperimentError(
                f"with {len(work):,} tasks in the queue one more was to be refused with the bound "
                f"as the reason, and not: {refusal!r}"
            )
        return {"full": settled(local.coordinator_pid).rss_bytes / MB}


def _work(spec: ClusterSpec) -> Mapping[str, float]:
    with LocalCluster(1, spec) as local:
        bare = settled(local.workers[0].pid).rss_bytes
    with LocalCluster(1, spec, models=(MODEL,)) as local:
        pss_bytes = settled(local.workers[0].pid).pss_bytes
    found = {"worker": bare / MB}
    return found if pss_bytes is None else {**found, "worker_onnx": pss_bytes / MB}


def settled(pid: int) -> MemorySample:
    """What a process holds once that does not change any more; raises ExperimentError when it is
    gone or never comes to rest.
    """
    began_s = since_s = time.monotonic()
    last = _read(pid)
    while (now_s := time.monotonic()) - since_s < STILL_S:
        if now_s - began_s > MOVING_S:
            raise ExperimentError(f"the memory of process {pid} did not come to rest")
        time.sleep(READ_EVERY_S)
        found = _read(pid)
        if abs(found.rss_bytes - last.rss_bytes) > STILL_BYTES:
            last, since_s = found, time.monotonic()
    return _read(pid)


def await_status(client: Client, holds: Callable[[Status], bool]) -> None:
    """Return when the cluster's status is as wanted; raises ExperimentError if it never is."""
    until_s = time.monotonic() + QUEUED_S
    while not holds(status := client.status()):
        if time.monotonic() > until_s:
            raise ExperimentError(
                f"the queue did not become what was waited for: {status.queued} of "
                f"{status.runs} runs wait"
            )
        time.sleep(READ_EVERY_S)


def _read(pid: int) -> MemorySample:
    found = process_memory(pid)
    if found is None:
        raise ExperimentError(f"process {pid} ended while its memory was measured")
    return found


def _stream(spec: ClusterSpec, result_bytes: int) -> Mapping[str, float]:
    used = stream_use(spec, result_bytes)
    grown = {one.role: one.peak_growth_bytes for one in used}
    return {f"stream_{role}": size / MB for role, size in grown.items() if size is not None}
