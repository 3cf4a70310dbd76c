"""The rate of many workers from the times at which each has begun its tasks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

#: Starts of a worker that do not count: leases begin small.
WARM_UP_STARTS = 3


def efficiencies(starts: Sequence[Sequence[float]], service_s: float, blocks: int) -> list[float]:
    """The share of the best rate in each of some parts of the time in which every worker had work;
    nothing if there is no such time.

    Between two starts a worker counts as that much further, so that no block gains from an edge.
    """
    if min(map(len, starts)) <= WARM_UP_STARTS + 1:
        return []
    began_s = max(mine[WARM_UP_STARTS] for mine in starts)
    ended_s = min(mine[-1] for mine in starts)
    block_s = (ended_s - began_s) / blocks
    if block_s <= 0:
        return []
    edges = [began_s + block_s * n for n in range(blocks + 1)]
    done = [sum(_progress(mine, edge) for mine in starts) for edge in edges]
    return [(b - a) * service_s / block_s / len(starts) for a, b in pairwise(done)]


def _progress(starts: Sequence[float], at_s: float) -> float:
    """Tasks that a worker has run by a time, parts of one included."""
    place = min(bisect_right(starts, at_s), len(starts) - 1)
    before_s, after_s = starts[place - 1], starts[place]
    return place - 1 + (at_s - before_s) / (after_s - before_s)
