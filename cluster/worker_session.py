"""A worker's side of the protocol, sans-IO like the scheduler: what it holds, under which epoch.

The shell (worker.py) puts sockets and threads around it, the simulator a network that loses,
repeats and delays. It takes no lock, with one exception that needs none: the tasks of a lease that
are not started wait in a deque, from whose left end they are claimed and from whose right end they
are given back, by different threads, one atomic step a task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from cluster import actions as do
from cluster import events as on
from cluster.task import NO_LOAD, Failure, Gpu, Load

MAX_RECENT = 4_096


class HeldLease:
    """A lease in a worker's hands: positions before ``next`` are started, those from ``stop`` on
    given back.
    """

    __slots__ = (
        "cancelled",
        "cut",
        "epoch",
        "id",
        "kind",
        "next",
        "pending",
        "reported",
        "start",
        "stop",
    )

    def __init__(self, action: do.Assign) -> None:
        self.id = action.lease
        self.epoch = action.epoch
        self.kind = action.kind
        #: payloads not started, from position ``next`` on
        self.pending = deque(action.payloads)
        self.start = self.next = self.reported = action.start
        self.stop = action.start + len(action.payloads)
        #: whether some of it was given back
        self.cut = False
        #: nobody waits for these; they are skipped if they have not been started
        self.cancelled: set[int] = set()

    def claim(self, most: int) -> list[bytes]:
        """Start the next tasks, at most ``most``: their payloads; empty when nothing is left."""
        payloads: list[bytes] = []
        # Less may be there than is asked for, or be given back meanwhile.
        with suppress(IndexError):
            payloads.extend(self.pending.popleft() for _ in range(most))
        self.next += len(payloads)
        return payloads

    def give_back(self) -> None:
        """Give back whatever is not started."""
        with suppress(IndexError):
            while True:
                self.pending.pop()
                self.stop -= 1
                self.cut = True


class WorkerSession:
    """What a worker holds, under which epoch. Work is claimed from it and reported through it."""

    def __init__(
        self,
        name: str,
        incarnation: int,
        capacity: int,
        credit: int,
        kinds: Sequence[str],
        models: Sequence[str] = (),
        gpus: Sequence[Gpu] = (),
        host: str = "?",
        pid: int = 0,
    ) -> None:
        self.name = name
        self.incarnation = incarnation
        self.epoch: int | None = None
        self.heartbeat_s: float | None = None
        self.draining = False
        self.leases: dict[int, HeldLease] = {}
        #: leases in the order of their arrival that still hold something unstarted
        self.ready: deque[HeldLease] = deque()
        #: the last leases taken in, so that a repeated message does not start one again
        self._recent: dict[int, None] = {}
        offers = list(kinds), list(models), list(gpus)
        self._introduction = on.WorkerJoined(
            name, incarnation, capacity, credit, *offers, host, pid
        )

    def introduction(self) -> list[on.Event]:
        """What to say while the coordinator has not said welcome: who it is, what it offers."""
        return [self._introduction] if self.epoch is None else []

    def heartbeat(self, load: Load = NO_LOAD) -> list[on.Event]:
        """What to say regularly once it is welcome: alive, what it holds, how its host is."""
        if self.epoch is None:
            return []
        return [on.WorkerHeartbeat(self.name, self.epoch, list(self.leases), load)]

    def handle(self, action: do.Action) -> list[on.Event]:
        """Take in one message from the coordinator; returns what to answer."""
        if isinstance(action, do.Assign):
            return self._assigned(action)
        if isinstance(action, do.Welcome):
            if action.incarnation == self.incarnation and action.epoch != self.epoch:
                self._drop_all()
                self.epoch = action.epoch
                self.heartbeat_s = action.heartbeat_s
                return self._farewell() if self.draining else []
        elif isinstance(action, do.Disconnect):
            if self.epoch is None or action.epoch == self.epoch:
                self._drop_all()
                self.epoch = None
        elif isinstance(action, do.Recall):
            lease = self.leases.get(action.lease)
            return self._release(lease) if lease is not None else []
        elif isinstance(action, do.Cancel):
            lease = self.leases.get(action.lease)
            if lease is not None:
                lease.cancelled.update(action.positions or range(lease.next, lease.stop))
        return []

    def take(self) -> HeldLease | None:
        """The oldest lease nobody works on, for whoever asks alone; None without work."""
        while self.ready:
            lease = self.ready.popleft()
            if lease.pending:
                return lease
        return None

    def report(
        self,
        lease: HeldLease,
        outcomes: list[bytes],
        failures: list[Failure],
        started_at: float,
        ended_at: float,
    ) -> list[on.Event]:
        """Outcomes of the next tasks of a lease, in order; nothing if the lease is not held any
        more.
        """
        if self.leases.get(lease.id) is not lease:
            return []
        start = lease.reported
        lease.reported += len(outcomes)
        if lease.reported >= lease.stop:
            self._close(lease)
        return [
            on.TasksFinished(
                self.name,
                lease.epoch,
                lease.id,
                start,
                outcomes,
                failures,
                started_at,
                ended_at,
            )
        ]

    def drain(self) -> list[on.Event]:
        """Ask for no more work and give back what is not started."""
        if self.epoch is None:
            return []
        self.draining = True
        events = self._farewell()
        for lease in list(self.leases.values()):
            events += self._release(lease)
        return events

    def leave(self, reason: str = "") -> list[on.Event]:
        """Say goodbye; whatever is still held is dropped."""
        epoch, self.epoch = self.epoch, None
        self._drop_all()
        return [] if epoch is None else [on.WorkerLeft(self.name, epoch, reason)]

    def _assigned(self, action: do.Assign) -> list[on.Event]:
        if action.epoch != self.epoch or action.lease in self._recent:
            return []
        self._recent[action.lease] = None
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]
        lease = self.leases[action.lease] = HeldLease(action)
        if self.draining:
            return self._farewell() + self._release(lease)
        self.ready.append(lease)
        return []

    def _farewell(self) -> list[on.Event]:
        """Whoever still sends work has not heard, or has forgotten, that this worker drains."""
        assert self.epoch is not None
        return [on.WorkerDraining(self.name, self.epoch)]

    def _release(self, lease: HeldLease) -> list[on.Event]:
        lease.give_back()
        if not lease.cut:  # else it is said again: whoever asks again has not heard
            return []
        if lease.reported >= lease.stop:
            self._close(lease)
        return [on.TasksReleased(self.name, lease.epoch, lease.id, lease.stop)]

    def _close(self, lease: HeldLease) -> None:
        del self.leases[lease.id]

    def _drop_all(self) -> None:
        for lease in self.leases.values():
            lease.give_back()
        self.leases.clear()
        self.ready.clear()
        # Under another epoch it may be another coordinator, which counts its leases from 1 again.
        self._recent.clear()
