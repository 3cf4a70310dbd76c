"""Message objects that are used again.

CPython makes a small object in some tens of nanoseconds, from free lists of its own. A pool with a
lock and counts has to save more than that to pay, and does not; see `perfkit.bench.goals.pools`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec

from perfkit.pool.base import Pool, UseAfterRelease, check_positive


class Message(msgspec.Struct):
    """A kind, a payload and headers, passed from one part of a program to another."""

    kind: str = ""
    payload: bytes | memoryview = b""
    headers: dict[str, Any] = {}

    def clear(self) -> None:
        """Reset every field, so that an idle message holds no other memory."""
        self.kind = ""
        self.payload = b""
        self.headers.clear()


class ReleasedMessage(Message):
    """A released message in debug mode; every use of a field raises UseAfterRelease."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise UseAfterRelease("this message was released and belongs to its pool")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise UseAfterRelease("this message was released and belongs to its pool")

    def __repr__(self) -> str:
        return "<released message>"


class MessagePool(Pool):
    """At most `size` idle messages; any number may be in use. Methods may be called from any
    thread.

    An acquire without an idle message makes one; a release beyond `size` leaves the message to the
    allocator. Messages are cleared at their release.

    In debug mode a released message becomes a `ReleasedMessage` and a new one takes its place.
    Double and foreign releases are errors then, and so are messages lent when the pool is closed.
    Otherwise nothing is checked: a message that is released twice is lent twice.

    Raises ValueError for a size below 1.
    """

    def __init__(self, size: int, *, debug: bool = False) -> None:
        check_positive(size=size)
        super().__init__(debug=debug)
        self.size = size
        self._idle: list[Message] = []

    def acquire(self) -> Message:
        """An empty message. Raises PoolClosed."""
        with self._lock:
            hit = bool(self._idle)
            if hit:
                message = self._idle.pop()
            else:
                self._check_open()
                message = Message()
            self._count(hit)
            if self.debug:
                self._lend(message)
        return message

    def release(self, message: Message) -> None:
        """Give a message back; do not use it afterwards.

        Raises DoubleRelease and ForeignRelease in debug mode.
        """
        if self.debug:
            with self._lock:
                self._take_back(message)
            message.clear()
            message.headers = _UNENCODABLE  # an encoder reads fields without asking the class
            message.__class__ = ReleasedMessage
            message = Message()
        else:
            message.clear()
        with self._lock:
            self._counts.in_use -= 1
            if len(self._idle) < self.size and not self._closed:
                self._idle.append(message)
                self._counts.idle += 1
            else:
                self._counts.dropped += 1

    @contextmanager
    def borrow(self) -> Iterator[Message]:
        """A message for the length of a with block."""
        message = self.acquire()
        try:
            yield message
        finally:
            self.release(message)

    def _was_released(self, thing: Any) -> bool:
        return type(thing) is ReleasedMessage

    def _drain(self) -> None:
        with self._lock:
            self._idle.clear()
            self._counts.idle = 0


_UNENCODABLE: Any = object()
