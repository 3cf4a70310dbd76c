"""Timers as data: which key is due when."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K")


class Timers(Generic[K]):
    """A heap of (due, key) where a newer time for a key replaces the older one.

    Replaced and cleared entries stay in the heap until they surface or outnumber the live ones, so
    the heap never holds more than twice what is set, plus a constant.
    """

    def __init__(self) -> None:
        self._due: dict[K, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def due(self, key: K) -> float | None:
        """When ``key`` is due; None if it is not set."""
        entry = self._due.get(key)
        return entry[0] if entry is not None else None

    def set(self, key: K, due: float) -> None:
        """Make ``key`` due at ``due``, replacing its earlier time."""
        self._sequence += 1
        self._due[key] = (due, self._sequence)
        heappush(self._heap, (due, self._sequence, key))
        self._tidy()

    def clear(self, key: K) -> None:
        """Forget ``key``; nothing happens if it was not set."""
        self._due.pop(key, None)
        self._tidy()

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [(d, s, k) for k, (d, s) in self._due.items()]
            heapify(self._heap)

    def next_due(self) -> float | None:
        """When the earliest timer is due, or None when none is set."""
        heap = self._heap
        while heap:
            due, sequence, key = heap[0]
            if self._due.get(key) == (due, sequence):
                return due
            heappop(heap)
        return None

    def pop(self, now: float) -> K | None:
        """Remove and return one key that is due, the earliest first; None when none is."""
        due = self.next_due()
        if due is None or due > now:
            return None
        key = heappop(self._heap)[2]
        del self._due[key]
        return key
