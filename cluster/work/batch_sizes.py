"""How the batches of a worker's models form: runs, items and time by size, for its operators."""

from __future__ import annotations

import threading
from collections.abc import Collection

from cluster.vocabulary.task import BATCH_SIZES, BatchSize, KindBatches


class BatchSizes:
    """The runs of each model by a power of two of their items, counted up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_kind: dict[str, list[BatchSize]] = {}

    def add(self, kind: str, items: int, busy_s: float) -> None:
        """Count a run of at least one item."""
        place = min((items - 1).bit_length(), BATCH_SIZES - 1)
        with self._lock:
            sizes = self._by_kind.setdefault(kind, [])
            sizes += [BatchSize()] * (place + 1 - len(sizes))
            old = sizes[place]
            sizes[place] = BatchSize(old.runs + 1, old.items + items, old.busy_s + busy_s)

    def told(self, kinds: Collection[str]) -> list[KindBatches]:
        """The counts of these kinds so far; others are forgotten, as their models are unloaded."""
        with self._lock:
            for kind in self._by_kind.keys() - set(kinds):
                del self._by_kind[kind]
            return [KindBatches(kind, sizes.copy()) for kind, sizes in self._by_kind.items()]

    def clear(self) -> None:
        """Count from zero."""
        with self._lock:
            self._by_kind.clear()
