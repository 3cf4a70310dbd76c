"""Pinned processes, so that latencies do not depend on where the system runs them.

Waking a thread on the same core costs half of a wake-up across cores, so unpinned latencies come in
clusters. A layout gives a core to the coordinator (or the bare broker), the worker and the client;
arms that are compared use the same layout.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

#: the cores of this process at its start
ALL_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


@dataclass(frozen=True)
class Layout:
    """A core for each role; None if this system cannot pin."""

    name: str
    broker: int | None
    worker: int | None
    client: int | None


#: wherever the system puts them: no role has a core of its own
UNPINNED = Layout("not pinned", None, None, None)


def layouts() -> list[Layout]:
    """The layouts worth trying on the cores that this process may use."""
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
    """Pin the broker (the first of `pids`), its workers, and this process; a role without a core
    may run on all of them.
    """
    broker, *workers = pids
    for pid, core in (
        (broker, layout.broker),
        *((worker, layout.worker) for worker in workers),
        (os.getpid(), layout.client),
    ):
        _pin(pid, ALL_CORES if core is None else {core})


@contextmanager
def affinity_restored() -> Iterator[None]:
    """Afterwards, give every thread of this process its cores back."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    try:
        yield
    finally:
        _pin(os.getpid(), before)


def _pin(pid: int, cores: set[int]) -> None:
    if not hasattr(os, "sched_setaffinity"):
        return
    # The call pins one thread; a process has many, those of its sockets among them.
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), cores)
