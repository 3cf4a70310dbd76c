"""What a coordinator answers to questions, as plain data: the cluster's status, tasks, a story."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import msgspec
from msgspec.structs import force_setattr

from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.markup import as_table
from cluster.vocabulary.printable import count_of
from cluster.vocabulary.task import NO_LOAD, Gpu, KindBatches, Load, Priority, State

#: the counters of tasks that have ended
ENDED = [str(state) for state in (State.DONE, State.FAILED, State.CANCELLED, State.DEAD_LETTERED)]
#: a status as a table
HEADER = "worker,host,pid,held,finished,p50 ms,p99 ms,silent s,trouble".split(",")
ROWS_MAX = 20


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker as the coordinator sees it; ``silent_s`` is the time since its last message.

    ``wanted`` are the models that it is to serve, ``models`` those that it does, and ``trouble``
    names one that it could not load, and why; ``offers`` counts how often it told of either: once
    when it has heard an order, and once when it has obeyed. ``service_s_…`` are percentiles of
    the time that its newest tasks took, within 6 %, where the tasks of one report count as equally
    long; None before its first report. ``supervisor`` would start it again; "" if none has reported
    it yet, or there is none.
    """

    worker: str
    epoch: int
    host: str
    pid: int
    capacity: int
    credit: int
    held: int
    leases: int
    finished: int
    draining: bool
    silent_s: float
    kinds: list[str]
    models: list[str]
    gpus: list[Gpu]
    load: Load = NO_LOAD
    wanted: list[str] = []
    trouble: str = ""
    service_s_p50: float | None = None
    service_s_p99: float | None = None
    supervisor: str = ""
    offers: int = 0


def names_model(trouble: str, model: str) -> bool:
    """Whether a worker's trouble is with this model; it may list others."""
    return f"model {model!r}" in trouble


class KindStatus(msgspec.Struct, frozen=True):
    """One kind of task: how many wait, for a worker or for their next attempt, how many are
    assigned, and how many workers offer it.
    """

    kind: str
    queued: int
    assigned: int
    workers: int


class HostStatus(msgspec.Struct, frozen=True):
    """One host's supervisor; ``silent_s`` is the time since its last message, and ``trouble`` says
    what it gave up.
    """

    host: str
    workers: int
    restarts: int
    silent_s: float
    trouble: str = ""


class Status(msgspec.Struct, frozen=True, tag_field="answer", tag="status"):
    """The whole cluster: tasks by state, bytes held, counters and workers.

    ``queued`` counts by priority, ``kinds`` the 1,024 kinds with the most tasks, ``batches`` the
    runs of models on all workers, those that are gone too. A counter of ``counters`` that is not
    among them has counted nothing: it reads as 0.
    """

    policy: str
    clients: int
    runs: int
    queued: dict[str, int]
    assigned: int
    delayed: int
    payload_bytes: int
    retained_bytes: int
    counters: dict[str, int]
    workers: list[WorkerStatus]
    hosts: list[HostStatus] = []
    kinds: list[KindStatus] = []
    batches: list[KindBatches] = []

    def __post_init__(self) -> None:
        force_setattr(self, "counters", Counter(self.counters))

    def __str__(self) -> str:
        """The workers and the tasks in one line."""
        ended = {name: self.counters[name] for name in ENDED if name in self.counters}
        counts = {"queued": sum(self.queued.values()), "assigned": self.assigned, **ended}
        tasks = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        return f"{count_of(len(self.workers), 'worker')}; tasks: {tasks}"

    def __repr__(self) -> str:
        return f"<Status: {self}>"

    def _repr_html_(self) -> str:
        """The same as a table of the workers, the first of many."""
        left = len(self.workers) - ROWS_MAX
        title = f"{self}; not shown: {count_of(left, 'more worker')}" if left > 0 else str(self)
        return as_table(title, HEADER, map(_row, self.workers[:ROWS_MAX]))


def still_restarting(status: Status, name: str, old_pid: int) -> str:
    """What a worker has not done yet that is to be started again, in words; "" if it has done all.

    Raises:
        ClusterError: its new process is in trouble.
    """
    worker = next((one for one in status.workers if one.worker == name), None)
    if worker is None:
        return "is not back"
    if worker.pid == old_pid:
        return f"still holds {count_of(worker.held, 'task')}"
    if worker.trouble:
        raise ClusterError(f"worker {name!r} is back, but in trouble: {worker.trouble}")
    missing = sorted(set(worker.wanted).difference(worker.models))
    return f"is back, but does not serve {', '.join(missing)}" if missing else ""


def _row(worker: WorkerStatus) -> list[object]:
    times = (worker.service_s_p50, worker.service_s_p99)
    milliseconds = (None if time is None else f"{time * 1e3:.3g}" for time in times)
    trouble = worker.trouble or ("draining" if worker.draining else "")
    facts = worker.worker, worker.host, worker.pid, worker.held, f"{worker.finished:,}"
    return [*facts, *milliseconds, f"{worker.silent_s:.1f}", trouble]


class TaskStatus(msgspec.Struct, frozen=True):
    """One task. ``worker`` is the last one that had it, "" before the first; ``attempts`` counts
    how often it was given to one; ``age_s`` is the time since it was accepted.
    """

    run: int
    position: int
    kind: str
    state: State
    priority: Priority
    client: str
    worker: str
    attempts: int
    age_s: float


class Tasks(msgspec.Struct, frozen=True, tag_field="answer", tag="tasks"):
    """Some tasks, the newest run first."""

    tasks: list[TaskStatus]


class StoryEntry(msgspec.Struct, frozen=True):
    """One move of a task: how long ago, why, to which state, and who was involved."""

    ago_s: float
    cause: str
    state: State
    detail: str


class Story(msgspec.Struct, frozen=True, tag_field="answer", tag="story"):
    """What has happened to one task, in order."""

    entries: list[StoryEntry]


#: a bare bool says whether what was asked for is so
Answer: TypeAlias = Status | Tasks | Story | bool
