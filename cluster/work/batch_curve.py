"""How long a run of a model takes by its items, learned while it works, and how many items pay.

A larger batch costs a task more time and the processor less, up to a point that depends on the
model, its precision, the shape of its inputs and the machine. So it is measured, run by run, for
each bucket of shapes: a batch may grow while it yields more items a second, and shrinks when that
ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

SMOOTHING = 0.2
#: a batch of twice the items must yield this much more of them a second
WORTH_GROWING = 1.05
#: A size is judged by the best of as many of its last full runs: other work on the machine only
#: makes a run slower.
JUDGED_RUNS = 6
#: after this many full runs another size is tried again: the machine may be another by then
TRY_AGAIN_RUNS = 64
#: a run with this share of the items of a size counts for that size
FULL = 0.75
#: When every run would come too late, one is begun all the same after this many times its length:
#: what was learned may be of a cold start or a stall.
DOUBTED_RUNS = 10
#: the buckets remembered; beyond that the oldest is forgotten
BUCKETS_MAX = 64


class BatchCurve:
    """The runs of one bucket. ``most`` bounds the items of a run; the first may hold ``items``."""

    def __init__(self, most: int, items: int = 1) -> None:
        #: how many items the next run may hold
        self.items = items
        self._most = most
        #: items a second of the last full runs by size, a power of two
        self._rates: dict[int, deque[float]] = {}
        #: full runs of the present size since it was chosen
        self._runs = 0
        #: how often a neighbour was tried again
        self._tries = 0
        #: of an exponentially weighted regression of seconds y on items x: sums of 1, x, y, xx, xy
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        #: when a run was first refused since the last one
        self._refused_at: float | None = None

    def refuse(self, takes_s: float, now: float) -> bool:
        """Whether a run that comes too late may be refused; if not, its time is forgotten."""
        if self._refused_at is None:
            self._refused_at = now
        if now - self._refused_at < DOUBTED_RUNS * takes_s:
            return True
        self._sums, self._refused_at = (0.0, 0.0, 0.0, 0.0, 0.0), None
        return False

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
        self._refused_at = None
        size = 1 << (items - 1).bit_length()
        if took_s > 0.0 and items >= FULL * size:
            self._rates.setdefault(size, deque(maxlen=JUDGED_RUNS)).append(items / took_s)
            if size == self.items:
                self._runs += 1
                if self._runs >= JUDGED_RUNS:
                    self._resize()

    def _resize(self) -> None:
        """Grow while that pays, shrink if it does not any more; now and then measure a neighbour
        again, the smaller and the larger one in turn.
        """
        size = self.items
        best = {other: max(rates) for other, rates in self._rates.items()}
        here, smaller, larger = best[size], best.get(size // 2), best.get(size * 2)
        has_larger = 2 * size <= self._most
        if smaller is not None and here < smaller * WORTH_GROWING:
            self._go_to(size // 2)
        elif has_larger and (larger is None or larger > here * WORTH_GROWING):
            self._go_to(2 * size)
        elif size > 1 and smaller is None and self._runs >= 2 * JUDGED_RUNS:  # it began here
            self._go_to(size // 2)
        elif self._runs >= TRY_AGAIN_RUNS:
            self._tries += 1
            other = 2 * size if has_larger and (self._tries % 2 or size == 1) else size // 2
            if other:
                self._rates.pop(other, None)
                self._go_to(other)

    def _go_to(self, size: int) -> None:
        self.items, self._runs = size, 0


class BatchCurves:
    """The curves of one model by bucket; a new one begins where the bucket before it is."""

    def __init__(self, most: int) -> None:
        self.most = most
        #: the curve of the last bucket that ran
        self.newest = BatchCurve(most)
        self._curves: dict[Hashable, BatchCurve] = {}
        #: how many items a task has, as an exponentially weighted mean over runs
        self._task_items = 0.0

    def __getitem__(self, bucket: Hashable) -> BatchCurve:
        """The curve of a bucket, new if there is none yet."""
        curve = self._curves.get(bucket)
        if curve is None:
            if len(self._curves) >= BUCKETS_MAX:
                del self._curves[next(iter(self._curves))]
            curve = self._curves[bucket] = BatchCurve(self.most, self.newest.items)
        self.newest = curve
        return curve

    def observe(self, items: int, tasks: int) -> None:
        """Learn from a run how many items a task has."""
        new = items / tasks
        old = self._task_items or new
        self._task_items = old + SMOOTHING * (new - old)

    def tasks_wanted(self, items_max: int) -> int:
        """How many tasks make a batch of twice the items that pay, so that it can be tried whether
        those pay, too; of at most ``items_max`` items, or of one task.
        """
        items = min(self.most, items_max, 2 * self.newest.items)
        return max(1, round(items / (self._task_items or 1.0)))
