"""Connections kept open between uses, because opening one takes a handshake and often a thread.

What a connection is, is the caller's: `ConnectionPool(Client)` pools clients of a cluster by their
endpoint, and anything else with a `close()` that can be opened by a key will do:

    with ConnectionPool(Client) as clients, clients.borrow("tcp://127.0.0.1:5555") as client:
        client.submit("echo", b"x").result(timeout=5)
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from perfkit.pool.base import (
    Book,
    DoubleRelease,
    ForeignRelease,
    Pool,
    PoolClosed,
    PoolStats,
    UseAfterRelease,
    check_positive,
)

log = logging.getLogger(__name__)


class Closeable(Protocol):
    """What can be given up for good."""

    def close(self) -> object:
        """End it."""


K = TypeVar("K", bound=Hashable)
C = TypeVar("C", bound=Closeable)


class Idle(NamedTuple, Generic[K, C]):
    """A connection that waits, and since when by the pool's clock."""

    key: K
    connection: C
    since_s: float


class ConnectionPool(Pool, Generic[K, C]):
    """At most `size` connections, each lent to one user at a time; methods may be called from any
    thread.

    `connect(key)` opens one. An acquire takes the connection of its key that was released last. If
    there is none, and the bound is reached, the one that has been idle longest is closed; one in
    use never is, so if all are in use it raises PoolExhausted. What was idle for `idle_s`, by
    `clock` in seconds, is closed by the next acquire or release, or by `expire` where those are
    rare.

    Release a connection when it has nothing under way any more: closing a Client cancels what is
    not done. Double and foreign releases are errors always. In debug mode a connection is lent
    behind a stand-in that does all it does but is of another class, so that a use after its release
    is an error, too, as is closing the pool while connections are in use.
    """

    def __init__(
        self,
        connect: Callable[[K], C],
        *,
        size: int = 8,
        idle_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        debug: bool = False,
    ) -> None:
        check_positive(size=size, idle_s=idle_s)
        super().__init__(debug=debug)
        self.size = size
        self.idle_s = idle_s
        self._connect = connect
        self._clock = clock
        self._book = Book(sites=debug)
        #: by identity, the one released longest ago first
        self._idle: OrderedDict[int, Idle[K, C]] = OrderedDict()
        self._opening = 0
        self._evicted = self._expired = 0

    def acquire(self, key: K) -> C:
        """A connection for the key, an idle one if there is one.

        Raises PoolExhausted, PoolClosed, and what `connect` raises.
        """
        leaving: list[C] = []
        try:
            with self._lock:
                self._check_open()
                self._take_expired(leaving)
                found = self._take_idle(key)
                if found is not None:
                    return self._lend(key, found, hit=True)
                self._make_room(key, leaving)
                self._opening += 1
        finally:
            _close_all(leaving)
        return self._open(key)

    def release(self, connection: C) -> None:
        """Give a connection back. Raises DoubleRelease and ForeignRelease."""
        leaving: list[C] = []
        with self._lock:
            key, own = self._take_back(connection)
            if self._closed:
                self._dropped += 1
                leaving.append(own)
            else:
                self._idle[id(own)] = Idle(key, own, self._clock())
            self._take_expired(leaving)
        _close_all(leaving)

    def discard(self, connection: C) -> None:
        """Give a connection back that is of no more use: it is closed. Raises as release does."""
        with self._lock:
            _, own = self._take_back(connection)
            self._dropped += 1
        _close_all([own])

    @contextmanager
    def borrow(self, key: K) -> Iterator[C]:
        """A connection for the length of a with block; discarded if the block raises, since nobody
        knows then what is still under way on it.
        """
        connection = self.acquire(key)
        try:
            yield connection
        except BaseException:
            self.discard(connection)
            raise
        self.release(connection)

    def preallocate(self, key: K, count: int = 1) -> None:
        """Open connections until so many of the key are idle. Raises as acquire does."""
        opened: list[C] = []
        try:
            while len(opened) < count:
                opened.append(self.acquire(key))
        finally:
            for connection in opened:
                self.release(connection)

    def expire(self) -> int:
        """Close what was idle for too long; how many those were."""
        leaving: list[C] = []
        with self._lock:
            self._take_expired(leaving)
        _close_all(leaving)
        return len(leaving)

    @property
    def stats(self) -> PoolStats:
        """The counts so far; `dropped` were discarded, or released after the pool was closed."""
        with self._lock:
            return PoolStats(
                hits=self._hits,
                misses=self._misses,
                refused=self._refused,
                in_use=len(self._book),
                high_water=self._high_water,
                idle=len(self._idle),
                dropped=self._dropped,
                evicted=self._evicted,
                expired=self._expired,
            )

    def _open(self, key: K) -> C:
        """Connect, without holding up anyone else; the place for it is taken already."""
        try:
            connection = self._connect(key)
        except BaseException:
            with self._lock:
                self._opening -= 1
            raise
        with self._lock:
            self._opening -= 1
            if not self._closed:
                return self._lend(key, connection, hit=False)
        _close_all([connection])
        raise PoolClosed("this pool was closed while a connection was being opened")

    def _lend(self, key: K, connection: C, *, hit: bool) -> C:
        out = cast(C, StandIn(connection)) if self.debug else connection
        self._book.lend(out, (key, connection))
        self._count(hit, len(self._book))
        return out

    def _take_back(self, connection: C) -> tuple[K, C]:
        lent = self._book.take_back(connection)
        if lent is None:
            if id(connection) in self._idle or _is_spent(connection):
                raise DoubleRelease("this connection was released before")
            raise ForeignRelease(f"this pool has not lent {connection!r}")
        if self.debug:
            object.__setattr__(connection, "_connection", None)
        key_and_own: tuple[K, C] = lent[1]
        return key_and_own

    def _take_idle(self, key: K) -> C | None:
        for place, idle in reversed(self._idle.items()):
            if idle.key == key:
                del self._idle[place]
                return idle.connection
        return None

    def _take_expired(self, leaving: list[C]) -> None:
        if not self._idle:
            return
        over_s = self._clock() - self.idle_s
        while self._idle and next(iter(self._idle.values())).since_s <= over_s:
            leaving.append(self._idle.popitem(last=False)[1].connection)
            self._expired += 1

    def _make_room(self, key: K, leaving: list[C]) -> None:
        if len(self._idle) + len(self._book) + self._opening < self.size:
            return
        if not self._idle:
            raise self._refuse(
                f"no connection to {key!r} is free, and all {self.size} that may be open are in use"
            )
        leaving.append(self._idle.popitem(last=False)[1].connection)
        self._evicted += 1

    def _drain(self) -> list[str]:
        with self._lock:
            leaving = [idle.connection for idle in self._idle.values()]
            self._idle.clear()
            sites = self._book.sites()
        _close_all(leaving)
        return sites


class StandIn:
    """What debug mode lends instead of a connection: all of it, until it is released."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Any) -> None:
        object.__setattr__(self, "_connection", connection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lent(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._lent(), name, value)

    def _lent(self) -> Any:
        connection = self._connection
        if connection is None:
            raise UseAfterRelease("this connection was released and is its pool's")
        return connection


def _is_spent(connection: object) -> bool:
    return (
        type(connection) is StandIn and object.__getattribute__(connection, "_connection") is None
    )


def _close_all(connections: list[C]) -> None:
    """Close them; one that cannot be closed must not keep the others open, nor be the business of
    whoever happened to call.
    """
    for connection in connections:
        try:
            connection.close()
        except Exception:
            log.warning("a pooled connection could not be closed", exc_info=True)
