"""What a coordinator answers to questions, as plain data: the cluster's status, tasks, a story."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from cluster.vocabulary.task import NO_LOAD, Gpu, Load, Priority, State


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker as the coordinator sees it; ``silent_s`` is the time since its last message.

    ``wanted`` are the models that it is to serve, ``models`` those that it does, and ``trouble``
    names one that it could not load, and why. ``service_s_…`` are percentiles of
    the time that its newest tasks took, within 6 %, where the tasks of one report count as equally
    long; None before its first report.
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

    ``queued`` counts by priority, ``kinds`` the 1,024 kinds with the most tasks.
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
