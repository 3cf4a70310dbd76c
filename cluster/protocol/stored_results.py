"""Results too large for a report, stored by the worker as the only copy until they are fetched.

A lease is reported in order, so outcomes after a large result wait behind it here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from cluster.vocabulary.task import Failure


class FinishedTasks(NamedTuple):
    """Outcomes of the next tasks of a lease, and when the first started and the last ended."""

    outcomes: list[bytes]
    failures: list[Failure]
    started_at: float
    ended_at: float

    def split(self, count: int, first: int) -> tuple[FinishedTasks, FinishedTasks]:
        """The first ``count`` outcomes and the rest, with their share of the time; ``first`` is the
        position of the first outcome.
        """
        share_s = (self.ended_at - self.started_at) * count / len(self.outcomes)
        between_s = self.started_at + share_s
        before = [f for f in self.failures if f.position < first + count]
        after = self.failures[len(before) :]
        return (
            FinishedTasks(self.outcomes[:count], before, self.started_at, between_s),
            FinishedTasks(self.outcomes[count:], after, between_s, self.ended_at),
        )

    def parts(self, most_bytes: int, first: int) -> Iterator[FinishedTasks]:
        """All outcomes, cut into single ones while they are larger than ``most_bytes``."""
        rest = self
        while len(rest.outcomes) > 1 and sum(map(len, rest.outcomes)) > most_bytes:
            one, rest = rest.split(1, first)
            first += 1
            yield one
        yield rest


class StoredResults:
    """The large results of a lease by position, and the outcomes ``behind`` them.

    The buffers are the handlers' own, not copies. A handler's thread may store one at any moment,
    so iterations copy the keys or values to a list first, in one atomic step.
    """

    __slots__ = ("behind", "results")

    def __init__(self) -> None:
        self.results: dict[int, memoryview] = {}
        self.behind: deque[FinishedTasks] = deque()

    @property
    def size_bytes(self) -> int:
        """Bytes of all results."""
        return sum(map(len, list(self.results.values())))

    def put(self, position: int, result: bytes | bytearray | memoryview) -> None:
        """Store a result uncopied, or a copy if it is not contiguous."""
        view = memoryview(result)
        flat = view if view.c_contiguous else memoryview(bytes(view))
        self.results[position] = flat.cast("B")

    def drop(self, unwanted: Collection[int]) -> None:
        """Drop results that were fetched or cancelled."""
        for position in [p for p in list(self.results) if p in unwanted] if unwanted else ():
            del self.results[position]

    def take(self, position: int) -> FinishedTasks | None:
        """Outcomes from ``position`` to the next large result; None if there are none before it."""
        if not self.behind or position in self.results:
            return None
        finished = self.behind.popleft()
        stop = position + len(finished.outcomes)
        large = min((p for p in list(self.results) if position < p < stop), default=stop)
        if large == stop:
            return finished
        ready, rest = finished.split(large - position, position)
        self.behind.appendleft(rest)
        return ready

    def announced(self, position: int) -> int | None:
        """The size of the result of the task to report next, if it is a large one."""
        result = self.results.get(position)
        return len(result) if result is not None and self.behind else None

    def times(self) -> tuple[float, float]:
        """When the task to report next started and ended."""
        first = self.behind[0].split(1, 0)[0]
        return first.started_at, first.ended_at

    def chunk(self, position: int, offset: int, size_bytes: int) -> Any:
        """A part of a result, uncopied; None if there is no such part."""
        result = self.results.get(position)
        if result is None or not offset < offset + size_bytes <= len(result):
            return None
        return result[offset : offset + size_bytes]
