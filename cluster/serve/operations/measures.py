"""What the API measures of its own requests, without a library that would cost it memory.

`metrics.py` exposes these figures to Prometheus, and the live page shows the newest of them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import msgspec

#: upper bounds of the latency histogram that Prometheus is given
LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: each bucket of latency is cut into so many, so that quantiles are right within a few percent
CUTS = 8
#: models that are told apart; what is asked for beyond them counts as OTHER
MODELS_MAX = 128
OTHER = "other"
#: the live figures are of about this long, by snapshots at least SNAPSHOT_S apart
WINDOW_S, SNAPSHOT_S = 10.0, 0.9


def _cut(bounds: Sequence[float]) -> tuple[float, ...]:
    """The bounds with CUTS steps of equal ratio from each to the next."""
    lower = (bounds[0] / 10, *bounds)
    steps = (
        below * (above / below) ** (step / CUTS)
        for below, above in pairwise(lower)
        for step in range(1, CUTS)
    )
    return tuple(sorted((*bounds, *steps)))


FINE_S = _cut(LATENCY_S)


class Histogram:
    """How often each value came: ``counts[i]`` is up to ``bounds[i]``, the last one beyond."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self, bounds: Sequence[float]) -> list[tuple[str, float]]:
        """For Prometheus: how many values are at most each of ``bounds``, then how many there are.

        ``bounds`` are some of its own.
        """
        at, below = 0, 0
        buckets = []
        for bound in bounds:
            end = bisect_left(self.bounds, bound) + 1
            below += sum(self.counts[at:end])
            at = end
            buckets.append((str(float(bound)), float(below)))
        return [*buckets, ("+Inf", below + float(sum(self.counts[at:])))]


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """The value below which a ``share`` of the counted values lie; None without any.

    Within a bucket values count as spread evenly; above the last bound it is that bound.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    below = 0
    for place, count in enumerate(counts[:-1]):
        if count and below + count >= rank:
            lower = bounds[place - 1] if place else 0.0
            return lower + (bounds[place] - lower) * (rank - below) / count
        below += count
    return bounds[-1]


class Recent(msgspec.Struct, frozen=True):
    """Figures of the last ``window_s`` seconds; None is unknown yet.

    Errors are answers from 500 on, refusals those from 400 on.
    """

    total: int
    window_s: float | None = None
    per_s: float | None = None
    errors_per_s: float | None = None
    refused_per_s: float | None = None
    p50_s: float | None = None
    p99_s: float | None = None


class _Snapshot(msgspec.Struct, frozen=True):
    at_s: float
    requests: Counter[tuple[str, str, int]]
    latency: dict[tuple[str, str], list[int]]


class Measures:
    """Counts, latencies and batches of one API process, from its start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: by model, protocol and HTTP status
        self.requests: Counter[tuple[str, str, int]] = Counter()
        #: by model and protocol, in buckets of FINE_S
        self.latency: dict[tuple[str, str], Histogram] = {}
        self.queue_time: dict[tuple[str, str], Histogram] = {}
        self.items: dict[tuple[str, str], Histogram] = {}
        self._models: set[str] = set()
        self._snapshots: deque[_Snapshot] = deque()

    def observe(
        self, model: str, protocol: str, code: int, latency_s: float, queue_s: float, items: int
    ) -> None:
        """Count an answered request, its time in all and in the queue, and its items.

        A refusal (4xx) is only counted: it took no work, and would hide how long work takes.
        """
        pair = self._label(model, code), protocol
        self.requests[*pair, code] += 1
        if not 400 <= code < 500:
            _of(self.latency, pair, FINE_S).add(latency_s)
            _of(self.queue_time, pair, FINE_S).add(queue_s)
            _of(self.items, pair, ITEMS).add(items)

    def recent(self) -> tuple[Recent, dict[tuple[str, str], Recent]]:
        """The newest figures, of all requests and by model and protocol.

        They are of the time since an earlier call, so that nobody pays while nobody looks.
        """
        now = _Snapshot(
            self._clock(), self.requests.copy(), {k: [*h.counts] for k, h in self.latency.items()}
        )
        seen = self._snapshots
        while seen and seen[0].at_s < now.at_s - 1.5 * WINDOW_S:
            seen.popleft()
        while len(seen) > 1 and seen[1].at_s <= now.at_s - WINDOW_S:
            seen.popleft()
        before = seen[0] if seen and now.at_s - seen[0].at_s >= SNAPSHOT_S else None
        if not seen or now.at_s - seen[-1].at_s >= SNAPSHOT_S:
            seen.append(now)
        pairs = sorted({(model, protocol) for model, protocol, _ in now.requests})
        by_pair = {pair: _recent(before, now, [pair]) for pair in pairs}
        return _recent(before, now, pairs), by_pair

    def _label(self, model: str, code: int) -> str:
        """The model's name as a label. Labels must stay few, and names come from requests: one
        counts only once a request for it was not refused.
        """
        if model in self._models:
            return model
        if not model or 400 <= code < 500 or len(self._models) >= MODELS_MAX:
            return OTHER
        self._models.add(model)
        return model


def _of(
    family: dict[tuple[str, str], Histogram], pair: tuple[str, str], bounds: Sequence[float]
) -> Histogram:
    found = family.get(pair)
    if found is None:
        found = family[pair] = Histogram(bounds)
    return found


def _recent(before: _Snapshot | None, now: _Snapshot, pairs: Sequence[tuple[str, str]]) -> Recent:
    wanted = set(pairs)

    def counted(snapshot: _Snapshot, least: int, end: int) -> int:
        return sum(
            n for (model, protocol, code), n in snapshot.requests.items()
            if least <= code < end and (model, protocol) in wanted
        )  # fmt: skip

    total = counted(now, 0, 1000)
    if before is None:
        return Recent(total)
    window_s = now.at_s - before.at_s

    def per_s(least: int, end: int) -> float:
        return (counted(now, least, end) - counted(before, least, end)) / window_s

    fresh = [0] * (len(FINE_S) + 1)
    for grown in _grown(before, now, wanted):
        fresh = [a + b for a, b in zip(fresh, grown, strict=True)]
    return Recent(
        total,
        window_s,
        per_s=per_s(0, 1000),
        errors_per_s=per_s(500, 1000),
        refused_per_s=per_s(400, 500),
        p50_s=quantile(fresh, FINE_S, 0.5),
        p99_s=quantile(fresh, FINE_S, 0.99),
    )


def _grown(before: _Snapshot, now: _Snapshot, pairs: set[tuple[str, str]]) -> Iterator[list[int]]:
    """By pair, how far each bucket has grown."""
    for pair in pairs & now.latency.keys():
        counts = now.latency[pair]
        old = before.latency.get(pair)
        yield counts if old is None else [a - b for a, b in zip(counts, old, strict=True)]
