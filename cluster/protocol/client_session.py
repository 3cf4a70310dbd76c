"""A client's side of the protocol, sans-IO like the scheduler: its submissions and their outcomes.

exchange.py puts a socket around it, the simulator a network that loses, repeats and delays. It
takes no lock; its callers do.
"""

from __future__ import annotations

import math
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
#: the coordinator ends a task at its time limit; if it says nothing for so long, the client does
EXPIRY_MARGIN_S = 2.0
#: submissions that a heartbeat repeats, and all that it asks for; a coordinator answers as many
MAX_RESENT = 256
MAX_ASKED = 1_024
MAX_RECENT = 4_096


class Options(NamedTuple):
    """The attributes that tasks of one run share besides their kind."""

    priority: Priority = Priority.NORMAL
    requirements: Requirements = NO_REQUIREMENTS
    timeout_s: float | None = None
    retry: Retry = NO_RETRY
    wait_for_worker: bool = False
    #: it may run twice, so it is handed in again if the coordinator loses it
    idempotent: bool = False


def as_event(
    client: str,
    submission: int,
    kind: str,
    payloads: list[bytes],
    options: Options,
    sent_at: float | None = None,
) -> on.TasksSubmitted:
    """The message that hands in a run."""
    priority, requirements, timeout_s, retry, wait_for_worker, _ = options
    attributes = priority, requirements, timeout_s, retry, sent_at, wait_for_worker
    return on.TasksSubmitted(client, submission, kind, payloads, *attributes)


class Submission:
    """A run as its client sees it; ``sink`` comes back to the caller with the outcomes."""

    __slots__ = (
        "count",
        "event",
        "expires_at",
        "heard_at",
        "id",
        "missing",
        "options",
        "run",
        "seen",
        "sent_at",
        "sink",
        "work",
    )

    def __init__(self, event: on.TasksSubmitted, options: Options, sink: Any, now: float) -> None:
        self.id = event.submission
        self.sink = sink
        self.count = self.missing = len(event.payloads)
        #: for repeats, until the coordinator has it
        self.event: on.TasksSubmitted | None = event
        #: for a coordinator that was restarted, until the last outcome
        self.work = event
        self.options = options
        self.run: int | None = None
        self.heard_at = now
        self.expires_at = math.inf
        if options.timeout_s is not None:
            self.expires_at = now + options.timeout_s + EXPIRY_MARGIN_S
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
    """A submission that was refused as a whole, why, and the name of the exception for that."""

    submission: Submission
    reason: str
    error: str


#: stands for what was submitted once that is over
NOTHING = on.TasksSubmitted("", 0, "", [])

News: TypeAlias = Settled | Refused | None


class ClientSession:
    """A client's open submissions. Each of its tasks is settled or refused exactly once."""

    def __init__(self, name: str, chunk_bytes: int = Limits().most_chunk_bytes) -> None:
        self.name = name
        self.open: dict[int, Submission] = {}
        self.heard_at: float | None = None
        #: accepted submissions are in doubt, so the next heartbeat should not wait
        self.is_hurried = False
        self._expires_at = math.inf
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
        sent_at = now if traced else None
        event = as_event(self.name, self._next, kind, payloads, options, sent_at)
        self._open(Submission(event, options, sink, now))
        return event

    def resubmit(self, submission: Submission, now: float) -> list[on.Event]:
        """The events that hand in a lost submission again, without the tasks that have outcomes."""
        event = msgspec.structs.replace(submission.work, submission=self._next)
        submission.id, submission.event, submission.work = self._next, event, event
        submission.heard_at, submission.run = now, None
        self._open(submission)
        positions = [p for start, stop in submission.received() for p in range(start, stop)]
        return [event, self.cancel(submission, positions)] if positions else [event]

    def drop(self, submission: Submission) -> None:
        """Forget a submission; the coordinator will hear that it is over."""
        if self.open.pop(submission.id, None) is not None:
            self._owed.append(submission.id)
            self.streams.settled(submission.id, 0, submission.count)

    def expired(self, now: float) -> list[Submission]:
        """The open submissions that should have been ended by the coordinator, and are dropped."""
        if now < self._expires_at:
            return []
        expired = [one for one in self.open.values() if one.expires_at <= now]
        for submission in expired:
            self.drop(submission)
        self._expires_at = min((one.expires_at for one in self.open.values()), default=math.inf)
        return expired

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
                return Refused(submission, action.reason, action.error)
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
        elif isinstance(action, do.Meet):
            self._doubt()
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
        quiet = list(islice((s for s in self.open.values() if s.is_quiet(now)), MAX_ASKED))
        waiting = [(s.id, s.count - s.missing) for s in quiet if s.event is None]
        self.is_hurried = self.is_hurried and len(quiet) == MAX_ASKED
        floor = next(iter(self.open), self._next)
        partly = [part for part in self._partly if part[0] in self.open]
        self._partly = partly[MAX_RECENT:]
        told = self._told[:MAX_RECENT]
        events: list[on.Event] = [
            on.ClientHeartbeat(self.name, floor, told, waiting, partly[:MAX_RECENT])
        ]
        repeats = 0
        for submission in quiet:
            if submission.event is not None:
                repeats += 1
                if repeats > MAX_RESENT:
                    continue
                events.append(submission.event)
            submission.heard_at = now
            # A lost receipt may be what holds it back: the coordinator still retains the results.
            if len(self._partly) < MAX_RECENT:
                self._partly += [(submission.id, *part) for part in submission.received()]
        self.streams.repeat(now)
        return events + self.answers()

    def _open(self, submission: Submission) -> None:
        self.open[self._next] = submission
        self._next += 1
        self._expires_at = min(self._expires_at, submission.expires_at)

    def _doubt(self) -> None:
        """Ask for each submission that was accepted, perhaps by another coordinator."""
        for submission in self.open.values():
            if submission.event is None:
                submission.heard_at = -math.inf
                self.is_hurried = True

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
            submission.work = NOTHING  # a future may outlive its payload
        elif self._partly and self._partly[-1][::2] == (submission.id, start):
            self._partly[-1] = (submission.id, self._partly[-1][1], stop)
        else:
            self._partly.append((submission.id, start, stop))
