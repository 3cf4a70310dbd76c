"""Workers and leases as the scheduler knows them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import NamedTuple, TypeAlias

from cluster.core.run import Range, Run
from cluster.vocabulary.actions import Drain, Restart, Serve
from cluster.vocabulary.events import ResultStored, TasksFinished, WorkerJoined
from cluster.vocabulary.task import (
    NO_LOAD,
    NO_REQUIREMENTS,
    BatchSize,
    Gpu,
    GpuLoad,
    KindBatches,
    Load,
    Requirements,
)

#: why a worker is barred: the transport can't reach it; a task of it didn't end in time
NO_ROUTE, OVERRUN = "no route", "overrun"
NO_GPU_LOAD = GpuLoad()
#: what a worker says about the next tasks of a lease
Report: TypeAlias = TasksFinished | ResultStored
#: how much is taken to be in use of what is unknown
UNKNOWN_USE = 0.5


class Card(NamedTuple):
    """A card that is fit for work, and how much of it was in use at its worker's last heartbeat.

    ``in_use`` is from 0 to 1, two thirds its engines and one third its memory. An unknown figure
    counts as one half, so that a silent card is neither shunned nor sought; a card that sleeps is
    idle.
    """

    gpu: Gpu
    free_bytes: int | None
    in_use: float

    @classmethod
    def of(cls, gpu: Gpu, load: GpuLoad) -> Card:
        """An announced card in its present state."""
        free_bytes, total_bytes = load.free_bytes, gpu.memory_bytes
        busy, used = (0.0 if load.asleep else UNKNOWN_USE), UNKNOWN_USE
        if load.busy_pct is not None:
            busy = load.busy_pct / 100.0
        if free_bytes is not None and total_bytes:
            used = 1.0 - min(1.0, free_bytes / total_bytes)
        return cls(gpu, free_bytes, (2.0 * busy + used) / 3.0)


class ServiceTimes:
    """How long the newest tasks took: a histogram of eight buckets an octave, from a microsecond up
    to 18 minutes. Whole numbers tell a time's bucket, as in HdrHistogram.
    """

    BUCKETS, NEWEST, EIGHTHS = 240, 2_048, 8e6

    def __init__(self) -> None:
        self._counts = [0] * self.BUCKETS

    def add(self, tasks: int, busy_s: float) -> None:
        """Count tasks that took ``busy_s`` seconds together; once a bucket has more than NEWEST,
        older ones count half as much.
        """
        each = max(int(busy_s * self.EIGHTHS) // tasks, 8)
        octave = each.bit_length() - 4
        bucket = min(8 * octave + (each >> octave) - 8, self.BUCKETS - 1)
        self._counts[bucket] += tasks
        while self._counts[bucket] > self.NEWEST:
            self._counts = [count >> 1 for count in self._counts]

    def quantile_s(self, share: float) -> float | None:
        """The time that this share of the tasks did not exceed, within 6 %; None before the
        first.
        """
        left = share * sum(self._counts)
        for bucket, count in enumerate(self._counts):
            left -= count
            if count and left <= 0.0:
                octave, eighth = divmod(bucket, 8)
                return math.ldexp(8.5 + eighth, octave) / self.EIGHTHS
        return None


class BatchTotals:
    """How the batches of all workers formed, of `KINDS_MAX` kinds at most; runs of further kinds
    are counted as ``batches_left_out``.
    """

    KINDS_MAX, TOTAL_MAX = 1_024, 1 << 62

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._sizes: dict[str, list[BatchSize]] = {}

    def add(self, worker: WorkerState, told: Sequence[KindBatches]) -> None:
        """Add what a worker has counted since it told last."""
        if told == worker.formed:
            return
        before = {one.kind: one.sizes for one in worker.formed}
        worker.formed = told
        for one in told:
            olds = before.get(one.kind, ())
            more = sum(new.runs for new in one.sizes) - sum(old.runs for old in olds)
            if one.kind in self._sizes or len(self._sizes) < self.KINDS_MAX:
                self._add(one, olds if more >= 0 else ())  # it counts anew if it has fewer
            else:
                self._counters["batches_left_out"] += max(0, more)

    def shown(self) -> list[KindBatches]:
        """The totals of each kind, by name."""
        return [KindBatches(kind, [*sizes]) for kind, sizes in sorted(self._sizes.items())]

    def _add(self, told: KindBatches, olds: Sequence[BatchSize]) -> None:
        """Add what is more than ``olds``, which are of the same kind."""
        totals = self._sizes.setdefault(told.kind, [])
        totals += [BatchSize()] * (len(told.sizes) - len(totals))
        pairs = zip(told.sizes, chain(olds, repeat(BatchSize())), strict=False)
        for place, (new, old) in enumerate(pairs):
            sums = (t + max(0, n - o) for t, n, o in zip(totals[place], new, old, strict=True))
            totals[place] = BatchSize._make(min(total, self.TOTAL_MAX) for total in sums)


def needs_card(requirements: Requirements) -> bool:
    """Whether a task asks for a card."""
    return requirements.min_vram_bytes > 0 or requirements.gpu_family is not None


class WorkerState:
    """One worker under one epoch.

    ``held`` counts the tasks that fill its credit, revoked ones too.
    """

    def __init__(self, event: WorkerJoined, epoch: int, now: float) -> None:
        self.id = event.worker
        self.incarnation = event.incarnation
        self.epoch = epoch
        self.capacity = event.capacity
        self.credit = max(event.credit, event.capacity)
        self.kinds = frozenset(event.kinds)
        self.models = frozenset(event.models)
        #: the kinds whose tasks it runs together, and how many at most
        self.batches = event.batches
        #: how many it wants at present, of kinds that have run
        self.wants: Mapping[str, int] = {}
        #: what it wants in hand at most: its credit, or less
        self.room = self.credit
        #: the models that it is wanted to serve, and how often that has changed
        self.wanted = self.models.union(event.wanted)
        self.serves = 0
        #: the newest offers that it has told
        self.revision = 0
        #: a model that it could not load, and why
        self.trouble = ""
        self.gpus = event.gpus
        self.host = event.host
        self.pid = event.pid
        self.last_seen = now
        #: the supervisor of its process, and when it last said that the process runs
        self.supervisor: str | None = None
        self.vouched_at = -math.inf
        #: why it gets nothing more, although it is here, and since when
        self.barred = ""
        self.barred_at = now
        self.held = 0
        self.finished = 0
        #: leases whose results wait to be fetched: they take neither credit nor a slot
        self.streaming = 0
        #: leases of suspects, at most one at a time: a task that kills workers must be alone
        self.suspects = 0
        self.draining = False
        #: why it has left, while reports of its leases may be on the way
        self.goodbye = ""
        #: orders that are repeated until it says that it obeys, at most one to serve models and one
        #: to leave
        self.orders: dict[type, Serve | Drain | Restart] = {}
        self.service = ServiceTimes()
        #: how its batches formed, as it told last
        self.formed: Sequence[KindBatches] = ()
        self.load = NO_LOAD
        self.leases: dict[int, Lease] = {}
        #: the ids in its last heartbeat, in order of arrival
        self.said_held: list[int] = []

    @property
    def load(self) -> Load:
        """The load in its last heartbeat."""
        return self._load

    @load.setter
    def load(self, load: Load) -> None:
        self._load = load
        told = chain(load.gpus, repeat(NO_GPU_LOAD))
        states = zip(self.gpus, told, strict=False)
        #: its cards that are fit for work
        self.cards = tuple(Card.of(gpu, state) for gpu, state in states if state.trouble is None)
        self._usual_cards = [card for card in self.cards if not card.gpu.is_apu] or self.cards
        self._in_use = min((card.in_use for card in self._usual_cards), default=UNKNOWN_USE)

    @property
    def free(self) -> int:
        """How many more tasks it may be given: none while its cards are in trouble."""
        if self.draining or self.barred or self._load.gpu_trouble is not None:
            return 0
        return self.room - self.held

    def take_wants(self, wants: Mapping[str, int], credit: int) -> bool:
        """Take in what it wants for its batches; returns whether that has changed."""
        before, room = (self.wants, self.room), min(self.credit, credit or self.credit)
        self.wants, self.room = wants, room
        return before != (wants, room)

    def wanted_for_batch(self, kind: str) -> int:
        """How many tasks of a kind it wants for a batch; 0 if it runs each by itself."""
        return self.wants.get(kind, self.batches.get(kind, 0))

    @property
    def is_taking(self) -> bool:
        """Whether it takes work, at once or when it has room."""
        return not self.draining and self._load.gpu_trouble is None

    @property
    def is_doomed(self) -> bool:
        """Whether its supervisor was asked to kill it."""
        return self.barred == OVERRUN

    @property
    def alive_at(self) -> float:
        """When it was last known to live: heard, or vouched for if there is a route to it."""
        if self.barred == NO_ROUTE:
            return self.last_seen
        return max(self.last_seen, self.vouched_at)

    @property
    def slots_taken(self) -> int:
        """How many of its tasks may be running: a lease is one slot's work."""
        return min(self.capacity, len(self.leases) - self.streaming)

    def runs(self, lease: Lease) -> bool:
        """Whether it seems to run the next task of a lease: those it got first have its slots."""
        ids = [id for id in {**dict.fromkeys(self.said_held), **self.leases} if id in self.leases]
        open_leases = (self.leases[id] for id in ids if self.leases[id].stream is None)
        most = self.capacity * max(self.batches.values(), default=1)
        return lease in islice(open_leases, most) and lease.missing_since is None

    def offers(self, kind: str, requirements: Requirements) -> bool:
        """Whether it has the handler, the model and a fit card that a task asks for."""
        if kind not in self.kinds:
            return False
        if requirements is NO_REQUIREMENTS or requirements == NO_REQUIREMENTS:
            return True
        if requirements.model is not None and requirements.model not in self.models:
            return False
        return bool(self.cards_for(requirements)) or not needs_card(requirements)

    def cards_for(self, requirements: Requirements) -> Sequence[Card]:
        """The fit cards that a task could use: each has all that it asks of a card.

        Unknown memory is too little for a task that asks for some. A task that asks for no card is
        taken to use one with memory of its own: a processor's graphics beside a card is not the
        card.
        """
        least_bytes, family = requirements.min_vram_bytes, requirements.gpu_family
        if not least_bytes and family is None:
            return self._usual_cards
        return [
            card
            for card in self.cards
            if (family is None or card.gpu.family == family)
            and (card.gpu.memory_bytes or 0) >= least_bytes
        ]

    def in_use(self, requirements: Requirements) -> float:
        """How much is in use of the least used card that a task could use; half without one."""
        cards = self.cards_for(requirements)
        if cards is self._usual_cards:
            return self._in_use
        return min([card.in_use for card in cards], default=UNKNOWN_USE)


@dataclass(slots=True)
class Stream:
    """A large result that its worker stores until its client has fetched it."""

    position: int
    size_bytes: int
    #: whether the client has begun to fetch it
    begun: bool = False


@dataclass(slots=True, eq=False)
class Lease:
    """A slice of a run in the hands of one worker.

    Its id is never used again, so a late message can't refer to another lease.
    """

    id: int
    run: Run
    worker: WorkerState
    assigned_at: float
    #: positions before this one are settled or requeued
    next: int
    stop: int
    attempts: int = 0
    deaths: int = 0
    #: positions in the worker's hands that have ended otherwise
    revoked: set[int] | None = None
    recalled_at: float | None = None
    missing_since: float | None = None
    #: the last large result announced, open while its position is ``next``; from then on the lease
    #: takes no credit, since all its tasks have run or were given back
    stream: Stream | None = None
    #: by position, reports that have come before an earlier one
    early: dict[int, Report] | None = None

    @property
    def payload_bytes(self) -> int:
        """Of its tasks that are not settled."""
        column = self.run.payloads
        return sum(
            map(len, column[self.next : self.stop] if isinstance(column, list) else [column])
        )

    def stream_at(self, position: int) -> Stream | None:
        """The large result of the task at ``position``, if it can still be fetched."""
        if self.stream is None or not self.stream.position == position == self.next:
            return None
        return None if self.revoked and position in self.revoked else self.stream

    def pieces(self, start: int, stop: int) -> list[Range]:
        """The ranges of positions ``start <= p < stop`` that are not revoked."""
        if not self.revoked:
            return [Range(start, stop, self.attempts, self.deaths)] if start < stop else []
        pieces: list[Range] = []
        for hole in [*sorted(p for p in self.revoked if start <= p < stop), stop]:
            if start < hole:
                pieces.append(Range(start, hole, self.attempts, self.deaths))
            start = hole + 1
        return pieces
