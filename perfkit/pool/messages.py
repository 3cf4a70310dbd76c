"""Message objects, used over and over instead of made anew.

CPython makes a small object in some tens of nanoseconds, from free lists of its own, so a pool with
a lock and counts has to save more than that to pay.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Generic, NoReturn, Protocol, TypeVar, overload

import msgspec

from perfkit.pool.base import (
    Book,
    DoubleRelease,
    ForeignRelease,
    Pool,
    PoolStats,
    UseAfterRelease,
    check_positive,
)


class Clearable(Protocol):
    """What can forget what it holds, as lists and dicts do."""

    def clear(self) -> object:
        """Become as good as new."""


T = TypeVar("T", bound=Clearable)


class Message(msgspec.Struct):
    """What one part of a program hands another: a kind, a payload, and words about it."""

    kind: str = ""
    payload: bytes | memoryview = b""
    headers: dict[str, Any] = {}

    def clear(self) -> None:
        """Let go of the payload, too: what is idle holds no memory but its own."""
        self.kind = ""
        self.payload = b""
        self.headers.clear()


class MessagePool(Pool, Generic[T]):
    """At most `size` idle messages in at most `max_bytes`; any number may be in use.

    An acquire that finds none idle makes one with `factory`; a release beyond `size`, or of a
    message that has grown over its share of the bytes (`max_bytes / size`, counted without what it
    refers to), leaves it to the allocator. Messages are cleared when they are released. Methods may
    be called from any thread.

    In debug mode a released message never comes back: it is given another class, every use of
    which raises UseAfterRelease, and a new one takes its place. Double and foreign releases, and
    messages that are out when the pool is closed, are errors then. Otherwise nobody looks, and a
    message that was released twice is handed out twice.

    Raises ValueError for bounds below 1 and, in debug mode, for messages whose class is fixed,
    such as plain dicts; a subclass will do.
    """

    @overload
    def __init__(
        self: MessagePool[Message], size: int, *, max_bytes: int = ..., debug: bool = ...
    ) -> None: ...

    @overload
    def __init__(
        self, size: int, factory: Callable[[], T], *, max_bytes: int = ..., debug: bool = ...
    ) -> None: ...

    def __init__(
        self,
        size: int,
        factory: Callable[[], Any] = Message,
        *,
        max_bytes: int = 1 << 20,
        debug: bool = False,
    ) -> None:
        check_positive(size=size, max_bytes=max_bytes)
        super().__init__(debug=debug)
        self.size = size
        self._room = size
        self._share_bytes = max_bytes // size
        self._factory: Callable[[], T] = factory
        self._idle: list[T] = []
        self._in_use = 0
        self._book = Book(sites=True) if debug else None
        if debug:
            _spend(factory())

    def acquire(self) -> T:
        """A message as `factory` makes them. Raises PoolClosed."""
        with self._lock:
            idle = self._idle
            if idle:
                message = idle.pop()
                self._hits += 1
            else:
                self._check_open()
                message = self._factory()
                self._misses += 1
            in_use = self._in_use = self._in_use + 1
            if in_use > self._high_water:
                self._high_water = in_use
            if self._book is not None:
                self._book.lend(message)
        return message

    def release(self, message: T) -> None:
        """Give a message back, once, and do not touch it again.

        Raises DoubleRelease and ForeignRelease in debug mode.
        """
        if self._book is not None:
            self._strike_out(message)
        message.clear()
        if self._book is not None:
            _spend(message)
            message = self._factory()
        with self._lock:
            self._in_use -= 1
            idle = self._idle
            if len(idle) < self._room and sys.getsizeof(message) <= self._share_bytes:
                idle.append(message)
            else:
                self._dropped += 1

    @contextmanager
    def borrow(self) -> Iterator[T]:
        """A message for the length of a with block."""
        message = self.acquire()
        try:
            yield message
        finally:
            self.release(message)

    def preallocate(self, count: int | None = None) -> None:
        """Make messages until so many are idle, `size` if not said; more than that is no error."""
        wanted = self.size if count is None else min(count, self.size)
        with self._lock:
            self._check_open()
            while len(self._idle) < wanted:
                self._idle.append(self._factory())

    @property
    def stats(self) -> PoolStats:
        """The counts so far; what is in use is counted, its bytes are not known."""
        with self._lock:
            return PoolStats(
                hits=self._hits,
                misses=self._misses,
                refused=self._refused,
                in_use=self._in_use,
                high_water=self._high_water,
                idle=len(self._idle),
                dropped=self._dropped,
                idle_bytes=sum(map(sys.getsizeof, self._idle)),
            )

    def _drain(self) -> list[str]:
        with self._lock:
            self._room = 0
            self._idle.clear()
            return self._book.sites() if self._book is not None else []

    def _strike_out(self, message: T) -> None:
        assert self._book is not None
        if type(message) is _released_class(type(message)):
            raise DoubleRelease(f"{message!r} was released before")
        with self._lock:
            if self._book.take_back(message) is None:
                raise ForeignRelease(f"this pool has not lent {message!r}")


def _spend(message: Any) -> None:
    """Make every further use of a message an error."""
    cls: type = type(message)
    for name in getattr(cls, "__struct_fields__", ()):
        setattr(message, name, _RELEASED)
    try:
        message.__class__ = _released_class(cls)
    except TypeError:
        raise ValueError(
            f"debug mode cannot watch a {cls.__name__}, whose class is fixed; "
            f"pool a subclass of it, or a msgspec.Struct"
        ) from None


class Released:
    """In every field of a released struct: an encoder reads fields without asking the class."""


_RELEASED = Released()
#: What a class may define beside plain attributes that reaches into its instances.
_USES = (
    "__getattribute__ __setattr__ __delattr__ __getitem__ __setitem__ __delitem__ __len__ __iter__ "
    "__contains__ __bool__ __eq__"
).split()


@cache
def _released_class(cls: type) -> type:
    """The class of released instances of a class; of a class like that, the class itself."""
    if getattr(cls, "is_released", False):
        return cls

    def refuse(*_: object) -> NoReturn:
        raise UseAfterRelease(f"this {cls.__name__} was released and is its pool's")

    namespace: dict[str, Any] = {name: refuse for name in _USES if hasattr(cls, name)}
    namespace |= {"__repr__": lambda _: f"<released {cls.__name__}>", "is_released": True}
    if not isinstance(cls, type(msgspec.Struct)):
        namespace["__slots__"] = ()  # the same layout, or an instance could not change over
    return type(cls)(f"Released{cls.__name__}", (cls,), namespace)
