"""Runs: the work itself, kept as ranges.

A run holds the attributes of its tasks once, their payloads as a column, and the ranges that wait.
A range carries the attempts and deaths of its tasks, so tasks with the same history stay one range.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, cast

import msgspec

from cluster.vocabulary.events import TasksSubmitted
from cluster.vocabulary.lifecycle import TRANSITIONS, Cause
from cluster.vocabulary.task import Failure, Priority, Requirements, RunId, State

Needs: TypeAlias = tuple[str, Requirements]
#: an Entry as a plain tuple: one is written for each lease, and hardly any is ever read
RawEntry: TypeAlias = tuple[float, Cause, State, int, int, str]


class Streamed(NamedTuple):
    """Placeholder of a result that its client fetched in chunks, under this lease."""

    lease: int


class Received(NamedTuple):
    """Placeholder of an outcome that its client has, in a run that goes on."""


RECEIVED = Received()
Outcome: TypeAlias = bytes | Failure | Streamed | Received


class Range(NamedTuple):
    """Positions ``start <= p < stop`` of a run, with their failed attempts and lost workers."""

    start: int
    stop: int
    attempts: int = 0
    deaths: int = 0


Waiting: TypeAlias = tuple[Sequence[Range], Sequence[Range]]
#: shared by all runs of one task: before their first lease, and while they are leased
ALONE: Waiting = ((Range(0, 1),), ())
NOTHING: Waiting = ((), ())
#: up to this size Python's allocator puts an object into an arena (Objects/obmalloc.c)
SMALL_BYTES = 512
FILLING = bytes(SMALL_BYTES)
#: a story in a failure's message, which is a Text
MAX_STORY_CHARS = 16_000
_PAST = msgspec.msgpack.Encoder()


class Entry(NamedTuple):
    """One entry of a story: when, why and to which state a range moved, and who was involved."""

    at_s: float
    cause: str
    state: str
    start: int
    stop: int
    detail: str


def as_text(story: Sequence[Entry], last: str) -> str:
    """A story, a line each, without its middle if that is too long for a failure's message."""
    lines = [f"{e.at_s:.3f} {e.cause} → {e.state}: {e.detail}" for e in story]
    text = "\n".join([*lines, last])
    half = MAX_STORY_CHARS // 2
    return text if len(text) <= MAX_STORY_CHARS else f"{text[:half]}\n…\n{text[-half:]}"


class Run:
    """Tasks that came together and share every attribute.

    A million runs of one task may wait, so rare parts are made when they are needed and initial
    values are shared.
    """

    __slots__ = (
        "_story",
        "accepted_at",
        "client",
        "count",
        "delayed",
        "due_at",
        "id",
        "is_patient",
        "leases",
        "needs",
        "omitted",
        "open",
        "outcomes",
        "payloads",
        "priority",
        "queued_bits",
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
        #: a single payload is held without a list
        self.payloads: list[bytes] | bytes = event.payloads
        if self.count == 1:
            self.payloads = event.payloads[0]
        self.accepted_at = now
        self.due_at = None if event.timeout_s is None else now + event.timeout_s
        #: ranges to be leased, sorted and disjoint: the healthy ones, and the suspects
        self.waiting: Waiting = ALONE if self.count == 1 else ([Range(0, self.count)], [])
        #: positions that wait for their next attempt
        self.delayed: dict[int, Range] | None = None
        #: ids of its live leases
        self.leases: set[int] | None = None
        #: which of the two kinds in ``waiting`` have an entry in the queue
        self.queued_bits = 0
        #: one for each task once any is settled; None where a task is not terminal
        self.outcomes: list[Outcome | None] | None = None
        #: tasks that are not terminal
        self.open = self.count
        self.retained_bytes = 0
        #: at its bound the later half is a ring
        self._story: list[RawEntry] | None = None
        self.omitted = 0
        #: whether it waits for ever if no worker offers what it needs
        self.is_patient = event.wait_for_worker
        self.stamps: list[float] | None = None if event.sent_at is None else [now]

    @property
    def payload_bytes(self) -> int:
        """Bytes of its payloads: 0 once every task is terminal."""
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
        """Let a range wait in its place, joined with neighbours of the same history."""
        waiting = self._waiting_lists()[piece.deaths > 0]
        at = bisect_left(waiting, piece)
        if at < len(waiting) and (piece.stop, *piece[2:]) == (waiting[at].start, *waiting[at][2:]):
            piece = piece._replace(stop=waiting.pop(at).stop)
        if at and (waiting[at - 1].stop, *waiting[at - 1][2:]) == (piece.start, *piece[2:]):
            at -= 1
            piece = piece._replace(start=waiting.pop(at).start)
        waiting.insert(at, piece)

    def withdraw(self, start: int, stop: int) -> list[Range]:
        """Remove and return the waiting ranges of positions ``start <= p < stop``."""
        taken: list[Range] = []
        for waiting in self._waiting_lists():
            rest: list[Range] = []
            for piece in waiting:
                low, high = max(start, piece.start), min(stop, piece.stop)
                if low >= high:
                    rest.append(piece)
                    continue
                taken.append(piece._replace(start=low, stop=high))
                if piece.start < low:
                    rest.append(piece._replace(stop=low))
                if high < piece.stop:
                    rest.append(piece._replace(start=high))
            waiting[:] = rest
        return sorted(taken)

    def _waiting_lists(self) -> tuple[list[Range], list[Range]]:
        """The ranges that wait, as lists of this run's own."""
        if self.waiting is ALONE or self.waiting is NOTHING:
            self.waiting = ([*self.waiting[0]], [])
        return cast("tuple[list[Range], list[Range]]", self.waiting)

    def settle(self, start: int, outcomes: Sequence[Outcome], size_bytes: int) -> None:
        """Write terminal outcomes for the positions from ``start`` on."""
        if self.outcomes is None:
            self.outcomes = [None] * self.count
        self.outcomes[start : start + len(outcomes)] = outcomes
        self.open -= len(outcomes)
        self.retained_bytes += size_bytes

    def discard(self, start: int, stop: int) -> int:
        """Discard the outcomes of positions ``start <= p < stop``; returns how many bytes."""
        freed_bytes, outcomes = 0, self.outcomes or []
        for position in range(start, min(stop, len(outcomes))):
            outcome = outcomes[position]
            if isinstance(outcome, bytes | Failure):
                freed_bytes += len(outcome.message if isinstance(outcome, Failure) else outcome)
                outcomes[position] = RECEIVED
        self.retained_bytes -= freed_bytes
        return freed_bytes

    def outcome(self, position: int) -> Outcome | None:
        """How the task at ``position`` ended; None if it is open or does not exist."""
        return self.outcomes[position] if self.outcomes and position < self.count else None

    def note(
        self, state: State, cause: Cause, start: int, stop: int, detail: str, now: float, most: int
    ) -> None:
        """Write a move out of ``state`` into the story; over ``most`` entries its middle is lost.

        Raises KeyError, because of a bug, if TRANSITIONS has no such move.
        """
        entry = (now, cause, TRANSITIONS[state][cause], start, stop, detail)
        story = self._story
        if story is None:
            self._story = [entry]
        elif len(story) < most:
            story.append(entry)
        else:
            half = most // 2
            story[half + self.omitted % (most - half)] = entry
            self.omitted += 1

    @property
    def story(self) -> list[Entry]:
        """The entries in order, without the ``omitted`` ones of the middle."""
        return [Entry(*entry) for entry in self.raw_story()]

    @property
    def has_story(self) -> bool:
        """Whether anything has happened to its tasks."""
        return self._story is not None

    def raw_story(self) -> list[RawEntry]:
        """The story as plain tuples."""
        entries = self._story or []
        if self.omitted:
            half = len(entries) // 2
            oldest = half + self.omitted % (len(entries) - half)
            entries = entries[:half] + entries[oldest:] + entries[half:oldest]
        return entries


class Past(msgspec.Struct, array_like=True):
    """A finished and received run, packed, for its story.

    As objects its entries would be ten times as large, and each would pin its arena of a MiB:
    Python's allocator frees only empty arenas. Objects over SMALL_BYTES are not in arenas, so every
    packed run is filled up to that.
    """

    id: RunId
    client: str
    accepted_at: float
    count: int
    story: list[Entry]
    kind: str
    priority: Priority
    filling: bytes = b""


def pack(run: Run) -> bytes:
    """A run as a packed Past."""
    facts = run.id, run.client, run.accepted_at, run.count, run.raw_story()
    return _PAST.encode((*facts, run.needs[0], run.priority, FILLING))


def unpack(packed: bytes) -> Past:
    """The Past that `pack` packed."""
    return msgspec.msgpack.decode(packed, type=Past)
