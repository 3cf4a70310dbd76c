"""A client's side of the protocol, sans-IO like the scheduler: its submissions and their outcomes.

exchange.py puts a socket around it, the simulator a network that loses, repeats and delays. It
takes no lock; its callers do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import msgspec

from cluster.protocol.reassembly import Reassemblies
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import (
    NO_REQUIREMENTS,
    NO_RETRY,
    Failure,
    Priority,
    Requirements,
    Retry,
)

RESEND_AFTER_S = 1.0
REMIND_AFTER_S = 5.0
MAX_RESENT = 256
MAX_RECENT = 4_096


class Options(NamedTuple):
    """The attributes that tasks of one run share besides their kind."""

    priority: Priority = Priority.NORMAL
    requirements: Requirements = NO_REQUIREMENTS
    timeout_s: float | None = None
    retry: Retry = NO_RETRY
    wait_for_worker: bool = False


class Submission:
    """A run as its client sees it; ``sink`` comes back to the caller with the outcomes."""

    __slots__ = (
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
        #: for repeats, until the coordinator has it
        self.event: on.TasksSubmitted | None = event
        self.run: int | None = None
        self.heard_at = now
        self.sent_at = event.sent_at
        #: one byte per task, 1 once its outcome is in
        self.seen = bytearray(self.count)

    def received(self) -> Iterator[tuple[int, int]]:
        """The ranges of positions that have their outcomes."""
        stop = 0
        while (start := self.seen.find(1, stop)) != -1:
            stop = self.seen.find(0, start)
            stop = self.count if stop == -1 else stop
            yield start, stop

    def is_quiet(self, now: float) -> bool:
        """Whether it has been silent for so long that a message may have got lost.

        An unanswered submission is repeated soon. An accepted one probably waits its turn, so its
        reminder comes late.
        """
        patience_s = REMIND_AFTER_S if self.event is None else RESEND_AFTER_S
        return now - self.heard_at >= patience_s


class Settled(NamedTuple):
    """New outcomes: ``results`` from position ``start`` on, ``b""`` for a failed task."""

    submission: Submission
    start: int
    results: list[bytes]
    failures: list[Failure]
    stamps: list[float]


class Refused(NamedTuple):
    """A submission that was refused as a whole, and why."""

    submission: Submission
    reason: str


News: TypeAlias = Settled | Refused | None


class ClientSession:
    """A client's open submissions. Each of its tasks is settled or refused exactly once."""

    def __init__(self, name: str, chunk_bytes: int = Limits().most_chunk_bytes) -> None:
        self.name = name
        self.open: dict[int, Submission] = {}
        self.heard_at: float | None = None
        self._next = 0
        #: finished submissions that the coordinator has to be told of, and those it was told of
        #: without an answer yet
        self._owed: list[int] = []
        self._told: list[int] = []
        #: received ranges (submission, start, stop) of unfinished submissions, to be told
        self._partly: list[tuple[int, int, int]] = []
        self.streams = Reassemblies(name, chunk_bytes)

    @property
    def owed(self) -> int:
        """The number of finished submissions that the coordinator still retains results of."""
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
            self.name,
            self._next,
            kind,
            payloads,
            *options[:4],
            sent_at=now if traced else None,
            wait_for_worker=options.wait_for_worker,
        )
        self.open[self._next] = Submission(event, sink, now)
        self._next += 1
        return event

    def handle(self, action: do.Action, now: float) -> News:
        """Take in one message from the coordinator; returns the news for the user."""
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
        elif isinstance(action, do.DeliverChunk):
            self.streams.arrived(action, now)
        elif isinstance(action, do.Offer):
            self._offered(action, now)
        elif isinstance(action, do.Confirm):
            return self._confirmed(action)
        elif isinstance(action, do.Withdraw):
            self.streams.withdrawn(action)
        elif isinstance(action, do.Greet):
            answered = set(action.received)
            self._told = [id for id in self._told if id not in answered]
        return None

    def answers(self) -> list[on.Event]:
        """The events that answer the messages taken in."""
        answers, self.streams.outbox = self.streams.outbox, []
        return answers

    def cancel(self, submission: Submission, positions: Sequence[int]) -> on.TasksCancelled:
        """The event that cancels the tasks at some positions, or all if ``positions`` is empty."""
        return on.TasksCancelled(self.name, submission.id, list(positions))

    def heartbeat(self, now: float) -> list[on.Event]:
        """The heartbeat, with receipts, and repeats of what seems to have got lost."""
        self._told += self._owed
        self._owed = []
        quiet = list(islice((s for s in self.open.values() if s.is_quiet(now)), MAX_RESENT))
        waiting = [(s.id, s.count - s.missing) for s in quiet if s.event is None]
        floor = next(iter(self.open), self._next)
        partly = [part for part in self._partly if part[0] in self.open]
        self._partly = partly[MAX_RECENT:]
        told = self._told[:MAX_RECENT]
        events: list[on.Event] = [
            on.ClientHeartbeat(self.name, floor, told, waiting, partly[:MAX_RECENT])
        ]
        for submission in quiet:
            submission.heard_at = now
            # A lost receipt may be what holds it back: the coordinator still retains the results.
            if len(self._partly) < MAX_RECENT:
                self._partly += [(submission.id, *part) for part in submission.received()]
            if submission.event is not None:
                events.append(submission.event)
        self.streams.repeat(now)
        return events + self.answers()

    def _offered(self, action: do.Offer, now: float) -> None:
        submission = self.open.get(action.submission)
        if submission is None or action.position >= submission.count:
            return
        submission.event = None
        submission.heard_at = now
        if not submission.seen[action.position]:
            self.streams.offered(action, now)

    def _confirmed(self, action: do.Confirm) -> News:
        submission, position = self.open.get(action.submission), action.position
        result = self.streams.confirmed(action)
        if submission is None or result is None:
            return None
        self._mark(submission, position, position + 1)
        return Settled(submission, position, [result], [], action.stamps)

    def _delivered(self, action: do.Deliver, now: float) -> News:
        submission = self.open.get(action.submission)
        start, stop = action.start, action.start + len(action.outcomes)
        if submission is None or stop > submission.count:
            return None
        submission.event = None
        submission.heard_at = now
        if action.failures and self.streams.open:
            failures = [self.streams.failure(submission.id, f) for f in action.failures]
            action = msgspec.structs.replace(action, failures=failures)
        if submission.seen.find(1, start, stop) != -1:
            return self._delivered_partly(submission, action)
        self._mark(submission, start, stop)
        return Settled(submission, start, action.outcomes, action.failures, action.stamps)

    def _delivered_partly(self, submission: Submission, action: do.Deliver) -> News:
        """The first new range of a repeat; further ones will be repeated."""
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
        if self.streams.open:
            self.streams.settled(submission.id, start, stop)
        if not submission.missing:
            del self.open[submission.id]
            self._owed.append(submission.id)
        elif self._partly and self._partly[-1][::2] == (submission.id, start):
            self._partly[-1] = (submission.id, self._partly[-1][1], stop)
        else:
            self._partly.append((submission.id, start, stop))
