"""The optimised priority queue, which relies on runs arriving in the order of their ids.

A heap sorts anything. Here only returned tasks (a retry, a lost worker's tasks) are out of order,
so a sorted list serves: new runs are appended, returned ones are inserted. Served entries are
skipped at the front and cut off now and then.
"""

from __future__ import annotations

from bisect import insort
from typing import ClassVar

from cluster.core.queue import Fifo, Key, RunQueue
from cluster.core.run import Run

MAX_SERVED = 1_024


class SortedFifo(Fifo):
    """Runs of one level and need as a sorted list, with the index of the first unserved one."""

    __slots__ = ("_served",)

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self._served = 0

    def push(self, run: Run) -> None:
        """Add a run that is not in it."""
        run.queued_bits |= 1 << self.suspect
        entry, heap = (run.id, not self.suspect, run), self.heap
        if not heap or heap[-1] < entry:
            heap.append(entry)
        else:
            insort(heap, entry, self._served)
        if len(heap) > self.full:
            self.sweep()

    def first(self) -> tuple[int, bool, Run] | None:
        """The oldest entry; runs without waiting tasks are skipped."""
        heap, suspect = self.heap, self.suspect
        while self._served < len(heap):
            entry = heap[self._served]
            if entry[2].waiting[suspect]:
                return entry
            self.pop()
        self._cut()
        return None

    def pop(self) -> None:
        """Skip the entry that `first` found."""
        self.heap[self._served][2].queued_bits &= ~(1 << self.suspect)
        self._served += 1
        if self._served > MAX_SERVED:
            self._cut()

    def sweep(self) -> None:
        """As the plain FIFO does, after cutting off served entries."""
        self._cut()
        super().sweep()

    def _cut(self) -> None:
        del self.heap[: self._served]
        self._served = 0


class SortedQueue(RunQueue):
    """The plain queue with sorted FIFOs."""

    fifo: ClassVar[type[Fifo]] = SortedFifo
