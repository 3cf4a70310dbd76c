"""Looks at a cluster at a low, steady rate: its queue, counters and processes over time.

A look costs the coordinator about a millisecond and takes a connection of its own, so there are a
few a second, and fewer where the cluster takes long to answer. They are bounded: when they are
many, every second one is dropped, and from then on half as many are taken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import psutil

from cluster.shells.client import Client
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.status import Status, WorkerStatus
from perfkit.report.session.target import Processes

INTERVAL_S = 0.25
#: At least this many times as long as a look takes lies between two.
REST = 4.0
LOOKS_MAX = 2_400
#: Worker processes that are told apart.
WORKERS_MAX = 1_000
ANSWER_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """One moment, `at_s` on the monotonic clock; what the coordinator did not answer is None.

    `waiting` tasks wait for a worker or their next attempt, and `occupied` of the `workers` held
    tasks. `roles` has the processes, their processor time in s and their RSS in bytes, by role.
    `busy_s` and `steal_s` are the machine's processor time so far, of all cores.
    """

    at_s: float
    roles: Mapping[str, tuple[int, float, int]]
    busy_s: float
    steal_s: float | None
    counters: Mapping[str, int] | None = None
    waiting: int | None = None
    assigned: int | None = None
    workers: int | None = None
    occupied: int | None = None

    @property
    def has_work(self) -> bool:
        """Whether a task waits or runs."""
        return bool(self.waiting or self.assigned)

    def count(self, name: str) -> int | None:
        """A counter of the coordinator; one that it has not named yet is 0."""
        return None if self.counters is None else self.counters.get(name, 0)


@dataclass(slots=True)
class SeenWorker:
    """One worker process: when it was seen, and in how many looks with work it held some.

    `finished` counts the tasks it ended since the first look. The percentiles are the
    coordinator's, of its newest tasks, in s; None before its first report.
    """

    worker: str
    host: str
    pid: int
    first_s: float
    last_s: float = 0.0
    looks: int = 0
    occupied: int = 0
    before: int = 0
    finished: int = 0
    service_s_p50: float | None = None
    service_s_p99: float | None = None

    def note(self, status: WorkerStatus, at_s: float, has_work: bool) -> None:
        """Take in what the coordinator says of it."""
        self.last_s = at_s
        self.looks += has_work
        self.occupied += has_work and status.held > 0
        self.finished = status.finished - self.before
        self.service_s_p50, self.service_s_p99 = status.service_s_p50, status.service_s_p99


@dataclass(frozen=True, slots=True)
class Step:
    """What happened between two looks; unknown is None."""

    before: Look
    after: Look

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.after.at_s - self.before.at_s

    def rise(self, name: str) -> int | None:
        """By how much a counter rose; None if it is unknown, or began anew with its coordinator."""
        before, after = self.before.count(name), self.after.count(name)
        return None if before is None or after is None or after < before else after - before

    def cores(self, role: str) -> float | None:
        """How many cores the processes of a role kept busy."""
        if role not in self.before.roles or role not in self.after.roles:
            return None
        used_s = self.after.roles[role][1] - self.before.roles[role][1]
        return max(0.0, used_s) / self.seconds

    @property
    def busy_cores(self) -> float:
        """How many cores of the machine were busy, for whatever process."""
        return max(0.0, self.after.busy_s - self.before.busy_s) / self.seconds

    @property
    def has_work(self) -> bool:
        """Whether there was work at its beginning or its end, or some came or ended within."""
        if self.before.has_work or self.after.has_work:
            return True
        return any(self.rise(name) for name in ("accepted", "done", "failed"))


@dataclass
class Timeline:
    """The looks of one block, taken by a thread between `start` and `stop`."""

    client: Client
    processes: Processes
    interval_s: float = INTERVAL_S
    looks: list[Look] = field(default_factory=list)
    #: by name and process id, as the coordinator gave them
    workers: dict[tuple[str, int], SeenWorker] = field(default_factory=dict)
    #: the newest answer
    status: Status | None = None

    def start(self) -> None:
        """Take the first look; raises what `Client.status` raises without an answer."""
        self.looks.append(self._look(self.client.status()))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="performance-report", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and take the last look."""
        self._over.set()
        self._thread.join()
        self.looks.append(self._look(self._status()))

    @property
    def steps(self) -> list[Step]:
        """What happened between each two looks."""
        return [Step(*pair) for pair in pairwise(self.looks) if pair[1].at_s > pair[0].at_s]

    def _run(self) -> None:
        took_s = 0.0
        while not self._over.wait(max(self.interval_s, REST * took_s)):
            since_s = time.monotonic()
            self.looks.append(self._look(self._status()))
            took_s = time.monotonic() - since_s
            if len(self.looks) >= LOOKS_MAX:
                del self.looks[1::2]
                self.interval_s *= 2

    def _status(self) -> Status | None:
        try:
            return self.client.status(ANSWER_WITHIN_S)
        except ClusterError:
            return None

    def _look(self, status: Status | None) -> Look:
        machine = psutil.cpu_times()
        idle_s = machine.idle + getattr(machine, "iowait", 0.0)
        # Guests' time is in the user's already.
        guests_s = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
        steal_s = getattr(machine, "steal", None)
        busy_s = sum(machine) - idle_s - guests_s - (steal_s or 0.0)
        now_s, roles = time.monotonic(), self.processes.look(status)
        if status is None:
            return Look(now_s, roles, busy_s, steal_s)
        self.status = status
        waiting = sum(status.queued.values()) + status.delayed
        has_work = bool(waiting or status.assigned)
        for one in status.workers:
            key = (one.worker, one.pid)
            if key not in self.workers:
                if len(self.workers) >= WORKERS_MAX:
                    continue
                # The tasks of a worker that joined since are all of this block.
                before = 0 if self.looks else one.finished
                self.workers[key] = SeenWorker(one.worker, one.host, one.pid, now_s, before=before)
            self.workers[key].note(one, now_s, has_work)
        held = sum(one.held > 0 for one in status.workers)
        counts = (waiting, status.assigned, len(status.workers), held)
        return Look(now_s, roles, busy_s, steal_s, status.counters, *counts)
