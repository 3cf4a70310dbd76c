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

from cluster.protocol.stored_results import Gathered, StoredResults
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import NO_LOAD, Failure, Gpu, Load

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
        "kept",
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
        #: results too large for a report, once there is one, and what waits behind it
        self.kept: StoredResults | None = None

    def keep(self, position: int, result: bytes | bytearray | memoryview) -> None:
        """Keep a large result until its client has fetched it; ``b""`` stands for it among the
        outcomes.
        """
        if self.kept is None:
            self.kept = StoredResults()
        self.kept.put(position, result)

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
        most_kept_bytes: int = Limits().stored_result_bytes,
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
        #: leases with large results that are not fetched yet
        self.keeping: dict[int, HeldLease] = {}
        self._most_kept_bytes = most_kept_bytes
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
        beat = on.WorkerHeartbeat(self.name, self.epoch, list(self.leases), load)
        return [beat, *(e for lease in self.keeping.values() for e in self._announce(lease))]

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
                first = lease.next if lease.kept is None else lease.reported
                lease.cancelled.update(action.positions or range(first, lease.stop))
                return self._go_on(lease)
        elif isinstance(action, do.Read):
            return self._read(action)
        return []

    def take(self) -> HeldLease | None:
        """The oldest lease nobody works on, for whoever asks alone; None without work, or without
        room for more large results.
        """
        if self.keeping and self._kept_bytes() >= self._most_kept_bytes:
            return None
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
        if lease.kept is not None:
            self.keeping[lease.id] = lease
            lease.kept.behind.append(Gathered(outcomes, failures, started_at, ended_at))
            return self._go_on(lease)
        event = self._finished(lease, outcomes, failures, started_at, ended_at)
        if lease.reported >= lease.stop:
            self._close(lease)
        return [event]

    def give_back(self, lease: HeldLease) -> list[on.Event]:
        """Give back what is not started of a lease: it would wait behind a large result."""
        return self._release(lease) if self.leases.get(lease.id) is lease else []

    def drain(self) -> list[on.Event]:
        """Ask for no more work and give back what is not started."""
        if self.epoch is None:
            return []
        self.draining = True
        events = self._farewell()
        for lease in list(self.leases.values()):
            events += self._release(lease)
        return events

    def through(self, forsaken: bool) -> bool:
        """Whether nothing is left to finish; large results do not count if nobody fetches them."""
        return not self.leases or (forsaken and all(x.kept for x in self.leases.values()))

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

    def _finished(
        self,
        lease: HeldLease,
        outcomes: list[bytes],
        failures: list[Failure],
        started_at: float,
        ended_at: float,
    ) -> on.TasksFinished:
        start = lease.reported
        lease.reported += len(outcomes)
        return on.TasksFinished(
            self.name, lease.epoch, lease.id, start, outcomes, failures, started_at, ended_at
        )

    # Large results

    def _kept_bytes(self) -> int:
        """Bytes of large results that are not fetched yet."""
        return sum(lease.kept.size_bytes for lease in self.keeping.values() if lease.kept)

    def _go_on(self, lease: HeldLease) -> list[on.Event]:
        """Report what stands before the next large result that is wanted, and announce that one."""
        if lease.kept is None:
            return []
        lease.kept.drop(lease.cancelled)
        events: list[on.Event] = []
        while (ready := lease.kept.take(lease.reported)) is not None:
            events.append(self._finished(lease, *ready))
        if lease.reported >= lease.stop:
            self._close(lease)
        elif not lease.kept.results:
            self.keeping.pop(lease.id, None)
        return events + self._announce(lease)

    def _announce(self, lease: HeldLease) -> list[on.Event]:
        """The news that the next task of a lease has a large result."""
        position = lease.reported
        if lease.kept is None or (size_bytes := lease.kept.announced(position)) is None:
            return []
        times = lease.kept.times()
        news = on.ResultStored(self.name, lease.epoch, lease.id, position, size_bytes, *times)
        return [news]

    def _read(self, action: do.Read) -> list[on.Event]:
        """A chunk of a result, uncopied; nothing when it is not there any more."""
        lease, position = self.leases.get(action.lease), action.position
        if lease is None or lease.kept is None or action.epoch != lease.epoch:
            return []
        chunk = lease.kept.chunk(position, action.offset, action.size_bytes)
        if chunk is None:
            return []
        return [on.ChunkRead(self.name, lease.epoch, lease.id, position, action.offset, [chunk])]

    def _close(self, lease: HeldLease) -> None:
        del self.leases[lease.id]
        self.keeping.pop(lease.id, None)

    def _drop_all(self) -> None:
        for lease in self.leases.values():
            lease.give_back()
        self.leases.clear()
        self.keeping.clear()
        self.ready.clear()
        # Under another epoch it may be another coordinator, which counts its leases from 1 again.
        self._recent.clear()
