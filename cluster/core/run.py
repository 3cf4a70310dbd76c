"""Runs and leases: the work itself, kept as ranges.

A run holds what its tasks share once, their payloads as a column, and which ranges of it wait,
for what. A lease is a slice of a run in the hands of one worker. A range carries what its tasks
have been through, so that tasks with one history stay one range.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, cast

import msgspec

from cluster.core.worker import WorkerState
from cluster.vocabulary.events import TasksSubmitted
from cluster.vocabulary.lifecycle import TRANSITIONS, Cause
from cluster.vocabulary.task import Failure, Requirements, RunId, State

Needs: TypeAlias = tuple[str, Requirements]
#: entries as plain tuples: one is written for each lease, and hardly any is ever read
Line: TypeAlias = tuple[float, Cause, State, int, int, str]


class Streamed(NamedTuple):
    """A result that went past in chunks, kept by its worker under a lease until its client had it
    whole.
    """

    lease: int


class Received(NamedTuple):
    """What its client has of a run that is not over: nobody asks for it again."""


RECEIVED = Received()
Outcome: TypeAlias = bytes | Failure | Streamed | Received


class Range(NamedTuple):
    """Positions ``start <= p < stop`` of a run that have failed ``attempts`` times and lost
    ``deaths`` workers.
    """

    start: int
    stop: int
    attempts: int = 0
    deaths: int = 0


Waiting: TypeAlias = tuple[Sequence[Range], Sequence[Range]]
#: what waits of a run that has been through nothing, if it is of one task; and of one that is out
ALONE: Waiting = ((Range(0, 1),), ())
NOTHING: Waiting = ((), ())
#: up to this size an object is in one of the arenas of Python's allocator (Objects/obmalloc.c)
SMALL_BYTES = 512
FILLING = bytes(SMALL_BYTES)
_PAST = msgspec.msgpack.Encoder()


class Entry(NamedTuple):
    """One line of a story: when, what made a range move, to which state, and who was involved."""

    at_s: float
    cause: str
    state: str
    start: int
    stop: int
    detail: str


class Run:
    """Tasks that came together and share every attribute.

    Where tasks are submitted one by one each is a run, and a million of them may wait. So what most
    never have is not made beforehand, and what all have at first is one for all.
    """

    __slots__ = (
        "_story",
        "accepted_at",
        "client",
        "count",
        "delayed",
        "id",
        "leases",
        "lines",
        "needs",
        "omitted",
        "open",
        "outcomes",
        "payloads",
        "priority",
        "retained_bytes",
        "retry",
        "stamps",
        "submission",
        "waiting",
    )

    def __init__(self, id: RunId, event: TasksSubmitted, now: float) -> None:
        self.id = id
        self.client = event.client
        self.submission = event.submission
        self.needs: Needs = (event.kind, event.requirements)
        self.priority = event.priority
        self.retry = event.retry
        self.count = len(event.payloads)
        #: where there is one, itself
        self.payloads: list[bytes] | bytes = event.payloads
        if self.count == 1:
            self.payloads = event.payloads[0]
        self.accepted_at = now
        #: ready to be leased, sorted and disjoint: those who saw no worker die, and the suspects
        self.waiting: Waiting = ALONE if self.count == 1 else ([Range(0, self.count)], [])
        #: single positions waiting for their next attempt
        self.delayed: dict[int, Range] | None = None
        #: the live ones, by their ids
        self.leases: dict[int, Lease] | None = None
        #: as bits, whether the queue holds an entry for the former, and for the latter
        self.lines = 0
        #: one per task once anything is settled; None where a task is not terminal
        self.outcomes: list[Outcome | None] | None = None
        #: how many tasks are not terminal
        self.open = self.count
        self.retained_bytes = 0
        #: the later half is overwritten in turn when there is no room left
        self._story: list[Line] | None = None
        self.omitted = 0
        self.stamps: list[float] | None = None if event.sent_at is None else [now]

    @property
    def payload_bytes(self) -> int:
        """What its payloads hold, which is nothing once every task is terminal."""
        payloads = self.payloads
        return sum(map(len, payloads)) if isinstance(payloads, list) else len(payloads)

    def take(self, most: int, suspect: bool) -> Range:
        """Remove and return at most ``most`` tasks from the front of the first waiting range."""
        if self.waiting is ALONE:
            self.waiting = NOTHING
            return ALONE[0][0]
        waiting = self._waiting_lists()[suspect]
        first = waiting[0]
        stop = first.start + most
        if stop >= first.stop:
            return waiting.pop(0)
        waiting[0] = Range(stop, *first[1:])
        return Range(first.start, stop, *first[2:])

    def put_back(self, piece: Range) -> None:
        """Let a range wait in its place, joined with its neighbours where they have been through
        the same.
        """
        waiting = self._waiting_lists()[piece.deaths > 0]
        at = bisect_left(waiting, piece)
        if at < len(waiting) and (piece.stop, *piece[2:]) == (waiting[at].start, *waiting[at][2:]):
            piece = piece._replace(stop=waiting.pop(at).stop)
        if at and (waiting[at - 1].stop, *waiting[at - 1][2:]) == (piece.start, *piece[2:]):
            at -= 1
            piece = piece._replace(start=waiting.pop(at).start)
        waiting.insert(at, piece)

    def withdraw(self, start: int, stop: int) -> list[Range]:
        """Remove and return whatever waits of positions ``start <= p < stop``."""
        taken: list[Range] = []
        for waiting in self._waiting_lists():
            kept: list[Range] = []
            for piece in waiting:
                low, high = max(start, piece.start), min(stop, piece.stop)
                if low >= high:
                    kept.append(piece)
                    continue
                taken.append(piece._replace(start=low, stop=high))
                if piece.start < low:
                    kept.append(piece._replace(stop=low))
                if high < piece.stop:
                    kept.append(piece._replace(start=high))
            waiting[:] = kept
        return sorted(taken)

    def _waiting_lists(self) -> tuple[list[Range], list[Range]]:
        """The ranges that wait, to be changed: lists of this run's own."""
        if self.waiting is ALONE or self.waiting is NOTHING:
            self.waiting = ([*self.waiting[0]], [])
        return cast("tuple[list[Range], list[Range]]", self.waiting)

    def hold(self, lease: Lease) -> None:
        """A slice of this run is in a worker's hands."""
        if self.leases is None:
            self.leases = {}
        self.leases[lease.id] = lease

    def release(self, lease: Lease) -> None:
        """It is not any more."""
        assert self.leases is not None
        del self.leases[lease.id]

    def settle(self, start: int, outcomes: Sequence[Outcome], size_bytes: int) -> None:
        """Write terminal outcomes for the positions from ``start`` on."""
        if self.outcomes is None:
            self.outcomes = [None] * self.count
        self.outcomes[start : start + len(outcomes)] = outcomes
        self.open -= len(outcomes)
        self.retained_bytes += size_bytes

    def let_go(self, start: int, stop: int) -> int:
        """Keep no longer what is settled of positions ``start <= p < stop``; returns its bytes."""
        freed_bytes, outcomes = 0, self.outcomes or []
        for position in range(start, min(stop, len(outcomes))):
            outcome = outcomes[position]
            if isinstance(outcome, bytes | Failure):
                kept = outcome.message if isinstance(outcome, Failure) else outcome
                freed_bytes += len(kept)
                outcomes[position] = RECEIVED
        self.retained_bytes -= freed_bytes
        return freed_bytes

    def outcome(self, position: int) -> Outcome | None:
        """How the task at ``position`` ended; None if it has not, or is not there."""
        return self.outcomes[position] if self.outcomes and position < self.count else None

    def note(
        self,
        state: State,
        cause: Cause,
        start: int,
        stop: int,
        detail: str,
        now: float,
        most: int,
    ) -> None:
        """Write a move out of ``state`` into the story; at ``most`` entries the one in the middle
        gives way.

        A move that TRANSITIONS does not have raises KeyError: that is a bug here, never an input.
        """
        line = (now, cause, TRANSITIONS[state][cause], start, stop, detail)
        story = self._story
        if story is None:
            self._story = [line]
            return
        if len(story) < most:
            story.append(line)
            return
        half = most // 2
        story[half + self.omitted % (most - half)] = line
        self.omitted += 1

    @property
    def story(self) -> list[Entry]:
        """What was noted, in order, without the ``omitted`` lines of its middle."""
        return [Entry(*line) for line in self.noted()]

    def noted(self) -> list[Line]:
        """The story as it was noted."""
        lines = self._story or []
        if self.omitted:
            half = len(lines) // 2
            oldest = half + self.omitted % (len(lines) - half)
            lines = lines[:half] + lines[oldest:] + lines[half:oldest]
        return lines


class Past(msgspec.Struct, array_like=True):
    """A run that is over and received, kept, packed, for its story.

    As objects its lines would be ten times as large, and each would hold on to the memory around
    it: Python's allocator gives an arena of a MiB back only when nothing in it is left. What is
    larger than SMALL_BYTES does not come from there, so every story is made that long.
    """

    id: RunId
    client: str
    accepted_at: float
    count: int
    story: list[Entry]
    filling: bytes = b""


def pack(run: Run) -> bytes:
    """A run's Past, for `unpack`."""
    return _PAST.encode((run.id, run.client, run.accepted_at, run.count, run.noted(), FILLING))


def unpack(packed: bytes) -> Past:
    """What `pack` packed."""
    return msgspec.msgpack.decode(packed, type=Past)


class Stream:
    """A large result in its worker's hands: the place of its task, and whether its client has begun
    to fetch it.
    """

    __slots__ = ("begun", "position", "size_bytes")

    def __init__(self, position: int, size_bytes: int) -> None:
        self.position = position
        self.size_bytes = size_bytes
        self.begun = False


class Lease:
    """A slice of a run in the hands of one worker; its id is never used again, so a late message
    can't pass for another.
    """

    __slots__ = (
        "assigned_at",
        "attempts",
        "deaths",
        "id",
        "missing_since",
        "next",
        "recalled_at",
        "revoked",
        "run",
        "stop",
        "stream",
        "worker",
    )

    def __init__(self, id: int, run: Run, piece: Range, worker: WorkerState, now: float) -> None:
        self.id = id
        self.run = run
        self.worker = worker
        #: positions before this one are settled or requeued
        self.next = piece.start
        self.stop = piece.stop
        self.attempts = piece.attempts
        self.deaths = piece.deaths
        #: positions nobody wants any more: already terminal, still in the worker's hands
        self.revoked: set[int] | None = None
        self.assigned_at = now
        self.recalled_at: float | None = None
        self.missing_since: float | None = None
        #: the last large result announced: open while its position is ``next``. All of the lease is
        #: through or given back, and takes up no more of its worker's credit
        self.stream: Stream | None = None

    def stream_at(self, position: int) -> Stream | None:
        """The large result of the task at ``position``, if it is there to be fetched."""
        if self.stream is None or not self.stream.position == position == self.next:
            return None
        return None if self.revoked and position in self.revoked else self.stream

    def pieces(self, start: int, stop: int) -> list[Range]:
        """What is still wanted of positions ``start <= p < stop``, as ranges."""
        if not self.revoked:
            return [Range(start, stop, self.attempts, self.deaths)] if start < stop else []
        pieces: list[Range] = []
        for hole in [*sorted(p for p in self.revoked if start <= p < stop), stop]:
            if start < hole:
                pieces.append(Range(start, hole, self.attempts, self.deaths))
            start = hole + 1
        return pieces
