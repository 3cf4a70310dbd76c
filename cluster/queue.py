"""What waits, in the order in which it is served: priority first, then first come first served, and
no one starves.

Runs that need different things wait in lines of their own, so that a run nobody can serve now holds
up no other. The plain version keeps a heap per line and looks at every line for the oldest run: its
cost grows with the number of different needs, not with the number of tasks.
"""

from __future__ import annotations

from collections.abc import Container
from heapq import heappop, heappush

from cluster.run import Needs, Run
from cluster.task import Priority


class RunQueue:
    """Runs with something queued. Four priorities; after ``bypasses`` leases over its head a level
    goes first, once.
    """

    def __init__(self, bypasses: int) -> None:
        self._bypasses = bypasses
        self._lines: list[dict[Needs, list[tuple[int, Run]]]] = [{} for _ in Priority]
        self._passed = [0] * len(Priority)

    def push(self, run: Run) -> None:
        """Enter a run, unless it is there already; its place depends on its id alone."""
        if run.enqueued or not run.queued:
            return
        run.enqueued = True
        heappush(self._lines[run.priority].setdefault(run.needs, []), (run.id, run))

    def head(self, blocked: Container[Needs]) -> Run | None:
        """The run to serve next among those whose needs are not ``blocked``."""
        for level in self._order():
            best: tuple[int, Run] | None = None
            for needs in list(self._lines[level]):
                first = self._first(level, needs)
                if first is not None and needs not in blocked and (best is None or first < best):
                    best = first
            if best is not None:
                return best[1]
        return None

    def granted(self, run: Run) -> None:
        """Count a lease granted to ``run`` against the levels below that wait."""
        self._passed[run.priority] = 0
        for level in range(run.priority + 1, len(self._lines)):
            self._passed[level] = self._passed[level] + 1 if self._lines[level] else 0

    def runs(self) -> list[Run]:
        """Every run in the queue that has something queued."""
        return [
            run for lines in self._lines for line in lines.values() for _, run in line if run.queued
        ]

    def _order(self) -> list[int]:
        starved = [level for level, n in enumerate(self._passed) if n >= self._bypasses]
        if not starved:
            return [*range(len(self._lines))]
        starved.sort(key=self._passed.__getitem__, reverse=True)
        return starved + [level for level in range(len(self._lines)) if level not in starved]

    def _first(self, level: int, needs: Needs) -> tuple[int, Run] | None:
        """The oldest run of a line; runs that have nothing queued any more are taken out here."""
        line = self._lines[level][needs]
        while line:
            if line[0][1].queued:
                return line[0]
            heappop(line)[1].enqueued = False
        del self._lines[level][needs]
        return None
