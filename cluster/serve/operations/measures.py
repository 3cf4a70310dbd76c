"""What the API measures of its own requests, without a library that would cost it memory.

`metrics.py` exposes these figures to Prometheus, and the live page shows the newest of them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import msgspec

#: a model and a protocol
Pair: TypeAlias = tuple[str, str]
#: upper bounds of the latency histogram that Prometheus is given
LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: the parts of each bucket of latency, so that quantiles are right within a few percent
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


class Series:
    """The answers about one model over one protocol, counted by HTTP status, and what they took."""

    __slots__ = ("codes", "items", "latency", "queue_time")

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.latency = Histogram(FINE_S)
        self.queue_time = Histogram(FINE_S)
        self.items = Histogram(ITEMS)


class _Snapshot(NamedTuple):
    """At a time, each series' counts by status and by bucket of latency."""

    at_s: float
    counts: dict[Pair, tuple[Counter[int], list[int]]]


class Measures:
    """Counts, latencies and items of one API process, from its start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: by model and protocol
        self.series: dict[Pair, Series] = {}
        self._models: set[str] = set()
        self._snapshots: deque[_Snapshot] = deque()

    def observe(
        self, model: str, protocol: str, code: int, latency_s: float, queue_s: float, items: int
    ) -> None:
        """Count an answered request, its time in all and in the queue, and its items.

        A refusal (4xx) is only counted: it took no work, and would hide how long work takes.
        """
        series = self.series.get((model, protocol)) or self._series_of(model, protocol, code)
        series.codes[code] += 1
        if not 400 <= code < 500:
            series.latency.add(latency_s)
            series.queue_time.add(queue_s)
            series.items.add(items)

    def recent(self) -> tuple[Recent, dict[Pair, Recent]]:
        """The newest figures, of all requests and by model and protocol.

        They are of the time since an earlier call, so that nobody pays while nobody looks.
        """
        counts = {k: (s.codes.copy(), [*s.latency.counts]) for k, s in self.series.items()}
        now = _Snapshot(self._clock(), counts)
        seen = self._snapshots
        while seen and seen[0].at_s < now.at_s - 1.5 * WINDOW_S:
            seen.popleft()
        while len(seen) > 1 and seen[1].at_s <= now.at_s - WINDOW_S:
            seen.popleft()
        before = seen[0] if seen and now.at_s - seen[0].at_s >= SNAPSHOT_S else None
        if not seen or now.at_s - seen[-1].at_s >= SNAPSHOT_S:
            seen.append(now)
        by_pair = {pair: _recent(before, now, [pair]) for pair in sorted(counts)}
        return _recent(before, now, [*counts]), by_pair

    def _series_of(self, model: str, protocol: str, code: int) -> Series:
        """A new series, or that of OTHER models. Series must stay few, and names come from
        requests: a model gets one only once a request for it was not refused.
        """
        if model not in self._models:
            if not model or 400 <= code < 500 or len(self._models) >= MODELS_MAX:
                model = OTHER
            else:
                self._models.add(model)
        return self.series.setdefault((model, protocol), Series())


def _recent(before: _Snapshot | None, now: _Snapshot, pairs: Sequence[Pair]) -> Recent:
    total = sum(now.counts[pair][0].total() for pair in pairs)
    if before is None:
        return Recent(total)
    nothing: tuple[Counter[int], list[int]] = Counter(), [0] * (len(FINE_S) + 1)
    codes, buckets = Counter[int](), nothing[1]
    for pair in pairs:
        (old_codes, old), (new_codes, new) = before.counts.get(pair, nothing), now.counts[pair]
        codes += new_codes - old_codes
        buckets = [sum(b) - o for *b, o in zip(buckets, new, old, strict=True)]
    window_s = now.at_s - before.at_s
    return Recent(
        total,
        window_s,
        per_s=codes.total() / window_s,
        errors_per_s=sum(n for code, n in codes.items() if code >= 500) / window_s,
        refused_per_s=sum(n for code, n in codes.items() if 400 <= code < 500) / window_s,
        p50_s=quantile(buckets, FINE_S, 0.5),
        p99_s=quantile(buckets, FINE_S, 0.99),
    )
