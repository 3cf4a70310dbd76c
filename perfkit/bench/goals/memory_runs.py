"""The measurements behind the memory goals: real processes, read from outside.

What a process holds depends on its past, so every sample is taken in a fresh cluster, and the specs
take turns. RSS is that of one process; PSS divides shared pages among the processes that share
them. A figure is read once it has settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from msgspec.structs import replace

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import Busy
from cluster.vocabulary.status import Status
from perfkit.bench.counts.gate import PYTHON, count_afresh
from perfkit.bench.goals.cluster_runs import WORKERS
from perfkit.bench.goals.sharing import SharingSizes
from perfkit.bench.goals.streaming import RESULT_BYTES, stream_growth_bytes
from perfkit.bench.goals.table import BASELINE, OPTIMIZED, Contest
from perfkit.bench.leaks.check import CheckSizes
from perfkit.bench.workloads.load import ExperimentError, echo_work, map_s, result_of
from perfkit.bench.workloads.rounds import ArmSamples
from perfkit.evidence.text import quantity
from perfkit.profile.watch import MemorySample, process_memory

MB = 1e6
#: The smallest model, so that its worker holds little more than the runtime.
MODEL = "digits"
#: A figure has settled when it moves by less than STILL_BYTES for STILL_S; a coordinator may trim
#: its heap with the next timer of a worker, which comes every 0.6 s.
STILL_BYTES, STILL_S, READ_EVERY_S, MOVING_S = 65_536, 1.0, 0.1, 20.0
QUEUED_S = 120.0
#: Clusters that are measured side by side.
AT_ONCE = 3
#: A coordinator that takes in a million tasks answers late.
ANSWER_S = 60.0
FOUR_WORKERS = SharingSizes(workers=(4,))
ALL_EVENTS = CheckSizes()


@dataclass(frozen=True)
class MemorySizes:
    """How much is measured: rounds, and the tasks of one block; 0 rounds leave a figure out.

    The baseline gets fewer tasks where they come one by one, which its figures per task allow.
    """

    rounds: int
    passed_tasks: int
    baseline_passed_tasks: int
    queued_tasks: int
    baseline_queued_tasks: int
    full_rounds: int
    stream_rounds: int = 2
    streamed_bytes: int = RESULT_BYTES
    sharing: SharingSizes | None = FOUR_WORKERS
    leaks: CheckSizes = ALL_EVENTS


MemoryContest: TypeAlias = Contest[MemorySizes]
#: Measures one cluster of an arm and its spec; returns figures by name.
Measure: TypeAlias = Callable[[MemoryContest, str, ClusterSpec], Mapping[str, float]]


def passing(contest: MemoryContest, name: str, spec: ClusterSpec) -> Mapping[str, float]:
    """A coordinator's RSS in MB before and after many tasks of a map."""
    few = contest.sizes.baseline_passed_tasks
    tasks = few if name == BASELINE else contest.sizes.passed_tasks
    work = echo_work(min(tasks, 100_000), contest.seed)
    with LocalCluster(WORKERS, spec) as local, local.client() as client:
        client.status(ANSWER_S)
        idle = settled(local.coordinator_pid).rss_bytes
        for start in range(0, tasks, len(work)):
            map_s(client, work.part(0, min(len(work), tasks - start)))
        passed = settled(local.coordinator_pid).rss_bytes
    return {"idle": idle / MB, "passed": passed / MB}


def queueing(
    alone: bool, contest: MemoryContest, name: str, spec: ClusterSpec
) -> Mapping[str, float]:
    """Bytes of a coordinator's RSS per waiting task, and what is left when all are done.

    The tasks are submitted in runs or each `alone`.
    """
    sizes = contest.sizes
    tasks = sizes.baseline_queued_tasks if name == BASELINE else sizes.queued_tasks
    work = echo_work(tasks, contest.seed)
    how, told = ("alone", replace(spec, burst=1)) if alone else ("run", spec)
    with LocalCluster(0, spec) as local, Client(local.endpoint, spec=told) as client:
        client.status(ANSWER_S)
        idle = settled(local.coordinator_pid).rss_bytes
        if alone:
            futures = [client.submit(work.kind, payload) for payload in work.payloads]
        else:
            futures = client.submit_batch(work.kind, work.payloads)
        await_status(client, lambda status: sum(status.queued.values()) == tasks)
        queued = settled(local.coordinator_pid).rss_bytes
        for _ in range(WORKERS):
            local.add_worker()
        work.check([result_of(future) for future in futures])
        await_status(client, lambda status: status.runs == 0)
        drained = settled(local.coordinator_pid).rss_bytes
    return {f"{how}_per_task": (queued - idle) / tasks, f"{how}_drained": drained / idle}


def filling(contest: MemoryContest, name: str, spec: ClusterSpec) -> Mapping[str, float]:
    """A coordinator's RSS in MB with a full queue; one more task must be refused."""
    work = echo_work(spec.limits.tasks, contest.seed)
    with LocalCluster(0, spec) as local, local.client() as client:
        client.submit_batch(work.kind, work.payloads)
        await_status(client, lambda status: sum(status.queued.values()) == len(work))
        refusal = client.submit(work.kind, b"one more").exception(QUEUED_S)
        if not isinstance(refusal, Busy) or f"of at most {len(work)}" not in str(refusal):
            raise ExperimentError(
                f"with {len(work):,} queued tasks one more should be refused with the bound as the "
                f"reason, not with {refusal!r}"
            )
        return {"full": settled(local.coordinator_pid).rss_bytes / MB}


def working(contest: MemoryContest, name: str, spec: ClusterSpec) -> Mapping[str, float]:
    """A worker's RSS in MB without models."""
    with LocalCluster(1, spec) as local:
        return {"worker": settled(local.workers[0].pid).rss_bytes / MB}


def serving(contest: MemoryContest, name: str, spec: ClusterSpec) -> Mapping[str, float]:
    """A worker's PSS in MB with ONNX Runtime and the smallest model; none where it is unknown."""
    with LocalCluster(1, spec, models=(MODEL,)) as local:
        pss_bytes = settled(local.workers[0].pid).pss_bytes
    return {} if pss_bytes is None else {"worker_onnx": pss_bytes / MB}


def streaming(contest: MemoryContest, name: str, spec: ClusterSpec) -> Mapping[str, float]:
    """MB that one large result adds to each role at its peak."""
    growth = stream_growth_bytes(spec, contest.sizes.streamed_bytes)
    return {f"stream_{role}": size / MB for role, size in growth.items() if size is not None}


def in_fresh_clusters(contest: MemoryContest) -> ArmSamples:
    """All figures of real processes, each time in a fresh cluster.

    Where time is no part of a figure, clusters run side by side: most of it is waiting for memory
    to settle. PSS is shared with every process that maps the same file, so there they take turns.
    """
    sizes, specs = contest.sizes, contest.specs
    samples = _side_by_side(
        contest, (passing, partial(queueing, False), partial(queueing, True), working)
    )
    for measure, rounds, unit, compared in (
        (filling, sizes.full_rounds, "MB full", {OPTIMIZED: contest.optimized}),
        (serving, sizes.rounds, "MB a worker with a model", specs),
        (streaming, sizes.stream_rounds, "MB streamed", specs),
    ):
        arms = {name: partial(measure, contest, name, spec) for name, spec in compared.items()}
        if rounds:
            samples |= contest.take_turns(arms, rounds, unit, warm=False)
    return samples


def _side_by_side(contest: MemoryContest, measures: Sequence[Measure]) -> ArmSamples:
    """The samples of several measures and both specs, AT_ONCE clusters at a time."""
    samples: ArmSamples = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number in range(1, contest.sizes.rounds + 1):
            running = {
                pool.submit(measure, contest, arm, spec): arm
                for measure in measures
                for arm, spec in contest.specs.items()
            }
            for done in as_completed(running):
                for figure, value in done.result().items():
                    samples.setdefault(figure, {}).setdefault(running[done], []).append(value)
                    contest.say(f"round {number}, {running[done]}, {figure} {quantity(value)}")
    return samples


def allocating(contest: MemoryContest) -> ArmSamples:
    """Allocations per task of both specs' coordinators, as memray counts them in a fresh process.

    They are exact, so one count stands for every round; empty if memray is not installed. The specs
    are those of `perfkit.bench.counts.per_task`.
    """
    try:
        counts = count_afresh().by_python[PYTHON].counts
    except ExperimentError as error:
        contest.say(f"allocations are not counted: {error}")
        return {}
    return {
        f"allocations_{load}": {
            arm: [counts[arm][load]["allocations_per_task"]] * contest.sizes.rounds
            for arm in contest.specs
        }
        for load in ("stream", "single")
    }


def settled(pid: int) -> MemorySample:
    """The memory of a process once it has settled.

    Raises ExperimentError if the process ends or never settles.
    """
    began_s = since_s = time.monotonic()
    last = _read(pid)
    while (now_s := time.monotonic()) - since_s < STILL_S:
        if now_s - began_s > MOVING_S:
            raise ExperimentError(f"the memory of process {pid} did not settle")
        time.sleep(READ_EVERY_S)
        found = _read(pid)
        if abs(found.rss_bytes - last.rss_bytes) > STILL_BYTES:
            last, since_s = found, time.monotonic()
    return _read(pid)


def await_status(client: Client, holds: Callable[[Status], bool]) -> None:
    """Return once `holds` is true of the cluster's status; ExperimentError if it never is."""
    until_s = time.monotonic() + QUEUED_S
    while not holds(status := client.status(ANSWER_S)):
        if time.monotonic() > until_s:
            raise ExperimentError(
                f"the queue did not become as expected: {status.queued} tasks of {status.runs} "
                "runs wait"
            )
        time.sleep(READ_EVERY_S)


def _read(pid: int) -> MemorySample:
    found = process_memory(pid)
    if found is None:
        raise ExperimentError(f"process {pid} ended while its memory was measured")
    return found
