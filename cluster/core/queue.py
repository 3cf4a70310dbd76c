"""What waits, in the order in which it is served: priority first, then first come first served, and
no one starves.

Runs that need different things wait in lines of their own, so that a run nobody can serve now holds
up no other; so do the suspects, tasks that were on a worker when it died, because they are handed
out one by one. The plain version keeps a heap per line and looks at every line for the oldest run:
its cost grows with the number of different needs, not with the number of tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from heapq import heapify, heappop, heappush
from typing import ClassVar, TypeAlias

from cluster.core.run import Needs, Run
from cluster.vocabulary.task import Priority

MIN_FULL = 64
#: for each set of levels, as bits, the order in which they are served while none of them starves
ORDERS = [
    [level for level in range(len(Priority)) if waiting >> level & 1]
    for waiting in range(1 << len(Priority))
]

#: what the runs of one line need, and whether it is their suspects that wait there
Key: TypeAlias = tuple[Needs, bool]
#: where a line is among those of its level: of all clients, or of one that was held back
Place: TypeAlias = Key | tuple[Needs, bool, str]


class Line:
    """Runs of one level that wait for the same: a heap of (id, whether healthy, run), so that the
    smallest of several lines is the one to serve.
    """

    __slots__ = ("full", "heap", "key", "suspect")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.suspect = key[1]
        self.heap: list[tuple[int, bool, Run]] = []
        #: from which length on it is searched for runs that are over
        self.full = MIN_FULL

    def push(self, run: Run) -> None:
        """Enter a run that is not in it."""
        run.lines |= 1 << self.suspect
        heappush(self.heap, (run.id, not self.suspect, run))
        self.keep_tidy()

    def keep_tidy(self) -> None:
        """Look for runs that are over once it has become twice as long as it was without them."""
        if len(self.heap) > self.full:
            self._tidy()
            self.full = 2 * len(self.heap) + MIN_FULL

    def first(self) -> tuple[int, bool, Run] | None:
        """The oldest entry; runs of which nothing waits here any more are taken out."""
        heap, suspect = self.heap, self.suspect
        while heap:
            if heap[0][2].waiting[suspect]:
                return heap[0]
            self.pop()
        return None

    def pop(self) -> None:
        """Take out the entry that `first` found."""
        heappop(self.heap)[2].lines &= ~(1 << self.suspect)

    def _tidy(self) -> None:
        """Take runs that are over out of the middle; else they would stay behind a head that nobody
        can serve.
        """
        over = [run for _, _, run in self.heap if not run.waiting[self.suspect]]
        for run in over:
            run.lines &= ~(1 << self.suspect)
        if over:
            self.heap = [entry for entry in self.heap if entry[2].waiting[self.suspect]]
            heapify(self.heap)


class RunQueue:
    """Runs of which something waits. Four priorities; after ``bypasses`` leases over its head a
    level goes first, once.
    """

    line: ClassVar[type[Line]] = Line

    def __init__(self, bypasses: int) -> None:
        self._bypasses = bypasses
        self._lines: list[dict[Place, Line]] = [{} for _ in Priority]
        #: lines of clients that are not served now, by client, level and key
        self.held_back: dict[str, dict[tuple[int, Key], Line]] = {}
        self._passed = [0] * len(Priority)
        #: the levels with a line, in the order in which they are served now; and the last of them
        self._order: Sequence[int] = ()
        self._lowest = 0

    def push(self, run: Run) -> None:
        """Enter a run where something of it waits, unless it is there already; its place depends on
        its id alone.
        """
        for suspect in (False, True):
            if run.waiting[suspect] and not run.lines >> suspect & 1:
                lines = self._lines[run.priority]
                key = (run.needs, suspect)
                line = lines.get(key)
                if line is None:
                    line = lines[key] = self.line(key)
                    self._reorder()
                line.push(run)

    def head(self, blocked: AbstractSet[Key]) -> tuple[Run, bool] | None:
        """The run to serve next, and whether with a suspect, among the lines not ``blocked``: the
        older run first, and of one run its suspects.
        """
        for level in self._order:
            best: tuple[int, bool, Run] | None = None
            ended = False
            for line in self._lines[level].values():
                first = line.first()
                if first is None:
                    ended = True
                elif (best is None or first < best) and not (blocked and line.key in blocked):
                    best = first
            if ended:
                self._end_lines(level)
            if best is not None:
                return best[2], not best[1]
        return None

    def granted(self, run: Run) -> None:
        """Count a lease granted to ``run`` against the levels below that wait."""
        passed, level = self._passed, run.priority
        changed = passed[level] >= self._bypasses
        passed[level] = 0
        if self._lowest > level:
            for below in range(level + 1, self._lowest + 1):
                if self._lines[below]:
                    passed[below] += 1
                    changed |= passed[below] >= self._bypasses
        if changed:
            self._reorder()

    def hold_back(self, run: Run, suspect: bool) -> None:
        """Take a run out of turn that `head` has found, until its client may `resume`. What is of
        the client in a line of its own goes along, so each run is moved at most once each time.
        """
        level, key = run.priority, (run.needs, suspect)
        lines = self._lines[level]
        aside = self.held_back.setdefault(run.client, {})
        own = lines.pop((*key, run.client), None)
        line = aside.get((level, key)) or own or self.line(key)
        aside[level, key] = line
        common = lines.get(key)
        first = common.first() if common is not None else None
        if common is not None and first is not None and first[2] is run:
            common.pop()
            line.push(run)
        if not lines:
            self._passed[level] = 0
            self._reorder()

    def resume(self, client: str) -> None:
        """Serve a client again: its runs are where they were."""
        for (level, key), line in self.held_back.pop(client).items():
            self._lines[level][*key, client] = line
        self._reorder()

    def runs(self) -> list[Run]:
        """Every run in the queue of which something waits, once."""
        everywhere = [line for lines in self._lines for line in lines.values()]
        everywhere += [line for lines in self.held_back.values() for line in lines.values()]
        entries = [entry for line in everywhere for entry in line.heap]
        found = {run.id: run for _, healthy, run in entries if run.waiting[not healthy]}
        return [*found.values()]

    def _end_lines(self, level: int) -> None:
        """Drop the empty lines of a level; one without a line can't starve."""
        lines = self._lines[level]
        if len(lines) == 1:
            lines.clear()
        else:
            self._lines[level] = {key: line for key, line in lines.items() if line.heap}
        if not self._lines[level]:
            self._passed[level] = 0
            self._reorder()

    def _reorder(self) -> None:
        """Put the levels that starve before the others, the longest first."""
        passed = self._passed
        urgent, high, normal, low = self._lines
        bits = bool(urgent) | bool(high) << 1 | bool(normal) << 2 | bool(low) << 3
        waiting = ORDERS[bits]
        self._lowest = waiting[-1] if waiting else 0
        if max(passed) < self._bypasses:
            self._order = waiting
            return
        starved = [level for level in waiting if passed[level] >= self._bypasses]
        starved.sort(key=passed.__getitem__, reverse=True)
        self._order = [*starved, *(level for level in waiting if level not in starved)]
