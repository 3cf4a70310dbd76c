"""What all pools have in common: their errors, their counts, and the book of what is lent.

The book knows every object that is out by its identity, so a release can be told from a second one
and from one of something else. In debug mode it also notes where each was acquired, and closing a
pool that did not get everything back says where that was.
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from cluster.vocabulary.errors import ClusterError

_HERE = str(Path(__file__).parent)
#: How many places a complaint about what was not returned names.
_SITES_NAMED = 3


class PoolError(ClusterError):
    """A pool was used against its rules, or cannot do what is asked of it."""


class PoolExhausted(PoolError):
    """The bound is reached and all that is held is in use; try again when something is released."""


class ForeignRelease(PoolError):
    """What was released is not this pool's."""


class DoubleRelease(PoolError):
    """What was released had been released before."""


class UseAfterRelease(PoolError):
    """What was released is the pool's again, and was used."""


class StillInUse(PoolError):
    """A buffer was released while something still looked at its memory."""


class NotReturned(PoolError):
    """A pool in debug mode was closed before it had everything back."""


class PoolClosed(PoolError):
    """A closed pool hands out nothing."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool did and holds.

    `hits` were answered from what was idle, `misses` made something new, `refused` got nothing
    because of a bound. `high_water` is the most that was in use at one time. `dropped` were
    released but not kept, `evicted` gave way to others, `expired` were idle for too long. Sizes
    are None where a pool cannot know them.
    """

    hits: int
    misses: int
    refused: int
    in_use: int
    high_water: int
    idle: int
    dropped: int
    evicted: int = 0
    expired: int = 0
    idle_bytes: int | None = None
    in_use_bytes: int | None = None
    high_water_bytes: int | None = None

    @property
    def hit_rate(self) -> float | None:
        """Hits over all that was handed out, in 0..1; None before the first."""
        acquired = self.hits + self.misses
        return self.hits / acquired if acquired else None


#: An entry of the book: the object that is out, what the pool needs to take it back, and where it
#: was acquired ("" unless in debug mode). A plain tuple: it is made for everything that is lent.
Lent: TypeAlias = tuple[Any, Any, str]


class Book:
    """Everything that is lent. Not locked: the pool's lock is held around every call."""

    def __init__(self, *, sites: bool) -> None:
        self._sites = sites
        # Holding the object keeps its id from being another's.
        self._lent: dict[int, Lent] = {}

    def __len__(self) -> int:
        return len(self._lent)

    def lend(self, thing: Any, content: Any = None) -> None:
        """Note that it is out."""
        self._lent[id(thing)] = (thing, content, _caller() if self._sites else "")

    def take_back(self, thing: Any) -> Lent | None:
        """The entry, struck out; None if there is none."""
        return self._lent.pop(id(thing), None)

    def sites(self) -> list[str]:
        """Where what is still out was acquired, in that order."""
        return [site for _, _, site in self._lent.values()]


class Pool(ABC):
    """Counts, a lock, and an end; what is pooled, and how, is the subclass's."""

    def __init__(self, *, debug: bool) -> None:
        self.debug = debug
        self._lock = threading.Lock()
        self._closed = False
        self._hits = self._misses = self._refused = self._dropped = 0
        self._high_water = 0

    @property
    @abstractmethod
    def stats(self) -> PoolStats:
        """The counts so far, taken at one moment."""

    @abstractmethod
    def _drain(self) -> list[str]:
        """Give up all that is idle; where what is still out was acquired, as far as known."""

    def close(self) -> None:
        """Let go of what is idle; what is in use follows when it is released. Safe to call twice.

        Raises NotReturned in debug mode if anything is still in use.
        """
        self._closed = True
        sites = self._drain()
        if self.debug and sites:
            where = ", ".join(dict.fromkeys(sites[:_SITES_NAMED]))
            raise NotReturned(
                f"{len(sites)} of this {type(self).__name__} were never released; "
                f"acquired at {where}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except NotReturned:
            # What went wrong inside is the news; that something was not released follows from it.
            if error is None:
                raise

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosed(f"this {type(self).__name__} is closed")

    def _refuse(self, reason: str) -> PoolExhausted:
        self._refused += 1
        return PoolExhausted(reason)

    def _count(self, hit: bool, in_use: int) -> None:
        self._hits += hit
        self._misses += not hit
        if in_use > self._high_water:
            self._high_water = in_use


def check_positive(**numbers: float) -> None:
    """Raise ValueError for a bound that leaves no room for anything."""
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be above 0, and is {number}")


def _caller() -> str:
    """The nearest place outside of the pools and of contextlib, which stands before `borrow`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_HERE)
        or frame.f_globals.get("__name__") == "contextlib"
    ):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
