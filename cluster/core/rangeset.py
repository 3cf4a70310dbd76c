"""Numbers kept as ranges: what comes in order takes no more room than its two ends.

A client counts its submissions, and a run its tasks, so what is over of them lies together except
where something is still open: the ranges are about as many as the open ones, not as the past.
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
    """A set of whole numbers to which any may be added, and whose lower end may be cut off.

    ``len`` counts ranges. At ``most`` of them the lowest two become one, together with the gap
    between them. Adding the next number is O(1), asking O(log n), adding in the middle moves what
    lies above.
    """

    __slots__ = ("_edges", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        #: the first number of a stretch, the first one after it, and so on upwards: no two are
        #: equal, so a number is inside exactly if an odd count of edges is not above it
        self._edges: list[int] = []

    def __len__(self) -> int:
        return len(self._edges) // 2

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The ranges as half-open ranges, from below."""
        return islice(pairwise(self._edges), 0, None, 2)

    def __contains__(self, number: int) -> bool:
        return bisect_right(self._edges, number) % 2 == 1

    def add(self, number: int) -> None:
        """Take a number in, if it is not there already."""
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
        """Take out whatever is smaller than ``number``."""
        above = bisect_right(self._edges, number)
        self._edges[:above] = [number] if above % 2 else []
