"""The waiting runs in the order of service: by priority, clients in turn, each first come first
served, no starvation.

Each set of needs has a lane of its own, so a run that no worker can serve now blocks no other; so
do suspects (tasks that were on a worker when it died), because they are leased one by one. In a
lane each client has a FIFO. The plain version keeps a heap per FIFO and looks at every lane for the
client whose turn it is: its cost grows with the number of different needs, not with the number of
tasks or clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from heapq import heapify, heappop, heappush, heapreplace
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


class Fifo:
    """Runs of one level and client with the same needs: a heap of (id, whether healthy, run)."""

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


class Lane(dict[str, Fifo]):
    """The FIFOs of one level with the same needs by client, and the clients' order if there are
    several. A lone client keeps its FIFO when that is empty.
    """

    __slots__ = ("key", "lone", "order")

    def __init__(self, key: Key) -> None:
        self.key = key
        #: the FIFO of the only client
        self.lone: Fifo | None = None
        #: a heap of (turn, client); an entry with a past turn, or without a FIFO, is out of date
        self.order: list[tuple[int, str]] | None = None

    def add(self, client: str, fifo: Fifo, turns: dict[str, int]) -> None:
        """Enter the FIFO of a client that has none here."""
        self[client] = fifo
        self.lone = fifo if len(self) == 1 and self.order is None else None
        order = self.order
        if order is not None and len(order) <= 2 * len(self) + MIN_FULL:
            heappush(order, (turns[client], client))
        elif len(self) > 1:
            self.order = [(turns[name], name) for name in self]
            heapify(self.order)

    def first(self, turns: dict[str, int]) -> tuple[int, bool, Run] | None:
        """The first entry of the client that was not served for longest."""
        if self.lone is not None:
            return self.lone.first()
        return self._first_of_several(self.order, turns) if self.order is not None else None

    def remove(self, client: str) -> Fifo | None:
        """Remove the FIFO of a client, if it has one."""
        fifo = self.pop(client, None)
        if fifo is self.lone:
            self.lone = None
        return fifo

    def _first_of_several(
        self, order: list[tuple[int, str]], turns: dict[str, int]
    ) -> tuple[int, bool, Run] | None:
        while order:
            turn, client = order[0]
            fifo = self.get(client)
            first = fifo.first() if fifo is not None else None
            if first is None:
                heappop(order)
                self.pop(client, None)
            elif turn != turns[client]:
                heapreplace(order, (turns[client], client))
            else:
                return first
        self.order = None
        return None


class RunQueue:
    """The runs with waiting tasks, in four priority levels.

    A level that was bypassed by ``bypasses`` leases goes first, once. Within a level clients take
    turns, lease by lease, so that a long queue of one does not hold up the others.
    """

    fifo: ClassVar[type[Fifo]] = Fifo

    def __init__(self, bypasses: int) -> None:
        self._bypasses = bypasses
        self._lanes: list[dict[Key, Lane]] = [{} for _ in Priority]
        #: by level, the last lane that became empty: under light load it is used again at once
        self._spare: list[Lane | None] = [None] * len(Priority)
        #: by level and client, the number of its last lease, or of its first run before that
        self._turns: list[dict[str, int]] = [{} for _ in Priority]
        self._turn = 0
        #: FIFOs of clients that are not served now, by client, level and key
        self.held_back: dict[str, dict[tuple[int, Key], Fifo]] = {}
        self._passed = [0] * len(Priority)
        #: the levels where anything may wait, in their order of service; and the least urgent
        self.order: Sequence[int] = ()
        self._lowest = 0

    def push(self, run: Run) -> None:
        """Enter a run with waiting tasks unless it is in already; its id decides its place."""
        for suspect in (False, True):
            if run.waiting[suspect] and not run.queued_bits >> suspect & 1:
                self._fifo(run.client, run.priority, (run.needs, suspect)).push(run)

    def _fifo(self, client: str, level: int, key: Key) -> Fifo:
        """The FIFO of a client; a new one if it has none."""
        turns = self._turns[level]
        if client not in turns:
            self._turn += 1
            turns[client] = self._turn
        aside = self.held_back.get(client) if self.held_back else None
        if aside is not None:
            return aside.setdefault((level, key), self.fifo(key))
        lane = self._lane(level, key)
        fifo = lane.get(client)
        if fifo is None:
            fifo = self.fifo(key)
            lane.add(client, fifo, turns)
        return fifo

    def _lane(self, level: int, key: Key) -> Lane:
        lanes = self._lanes[level]
        lane = lanes.get(key)
        if lane is None:
            spare = self._spare[level]
            lane = lanes[key] = Lane(key) if spare is None or spare.key != key else spare
            self._reorder()
        return lane

    def head(self, blocked: AbstractSet[Key]) -> tuple[Run, bool] | None:
        """The run to serve next, and whether with a suspect, among the lanes not ``blocked``.

        The client that was not served for longest goes first, then its older run, and the suspects
        of one run before its healthy tasks.
        """
        for level in self.order:
            best: tuple[int, bool, Run] | None = None
            ended, turns = False, self._turns[level]
            for lane in self._lanes[level].values():
                first = lane.first(turns)
                if first is None:
                    ended = True
                elif blocked and lane.key in blocked:
                    continue
                elif best is None or _is_before(first, best, turns):
                    best = first
            if ended:
                self._drop_empty(level)
            if best is not None:
                return best[2], not best[1]
        return None

    def granted(self, run: Run) -> None:
        """Count a lease granted to ``run`` as a bypass of the waiting levels below."""
        passed, level = self._passed, run.priority
        self._turn += 1
        self._turns[level][run.client] = self._turn
        changed = passed[level] >= self._bypasses
        passed[level] = 0
        if self._lowest > level:
            for below in range(level + 1, self._lowest + 1):
                if self._lanes[below]:
                    passed[below] += 1
                    changed |= passed[below] >= self._bypasses
        if changed:
            self._reorder()

    def hold_back(self, client: str) -> None:
        """Set a client's runs aside until it may `resume`."""
        aside = self.held_back.setdefault(client, {})
        for level, lanes in enumerate(self._lanes):
            for key, lane in lanes.items():
                fifo = lane.remove(client)
                if fifo is not None:
                    aside[level, key] = fifo
            self._drop_empty(level)

    def resume(self, client: str) -> None:
        """Serve a client again, its runs in their old order."""
        for (level, key), fifo in self.held_back.pop(client).items():
            self._lane(level, key).add(client, fifo, self._turns[level])

    def forget(self, client: str) -> None:
        """Drop all runs of a client that is gone."""
        self.hold_back(client)
        del self.held_back[client]
        for lane in self._spare:
            if lane is not None:
                lane.remove(client)
        for turns in self._turns:
            turns.pop(client, None)

    def fifos(self) -> list[Fifo]:
        """All FIFOs but those held back."""
        lanes = (lane for level in self._lanes for lane in level.values())
        return [fifo for lane in lanes for fifo in lane.values()]

    def runs(self) -> list[Run]:
        """Every run with waiting tasks, once."""
        everywhere = self.fifos()
        everywhere += [fifo for fifos in self.held_back.values() for fifo in fifos.values()]
        entries = [entry for fifo in everywhere for entry in fifo.heap]
        found = {run.id: run for _, healthy, run in entries if run.waiting[not healthy]}
        return [*found.values()]

    def _drop_empty(self, level: int) -> None:
        """Drop the empty lanes of a level; a level without a lane can't starve."""
        lanes, turns = self._lanes[level], self._turns[level]
        for lane in [*lanes.values()]:
            if lane.first(turns) is None:
                self._spare[level] = lanes.pop(lane.key)
        if not lanes:
            self._passed[level] = 0
            self._reorder()

    def _reorder(self) -> None:
        """Put starving levels before the others, the longest bypassed first."""
        passed = self._passed
        urgent, high, normal, low = self._lanes
        bits = bool(urgent) | bool(high) << 1 | bool(normal) << 2 | bool(low) << 3
        waiting = ORDERS[bits]
        self._lowest = waiting[-1] if waiting else 0
        if max(passed) < self._bypasses:
            self.order = waiting
            return
        starved = [level for level in waiting if passed[level] >= self._bypasses]
        starved.sort(key=passed.__getitem__, reverse=True)
        self.order = [*starved, *(level for level in waiting if level not in starved)]


def _is_before(
    one: tuple[int, bool, Run], other: tuple[int, bool, Run], turns: dict[str, int]
) -> bool:
    """Whether an entry goes first: by its client's turn, then the older run, its suspects first."""
    turn, other_turn = turns[one[2].client], turns[other[2].client]
    return turn < other_turn or (turn == other_turn and one < other)


class Backpressure:
    """Retained bytes by client; decides whose runs the queue holds back.

    A result is retained until its client acknowledges it, so a client that stops reading would make
    the coordinator grow. Accepted tasks may not be dropped or refused, but they can wait: a client
    whose retained bytes reach the room that is left is held back: nothing more of it is leased
    until it acknowledges. So one client gets at most half of the bound, n of them n/(n + 1), and
    there is always room for the others. This is the dynamic threshold of Choudhury and Hahne
    ("Dynamic queue length thresholds for shared-memory packet switches", 1998).
    """

    def __init__(self, bound_bytes: int) -> None:
        self._bound_bytes = bound_bytes
        #: below this total no client can be over
        self.half_bytes = (bound_bytes + 1) // 2
        self._by_client: dict[str, int] = {}
        self.total_bytes = 0

    def add(self, client: str, size_bytes: int) -> None:
        """Retain ``size_bytes`` more for a client; less if negative."""
        self.total_bytes += size_bytes
        self._by_client[client] = self._by_client.get(client, 0) + size_bytes

    def forget(self, client: str) -> None:
        """Drop a client that is gone and for which nothing is retained."""
        self._by_client.pop(client, None)

    def is_over(self, client: str) -> bool:
        """Whether a client must acknowledge results before more of its tasks are leased."""
        return self._by_client.get(client, 0) >= self._bound_bytes - self.total_bytes

    def resume(self, queue: RunQueue) -> None:
        """Queue the runs of clients again that are no longer over."""
        for client in [c for c in queue.held_back if not self.is_over(c)]:
            queue.resume(client)
