"""The peers' side of the protocol, sans-IO like the scheduler: what a client and a worker remember
and answer.

The shells (client.py, worker.py) put sockets around these, the simulator puts them on a network
that loses, repeats and delays. Neither class takes a lock: a shell whose threads share one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from cluster import actions as do
from cluster import events as on
from cluster.task import (
    NO_LOAD,
    NO_REQUIREMENTS,
    NO_RETRY,
    Failure,
    Gpu,
    Load,
    Priority,
    Requirements,
    Retry,
)

RESEND_AFTER_S = 1.0
REMIND_AFTER_S = 5.0
MAX_RESENT = 256
MAX_RECENT = 4_096


class Options(NamedTuple):
    """What tasks of one run share besides their kind."""

    priority: Priority = Priority.NORMAL
    requirements: Requirements = NO_REQUIREMENTS
    timeout_s: float | None = None
    retry: Retry = NO_RETRY


class Submission:
    """A run as its client sees it; ``sink`` is whatever the shell wants back with the outcomes."""

    __slots__ = (
        "accepted",
        "count",
        "event",
        "heard_at",
        "id",
        "missing",
        "run",
        "seen",
        "sent_at",
        "sink",
    )

    def __init__(self, event: on.TasksSubmitted, sink: Any, now: float) -> None:
        self.id = event.submission
        self.sink = sink
        self.count = self.missing = len(event.payloads)
        #: kept until the coordinator says that it has it
        self.event: on.TasksSubmitted | None = event
        self.run: int | None = None
        self.heard_at = now
        self.sent_at = event.sent_at
        #: one byte per task, 1 once its outcome is in
        self.seen = bytearray(self.count)

    def is_quiet(self, now: float) -> bool:
        """Whether so long nothing was heard of it that a message may have got lost.

        A repeat of what is unanswered comes soon, a reminder of what is accepted late: on a network
        that keeps its promises it is only waiting its turn.
        """
        patience_s = REMIND_AFTER_S if self.event is None else RESEND_AFTER_S
        return now - self.heard_at >= patience_s


class Settled(NamedTuple):
    """Outcomes that came in for the first time: ``results`` from ``start`` on, ``b""`` where a
    failure stands.
    """

    submission: Submission
    start: int
    results: list[bytes]
    failures: list[Failure]
    stamps: list[float]


class Refused(NamedTuple):
    """A submission of which nothing was taken, and why."""

    submission: Submission
    reason: str


News: TypeAlias = Settled | Refused | None


class ClientSession:
    """What a client has handed in and not got back. Every task it submits is settled or refused
    exactly once.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.open: dict[int, Submission] = {}
        self.heard_at: float | None = None
        self._next = 0
        #: over, not yet told to the coordinator; and told, but not yet answered
        self._owed: list[int] = []
        self._told: list[int] = []

    @property
    def owed(self) -> int:
        """How many submissions are over that the coordinator still keeps results for."""
        return len(self._owed)

    def submit(
        self,
        kind: str,
        payloads: list[bytes],
        options: Options,
        sink: Any,
        now: float,
        traced: bool = False,
    ) -> on.TasksSubmitted:
        """Open a submission; returns the event to send."""
        event = on.TasksSubmitted(
            self.name, self._next, kind, payloads, *options, sent_at=now if traced else None
        )
        self.open[self._next] = Submission(event, sink, now)
        self._next += 1
        return event

    def handle(self, action: do.Action, now: float) -> News:
        """Take in one message from the coordinator; returns what is new to the user."""
        self.heard_at = now
        if isinstance(action, do.Deliver):
            return self._delivered(action, now)
        if isinstance(action, do.Accept):
            submission = self.open.get(action.submission)
            if submission is not None:
                submission.heard_at = now
                submission.run = action.run
                submission.event = None
        elif isinstance(action, do.Refuse):
            submission = self.open.pop(action.submission, None)
            if submission is not None:
                return Refused(submission, action.reason)
        elif isinstance(action, do.Greet):
            answered = set(action.received)
            self._told = [id for id in self._told if id not in answered]
        return None

    def cancel(self, submission: Submission, positions: Sequence[int]) -> on.TasksCancelled:
        """The event that asks for the cancellation of some tasks, or of all when none is named."""
        return on.TasksCancelled(self.name, submission.id, list(positions))

    def heartbeat(self, now: float) -> list[on.Event]:
        """What to say now: alive, what was received, what seems to have got lost."""
        self._told += self._owed
        self._owed = []
        quiet = list(islice((s for s in self.open.values() if s.is_quiet(now)), MAX_RESENT))
        waiting = [(s.id, s.count - s.missing) for s in quiet if s.event is None]
        floor = next(iter(self.open), self._next)
        events: list[on.Event] = [
            on.ClientHeartbeat(self.name, floor, self._told[:MAX_RECENT], waiting)
        ]
        for submission in quiet:
            submission.heard_at = now
            if submission.event is not None:
                events.append(submission.event)
        return events

    def _delivered(self, action: do.Deliver, now: float) -> News:
        submission = self.open.get(action.submission)
        start, stop = action.start, action.start + len(action.outcomes)
        if submission is None or stop > submission.count:
            return None
        submission.event = None
        submission.heard_at = now
        if submission.seen.find(1, start, stop) != -1:
            return self._delivered_partly(submission, action)
        self._mark(submission, start, stop)
        return Settled(submission, start, action.outcomes, action.failures, action.stamps)

    def _delivered_partly(self, submission: Submission, action: do.Deliver) -> News:
        """A repeat that holds something new: cut out its first new stretch; the rest will be
        repeated too.
        """
        start, end = action.start, action.start + len(action.outcomes)
        first = submission.seen.find(0, start, end)
        if first == -1:
            return None
        stop = submission.seen.find(1, first, end)
        stop = end if stop == -1 else stop
        self._mark(submission, first, stop)
        failures = [f for f in action.failures if first <= f.position < stop]
        results = action.outcomes[first - start : stop - start]
        return Settled(submission, first, results, failures, action.stamps)

    def _mark(self, submission: Submission, start: int, stop: int) -> None:
        submission.seen[start:stop] = b"\x01" * (stop - start)
        submission.missing -= stop - start
        if not submission.missing:
            del self.open[submission.id]
            self._owed.append(submission.id)


class HeldLease:
    """A lease in a worker's hands: positions before ``next`` are started, those from ``stop`` on
    given back.
    """

    __slots__ = (
        "cancelled",
        "epoch",
        "id",
        "kind",
        "next",
        "payloads",
        "reported",
        "start",
        "stop",
    )

    def __init__(self, action: do.Assign) -> None:
        self.id = action.lease
        self.epoch = action.epoch
        self.kind = action.kind
        self.payloads = action.payloads
        self.start = self.next = self.reported = action.start
        self.stop = action.start + len(action.payloads)
        #: nobody waits for these; they are skipped if they have not been started
        self.cancelled: set[int] = set()


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
        self._recent: deque[int] = deque(maxlen=MAX_RECENT)
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
            if lease.next < lease.stop:
                return lease
        return None

    def claim(self, lease: HeldLease, most: int) -> list[bytes]:
        """Start the next tasks of a lease, at most ``most``: their payloads; empty when nothing is
        left of it.
        """
        start, lease.next = lease.next, min(lease.next + most, lease.stop)
        return lease.payloads[start - lease.start : lease.next - lease.start]

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
        self._recent.append(action.lease)
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
        if lease.next >= lease.stop:
            return []
        lease.stop = lease.next
        if lease.reported >= lease.stop:
            self._close(lease)
        return [on.TasksReleased(self.name, lease.epoch, lease.id, lease.stop)]

    def _close(self, lease: HeldLease) -> None:
        del self.leases[lease.id]

    def _drop_all(self) -> None:
        for lease in self.leases.values():
            lease.stop = lease.next
        self.leases.clear()
        self.ready.clear()
        # Under another epoch it may be another coordinator, which counts its leases from 1 again.
        self._recent.clear()
