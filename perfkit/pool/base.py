"""What the pools share: their errors, their counts and a record of every loan.

The record knows each lent object by identity, so that a wrong release is noticed.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from cluster.vocabulary.errors import ClusterError


class PoolError(ClusterError):
    """A pool was used against its rules, or cannot do what it is asked."""


class PoolExhausted(PoolError):
    """The bound is reached and everything is in use; try again after a release."""


class ForeignRelease(PoolError):
    """The released object was not lent by this pool."""


class DoubleRelease(PoolError):
    """The object had been released before."""


class UseAfterRelease(PoolError):
    """An object was used after its release."""


class StillInUse(PoolError):
    """A buffer was released while a slice, an array or a message still used its memory."""


class NotReturned(PoolError):
    """A pool in debug mode was closed while objects were lent."""


class PoolClosed(PoolError):
    """A closed pool lends nothing."""


@dataclass(slots=True)
class PoolStats:
    """What a pool has done and holds.

    `hits` were served from idle objects, `misses` made a new one, `refused` hit a bound.
    `high_water` is the most that were in use at once. `dropped` objects were not kept at their
    release; `evicted` ones were idle and gave way to others or grew too old. Bytes are None where a
    pool does not know them.
    """

    hits: int = 0
    misses: int = 0
    refused: int = 0
    in_use: int = 0
    high_water: int = 0
    idle: int = 0
    dropped: int = 0
    evicted: int = 0
    idle_bytes: int | None = None
    in_use_bytes: int | None = None

    @property
    def hit_rate(self) -> float | None:
        """Hits over all loans, in 0..1; None before the first loan."""
        acquired = self.hits + self.misses
        return self.hits / acquired if acquired else None


class Pool(ABC):
    """Counts, loans, a lock and an end; subclasses keep the idle objects."""

    def __init__(self, *, debug: bool) -> None:
        self.debug = debug
        self._lock = threading.Lock()
        self._closed = False
        self._counts = PoolStats()
        #: By identity: the object, held so that its id stays its own, and what the pool needs to
        #: take it back.
        self._loans: dict[int, tuple[Any, Any]] = {}

    @property
    def stats(self) -> PoolStats:
        """A copy of the counts, taken at one moment."""
        with self._lock:
            return replace(self._counts)

    def close(self) -> None:
        """Give up idle objects; lent ones follow at their release. Safe to call twice.

        Raises NotReturned in debug mode if objects are still lent.
        """
        with self._lock:
            self._closed = True
            lent = [thing for thing, _ in self._loans.values()]
        self._drain()
        if self.debug and lent:
            raise NotReturned(
                f"{len(lent)} of this {type(self).__name__} were not released, such as {lent[0]!r}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # An error inside the block matters more than the objects it left out.
        with suppress(*[NotReturned] if error else []):
            self.close()

    @abstractmethod
    def _drain(self) -> None:
        """Give up everything idle."""

    @abstractmethod
    def _was_released(self, thing: Any) -> bool:
        """Whether an object that is not lent was lent before, as far as the pool can tell."""

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosed(f"this {type(self).__name__} is closed")

    def _refuse(self, reason: str) -> PoolExhausted:
        self._counts.refused += 1
        return PoolExhausted(reason)

    def _count(self, hit: bool) -> None:
        """Count one more object in use."""
        counts = self._counts
        if hit:
            counts.hits += 1
            counts.idle -= 1
        else:
            counts.misses += 1
        counts.in_use += 1
        if counts.in_use > counts.high_water:
            counts.high_water = counts.in_use

    def _lend(self, thing: Any, content: Any = None) -> None:
        """Record a loan."""
        self._loans[id(thing)] = (thing, content)

    def _take_back(self, thing: Any) -> Any:
        """The content of a loan, which ends; DoubleRelease or ForeignRelease."""
        loan = self._loans.pop(id(thing), None)
        if loan is not None:
            return loan[1]
        if self._was_released(thing):
            raise DoubleRelease("this object was released before")
        raise ForeignRelease(
            f"this pool has not lent {thing!r}; release the very object that was acquired"
        )


def check_positive(**numbers: float) -> None:
    """Raise ValueError for a bound of 0 or less."""
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be above 0, and is {number}")
