"""Sets of numbers as ranges: consecutive numbers take no more room than two ends.

Submissions and tasks are numbered, so finished ids are contiguous except around open ones: there
are about as many ranges as open ids, however long the past.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise


def as_ranges(positions: Iterable[int]) -> list[tuple[int, int]]:
    """Positions as sorted half-open ranges ``(start, stop)``, neighbours joined."""
    ordered = sorted(positions)
    joined = RangeSet(len(ordered))
    for position in ordered:
        joined.add(position)
    return [*joined]


class RangeSet:
    """A set of integers to which numbers are added, and whose lower end can be removed.

    ``len`` counts ranges. Over ``most`` of them the lowest two are joined with the gap between
    them. Adding the next number is O(1), a look-up O(log n), adding in the middle O(n).
    """

    __slots__ = ("_edges", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        #: starts and stops of the ranges, strictly rising, so a number is inside if an odd count
        #: of edges is not above it
        self._edges: list[int] = []

    def __len__(self) -> int:
        return len(self._edges) // 2

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The half-open ranges in rising order."""
        return islice(pairwise(self._edges), 0, None, 2)

    def __contains__(self, number: int) -> bool:
        return bisect_right(self._edges, number) % 2 == 1

    def add(self, number: int) -> None:
        """Add a number."""
        edges = self._edges
        if edges and number == edges[-1]:
            edges[-1] = number + 1
            return
        above = bisect_right(edges, number)
        if above % 2:
            return
        joins_below = above > 0 and edges[above - 1] == number
        joins_above = above < len(edges) and edges[above] == number + 1
        if joins_below and joins_above:
            del edges[above - 1 : above + 1]
        elif joins_below:
            edges[above - 1] = number + 1
        elif joins_above:
            edges[above] = number
        else:
            edges[above:above] = (number, number + 1)
            if len(self) > self._most:
                del edges[1:3]

    def forget_below(self, number: int) -> None:
        """Remove all numbers below ``number``."""
        above = bisect_right(self._edges, number)
        self._edges[:above] = [number] if above % 2 else []
