"""What waits, in the order in which it is served: priority first, then first come first served, and
no one starves.

Runs that need different things wait in lines of their own, so that a run nobody can serve now holds
up no other. The plain version keeps a heap per line and looks at every line for the oldest run: its
cost grows with the number of different needs, not with the number of tasks.
"""

from __future__ import annotations

from collections.abc import Container
from heapq import heapify, heappop, heappush

from cluster.run import Needs, Run
from cluster.task import Priority

MIN_FULL = 64


class RunQueue:
    """Runs with something queued. Four priorities; after ``bypasses`` leases over its head a level
    goes first, once.
    """

    def __init__(self, bypasses: int) -> None:
        self._bypasses = bypasses
        self._lines: list[dict[Needs, list[tuple[int, Run]]]] = [{} for _ in Priority]
        #: from which length on a line is searched for runs that are over; see _tidy
        self._full: dict[tuple[int, Needs], int] = {}
        self._passed = [0] * len(Priority)
        #: the levels in the order in which they are served now
        self._order: list[int] = [*range(len(Priority))]

    def push(self, run: Run) -> None:
        """Enter a run, unless it is there already; its place depends on its id alone."""
        if run.enqueued or not run.queued:
            return
        run.enqueued = True
        line = self._lines[run.priority].setdefault(run.needs, [])
        heappush(line, (run.id, run))
        if len(line) > self._full.get((run.priority, run.needs), MIN_FULL):
            self._tidy(line)
            self._full[run.priority, run.needs] = 2 * len(line) + MIN_FULL

    def head(self, blocked: Container[Needs]) -> Run | None:
        """The run to serve next among those whose needs are not ``blocked``."""
        for level in self._order:
            lines = self._lines[level]
            if not lines:
                continue
            best: tuple[int, Run] | None = None
            for needs in [*lines]:
                first = self._first(level, needs)
                if first is not None and needs not in blocked and (best is None or first < best):
                    best = first
            if best is not None:
                return best[1]
        return None

    def granted(self, run: Run) -> None:
        """Count a lease granted to ``run`` against the levels below that wait."""
        passed, level = self._passed, run.priority
        changed = passed[level] >= self._bypasses
        passed[level] = 0
        for below in range(level + 1, len(passed)):
            before = passed[below]
            passed[below] = before + 1 if self._lines[below] else 0
            changed |= max(before, passed[below]) >= self._bypasses
        if changed:
            starved = [n for n, count in enumerate(passed) if count >= self._bypasses]
            starved.sort(key=passed.__getitem__, reverse=True)
            self._order = [*starved, *(n for n in range(len(passed)) if n not in starved)]

    def runs(self) -> list[Run]:
        """Every run in the queue that has something queued."""
        return [
            run for lines in self._lines for line in lines.values() for _, run in line if run.queued
        ]

    @staticmethod
    def _tidy(line: list[tuple[int, Run]]) -> None:
        """Take runs that are over out of the middle of a line; else they would stay behind a head
        that nobody can serve.
        """
        over = [run for _, run in line if not run.queued]
        for run in over:
            run.enqueued = False
        if over:
            line[:] = [entry for entry in line if entry[1].queued]
            heapify(line)

    def _first(self, level: int, needs: Needs) -> tuple[int, Run] | None:
        """The oldest run of a line; runs that have nothing queued any more are taken out here."""
        line = self._lines[level][needs]
        while line:
            if line[0][1].queued:
                return line[0]
            heappop(line)[1].enqueued = False
        del self._lines[level][needs]
        self._full.pop((level, needs), None)
        return None
