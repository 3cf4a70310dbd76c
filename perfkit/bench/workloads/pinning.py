"""Where the processes of a round trip run, so that a latency is not the scheduler's mood.

A thread that wakes another one on the same core costs half of what a wake-up across cores does, so
unpinned latencies come in clusters. A layout says which core the coordinator (or the bare broker),
the worker and the client get; whatever is measured side by side gets the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A core for each role; None where this system cannot pin."""

    name: str
    broker: int | None
    worker: int | None
    client: int | None


def layouts() -> list[Layout]:
    """The layouts worth a try on the cores that this process may use."""
    if not hasattr(os, "sched_setaffinity"):
        return [Layout("not pinned: this system has no way to", None, None, None)]
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return [Layout("all on the only core there is", first, first, first)]
    return [
        Layout("all on one core", first, first, first),
        Layout("the coordinator on a core of its own", others[0], first, first),
    ]


def apply(layout: Layout, pids: Sequence[int]) -> None:
    """Pin the broker's process, which is the first of `pids`, its workers' and this one."""
    broker, *workers = pids
    for pid, core in (
        (broker, layout.broker),
        *((worker, layout.worker) for worker in workers),
        (os.getpid(), layout.client),
    ):
        if core is not None:
            _pin(pid, {core})


@contextmanager
def affinity_restored() -> Iterator[None]:
    """Give this process, with every thread of it, the cores back that it had."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        yield
    finally:
        if before is not None:
            _pin(os.getpid(), before)


def _pin(pid: int, cores: set[int]) -> None:
    # The call knows threads only; a process is all of them, sockets' own among them.
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), cores)
