"""The cluster's status as plain data, for ``perfkit cluster status`` and for programs."""

from __future__ import annotations

import msgspec

from cluster.vocabulary.task import NO_LOAD, Gpu, Load


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker as the coordinator sees it; ``silent_s`` is the time since its last message."""

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


class HostStatus(msgspec.Struct, frozen=True):
    """One host's supervisor; ``silent_s`` is the time since its last message, and ``trouble`` says
    what it gave up.
    """

    host: str
    workers: int
    restarts: int
    silent_s: float
    trouble: str = ""


class Status(msgspec.Struct, frozen=True):
    """The whole cluster: tasks by state, bytes held, counters and workers."""

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
