"""Results too large for a report, in a worker's hands: the one copy there is until it is fetched.

A lease is reported in order, so what was done after a large result waits behind it here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Any, NamedTuple

from cluster.vocabulary.task import Failure


class Gathered(NamedTuple):
    """Outcomes of the next tasks of a lease, and the seconds they took from when to when."""

    outcomes: list[bytes]
    failures: list[Failure]
    started_at: float
    ended_at: float

    def split(self, count: int, first: int) -> tuple[Gathered, Gathered]:
        """The first ``count`` outcomes, and the rest, the time shared evenly; the first of all is
        that of position ``first``.
        """
        share_s = (self.ended_at - self.started_at) * count / len(self.outcomes)
        between_s = self.started_at + share_s
        before = [f for f in self.failures if f.position < first + count]
        after = self.failures[len(before) :]
        return (
            Gathered(self.outcomes[:count], before, self.started_at, between_s),
            Gathered(self.outcomes[count:], after, between_s, self.ended_at),
        )


class StoredResults:
    """The large results of a lease by position, and outcomes ``behind`` that are not reported yet.

    The buffers are what the handlers gave, not copies. A handler's thread may put one in at any
    moment, so whoever looks through them takes a list first: that is one step.
    """

    __slots__ = ("behind", "results")

    def __init__(self) -> None:
        self.results: dict[int, memoryview] = {}
        self.behind: deque[Gathered] = deque()

    @property
    def size_bytes(self) -> int:
        """Bytes kept."""
        return sum(map(len, list(self.results.values())))

    def put(self, position: int, result: bytes | bytearray | memoryview) -> None:
        """Keep a result as it is; one that does not lie together in memory is copied."""
        view = memoryview(result)
        flat = view if view.c_contiguous else memoryview(bytes(view))
        self.results[position] = flat.cast("B")

    def drop(self, unwanted: Collection[int]) -> None:
        """Let go of results that nobody waits for any more, or whose clients have them: what stands
        for them is reported and of no consequence.
        """
        for position in [p for p in list(self.results) if p in unwanted] if unwanted else ():
            del self.results[position]

    def take(self, position: int) -> Gathered | None:
        """Outcomes from ``position`` on up to the next large result; None when one is next, or
        nothing is there.
        """
        if not self.behind or position in self.results:
            return None
        gathered = self.behind.popleft()
        stop = position + len(gathered.outcomes)
        large = min((p for p in list(self.results) if position < p < stop), default=stop)
        if large == stop:
            return gathered
        ready, rest = gathered.split(large - position, position)
        self.behind.appendleft(rest)
        return ready

    def announced(self, position: int) -> int | None:
        """The size of the result of the task to report next, if it is a large one."""
        result = self.results.get(position)
        return len(result) if result is not None and self.behind else None

    def times(self) -> tuple[float, float]:
        """From when to when the task to report next ran."""
        first = self.behind[0].split(1, 0)[0]
        return first.started_at, first.ended_at

    def chunk(self, position: int, offset: int, size_bytes: int) -> Any:
        """A part of a result, uncopied; None when there is no such part."""
        result = self.results.get(position)
        if result is None or not offset < offset + size_bytes <= len(result):
            return None
        return result[offset : offset + size_bytes]
