"""How long a run of a model takes by its items, learned while it works, and how many items pay.

A larger batch costs a task more time and the processor less, up to a point that depends on the
model, its precision, the shape of its inputs and the machine. So it is measured, run by run, for
each bucket of shapes: a batch may grow while it yields more items a second, and shrinks when that
ends.
"""

from __future__ import annotations

from collections.abc import Hashable

SMOOTHING = 0.2
#: a batch of twice the items must yield this much more of them a second
WORTH_GROWING = 1.05
#: a size is judged after this many full runs, since the first may pay for a warm-up
JUDGED_RUNS = 3
#: after this many full runs a larger batch is tried again: the machine may be another by then
TRY_AGAIN_RUNS = 64
#: a run with this share of the items of a size counts for that size
FULL = 0.75
#: the buckets remembered; beyond that the oldest is forgotten
BUCKETS_MAX = 64


class BatchCurve:
    """The runs of one bucket. ``most`` bounds the items of a run; the first may hold ``items``."""

    def __init__(self, most: int, items: int = 1) -> None:
        #: how many items the next run may hold
        self.items = items
        self._most = most
        #: items a second by size, a power of two
        self._rates: dict[int, float] = {}
        #: full runs of the present size since it was chosen
        self._runs = 0
        #: of an exponentially weighted regression of seconds y on items x: sums of 1, x, y, xx, xy
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)

    def predict_s(self, items: int) -> float | None:
        """The time of a run; None before the first. Until runs differ in size it is taken to be
        proportional above the mean, and equal below it.
        """
        weight, x, y, xx, xy = self._sums
        if not weight:
            return None
        mean_items, mean_s = x / weight, y / weight
        spread = xx / weight - mean_items * mean_items
        if spread < 1e-3 * mean_items * mean_items:
            return mean_s * max(1.0, items / mean_items)
        slope = (xy / weight - mean_items * mean_s) / spread
        return max(0.0, mean_s + max(0.0, slope) * (items - mean_items))

    def observe(self, items: int, took_s: float) -> None:
        """Learn from a run."""
        new = 1.0, items, took_s, items * items, items * took_s
        weight, x, y, xx, xy = (
            old * (1.0 - SMOOTHING) + one for old, one in zip(self._sums, new, strict=True)
        )
        self._sums = weight, x, y, xx, xy
        size = 1 << (items - 1).bit_length()
        if took_s > 0.0 and items >= FULL * size:
            rate = items / took_s
            before = self._rates.get(size, rate)
            self._rates[size] = before + SMOOTHING * (rate - before)
            if size == self.items:
                self._runs += 1
                if self._runs >= JUDGED_RUNS:
                    self._resize()

    def _resize(self) -> None:
        """Grow while that pays, shrink if it does not any more."""
        rates, size = self._rates, self.items
        here, smaller, larger = rates[size], rates.get(size // 2), rates.get(size * 2)
        is_time_to_try = self._runs >= TRY_AGAIN_RUNS
        if size > 1 and (is_time_to_try if smaller is None else here < smaller * WORTH_GROWING):
            self._go_to(size // 2)
        elif 2 * size <= self._most and (
            larger is None or larger > here * WORTH_GROWING or is_time_to_try
        ):
            rates.pop(2 * size, None)
            self._go_to(2 * size)

    def _go_to(self, size: int) -> None:
        self.items, self._runs = size, 0


class BatchCurves:
    """The curves of one model by bucket; a new one begins where the bucket before it is."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._newest = BatchCurve(most)
        self._curves: dict[Hashable, BatchCurve] = {}

    def __getitem__(self, bucket: Hashable) -> BatchCurve:
        """The curve of a bucket, new if there is none yet."""
        curve = self._curves.get(bucket)
        if curve is None:
            if len(self._curves) >= BUCKETS_MAX:
                del self._curves[next(iter(self._curves))]
            curve = self._curves[bucket] = BatchCurve(self._most, self._newest.items)
        self._newest = curve
        return curve
