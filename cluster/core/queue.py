"""The waiting runs in the order of service: by priority, first come first served, no starvation.

Each set of needs has a FIFO of its own, so a run that no worker can serve now blocks no other; so
do suspects (tasks that were on a worker when it died), because they are leased one by one. The
plain version keeps a heap per FIFO and looks at every FIFO for the oldest run: its cost grows with
the number of different needs, not with the number of tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from heapq import heapify, heappop, heappush
from typing import ClassVar, TypeAlias

from cluster.core.run import Needs, Run
from cluster.vocabulary.task import Priority

MIN_FULL = 64
#: for each set of levels, as bits, their order of service while none of them starves
ORDERS = [
    [level for level in range(len(Priority)) if waiting >> level & 1]
    for waiting in range(1 << len(Priority))
]

#: the needs of a FIFO's runs, and whether it is for their suspects
Key: TypeAlias = tuple[Needs, bool]
#: a FIFO's key within its level: shared by all clients, or of one that was held back
Place: TypeAlias = Key | tuple[Needs, bool, str]


class Fifo:
    """Runs of one level with the same needs: a heap of (id, whether healthy, run).

    The smallest head of several FIFOs is the one to serve.
    """

    __slots__ = ("full", "heap", "key", "suspect")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.suspect = key[1]
        self.heap: list[tuple[int, bool, Run]] = []
        #: length at which finished runs are swept out
        self.full = MIN_FULL

    def push(self, run: Run) -> None:
        """Add a run that is not in it."""
        run.queued_bits |= 1 << self.suspect
        heappush(self.heap, (run.id, not self.suspect, run))
        if len(self.heap) > self.full:
            self.sweep()

    def sweep(self) -> None:
        """Remove finished runs, which could stay behind a head that no worker can serve."""
        over = [run for _, _, run in self.heap if not run.waiting[self.suspect]]
        for run in over:
            run.queued_bits &= ~(1 << self.suspect)
        if over:
            self.heap = [entry for entry in self.heap if entry[2].waiting[self.suspect]]
            heapify(self.heap)
        self.full = 2 * len(self.heap) + MIN_FULL

    def first(self) -> tuple[int, bool, Run] | None:
        """The oldest entry, after removing runs that no longer wait here."""
        heap, suspect = self.heap, self.suspect
        while heap:
            if heap[0][2].waiting[suspect]:
                return heap[0]
            self.pop()
        return None

    def pop(self) -> None:
        """Remove the entry that `first` found."""
        heappop(self.heap)[2].queued_bits &= ~(1 << self.suspect)


class RunQueue:
    """The runs with waiting tasks, in four priority levels.

    A level that was bypassed by ``bypasses`` leases goes first, once.
    """

    fifo: ClassVar[type[Fifo]] = Fifo

    def __init__(self, bypasses: int) -> None:
        self._bypasses = bypasses
        self._fifos: list[dict[Place, Fifo]] = [{} for _ in Priority]
        #: FIFOs of clients that are not served now, by client, level and key
        self.held_back: dict[str, dict[tuple[int, Key], Fifo]] = {}
        self._passed = [0] * len(Priority)
        #: the levels with a FIFO in their present order of service; and the least urgent of them
        self._order: Sequence[int] = ()
        self._lowest = 0

    def push(self, run: Run) -> None:
        """Enter a run with waiting tasks unless it is in already; its id decides its place."""
        for suspect in (False, True):
            if run.waiting[suspect] and not run.queued_bits >> suspect & 1:
                fifos = self._fifos[run.priority]
                key = (run.needs, suspect)
                fifo = fifos.get(key)
                if fifo is None:
                    fifo = fifos[key] = self.fifo(key)
                    self._reorder()
                fifo.push(run)

    def head(self, blocked: AbstractSet[Key]) -> tuple[Run, bool] | None:
        """The run to serve next, and whether with a suspect, among the FIFOs not ``blocked``.

        The older run goes first, and the suspects of one run before its healthy tasks.
        """
        for level in self._order:
            best: tuple[int, bool, Run] | None = None
            ended = False
            for fifo in self._fifos[level].values():
                first = fifo.first()
                if first is None:
                    ended = True
                elif (best is None or first < best) and not (blocked and fifo.key in blocked):
                    best = first
            if ended:
                self._drop_empty(level)
            if best is not None:
                return best[2], not best[1]
        return None

    def granted(self, run: Run) -> None:
        """Count a lease granted to ``run`` as a bypass of the waiting levels below."""
        passed, level = self._passed, run.priority
        changed = passed[level] >= self._bypasses
        passed[level] = 0
        if self._lowest > level:
            for below in range(level + 1, self._lowest + 1):
                if self._fifos[below]:
                    passed[below] += 1
                    changed |= passed[below] >= self._bypasses
        if changed:
            self._reorder()

    def hold_back(self, run: Run, suspect: bool) -> None:
        """Set aside the run that `head` has found, until its client may `resume`.

        A FIFO that the client has of its own is set aside as a whole, so each run is moved once.
        """
        level, key = run.priority, (run.needs, suspect)
        fifos = self._fifos[level]
        aside = self.held_back.setdefault(run.client, {})
        own = fifos.pop((*key, run.client), None)
        fifo = aside.get((level, key)) or own or self.fifo(key)
        aside[level, key] = fifo
        common = fifos.get(key)
        first = common.first() if common is not None else None
        if common is not None and first is not None and first[2] is run:
            common.pop()
            fifo.push(run)
        if not fifos:
            self._passed[level] = 0
            self._reorder()

    def resume(self, client: str) -> None:
        """Serve a client again, its runs in their old order."""
        for (level, key), fifo in self.held_back.pop(client).items():
            self._fifos[level][*key, client] = fifo
        self._reorder()

    def waits(self) -> bool:
        """Whether anything may wait that is not held back."""
        return bool(self._order)

    def fifos(self) -> list[Fifo]:
        """All FIFOs but those held back."""
        return [fifo for fifos in self._fifos for fifo in fifos.values()]

    def runs(self) -> list[Run]:
        """Every run with waiting tasks, once."""
        everywhere = self.fifos()
        everywhere += [fifo for fifos in self.held_back.values() for fifo in fifos.values()]
        entries = [entry for fifo in everywhere for entry in fifo.heap]
        found = {run.id: run for _, healthy, run in entries if run.waiting[not healthy]}
        return [*found.values()]

    def _drop_empty(self, level: int) -> None:
        """Drop the empty FIFOs of a level; a level without a FIFO can't starve."""
        fifos = self._fifos[level]
        if len(fifos) == 1:
            fifos.clear()
        else:
            self._fifos[level] = {key: fifo for key, fifo in fifos.items() if fifo.heap}
        if not self._fifos[level]:
            self._passed[level] = 0
            self._reorder()

    def _reorder(self) -> None:
        """Put starving levels before the others, the longest bypassed first."""
        passed = self._passed
        urgent, high, normal, low = self._fifos
        bits = bool(urgent) | bool(high) << 1 | bool(normal) << 2 | bool(low) << 3
        waiting = ORDERS[bits]
        self._lowest = waiting[-1] if waiting else 0
        if max(passed) < self._bypasses:
            self._order = waiting
            return
        starved = [level for level in waiting if passed[level] >= self._bypasses]
        starved.sort(key=passed.__getitem__, reverse=True)
        self._order = [*starved, *(level for level in waiting if level not in starved)]
