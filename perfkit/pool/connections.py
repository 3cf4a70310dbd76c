"""Connections kept open between uses, because opening one takes a handshake and often a thread.

`ConnectionPool(Client)` pools clients of a cluster by their endpoint. Anything with a `close()`
that can be opened by a key will do:

    with ConnectionPool(Client) as clients, clients.borrow("tcp://127.0.0.1:5555") as client:
        client.submit("echo", b"x").result(timeout=5)
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from perfkit.pool.base import Pool, PoolClosed, UseAfterRelease, check_positive

log = logging.getLogger(__name__)


class Closeable(Protocol):
    """What can be closed for good."""

    def close(self) -> object:
        """End it."""


K = TypeVar("K", bound=Hashable)
C = TypeVar("C", bound=Closeable)


class Idle(NamedTuple, Generic[K, C]):
    """An idle connection, and since when by the pool's clock."""

    key: K
    connection: C
    since_s: float


class ConnectionPool(Pool, Generic[K, C]):
    """At most `size` connections, each lent to one user at a time; methods may be called from any
    thread.

    `connect(key)` opens one. An acquire takes the connection of its key that was released last.
    Without one at the bound, the connection that has been idle longest is closed; if all are in
    use, PoolExhausted is raised. A connection idle for `idle_s`, by `clock` in seconds, is closed
    by the next acquire or release.

    Release a connection when nothing is under way on it: closing a Client cancels unfinished tasks.
    Double and foreign releases are errors. In debug mode a connection is lent behind a stand-in
    with the same attributes, so that a use after the release is an error too, and so is closing the
    pool while connections are in use.
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
        #: by identity, the one released longest ago first
        self._idle: OrderedDict[int, Idle[K, C]] = OrderedDict()
        self._opening = 0

    def acquire(self, key: K) -> C:
        """A connection for the key, an idle one if there is one.

        Raises PoolExhausted, PoolClosed, and what `connect` raises.
        """
        with ExitStack() as leaving, self._lock:
            self._check_open()
            self._expire(leaving)
            for place, idle in reversed(self._idle.items()):
                if idle.key == key:
                    del self._idle[place]
                    return self._hand_out(key, idle.connection, hit=True)
            self._make_room(key, leaving)
            self._opening += 1
        return self._open(key)

    def release(self, connection: C) -> None:
        """Give a connection back. Raises DoubleRelease and ForeignRelease."""
        with ExitStack() as leaving, self._lock:
            key, own = self._receive(connection)
            if self._closed:
                self._drop(own, leaving)
            else:
                self._idle[id(own)] = Idle(key, own, self._clock())
                self._counts.idle += 1
            self._expire(leaving)

    def discard(self, connection: C) -> None:
        """Give a connection back that is no longer usable: it is closed. Raises as release does."""
        with ExitStack() as leaving, self._lock:
            _, own = self._receive(connection)
            self._drop(own, leaving)

    @contextmanager
    def borrow(self, key: K) -> Iterator[C]:
        """A connection for the length of a with block; discarded if the block raises, since work
        may still be under way on it.
        """
        connection = self.acquire(key)
        try:
            yield connection
        except BaseException:
            self.discard(connection)
            raise
        self.release(connection)

    def _open(self, key: K) -> C:
        """Connect without the lock; the place in the pool is taken already."""
        try:
            connection = self._connect(key)
        except BaseException:
            with self._lock:
                self._opening -= 1
            raise
        with self._lock:
            self._opening -= 1
            if not self._closed:
                return self._hand_out(key, connection, hit=False)
        _close(connection)
        raise PoolClosed("this pool was closed while a connection was being opened")

    def _hand_out(self, key: K, connection: C, *, hit: bool) -> C:
        out = cast(C, StandIn(connection)) if self.debug else connection
        self._lend(out, (key, connection))
        self._count(hit)
        return out

    def _receive(self, connection: C) -> tuple[K, C]:
        key_and_own: tuple[K, C] = self._take_back(connection)
        self._counts.in_use -= 1
        if self.debug:
            object.__setattr__(connection, "_connection", None)
        return key_and_own

    def _was_released(self, thing: Any) -> bool:
        spent = type(thing) is StandIn and object.__getattribute__(thing, "_connection") is None
        return spent or id(thing) in self._idle

    def _drop(self, connection: C, leaving: ExitStack) -> None:
        self._counts.dropped += 1
        leaving.callback(_close, connection)

    def _expire(self, leaving: ExitStack) -> None:
        if self._idle:
            newest_s = self._clock() - self.idle_s
            while self._idle and next(iter(self._idle.values())).since_s <= newest_s:
                self._evict(leaving)

    def _make_room(self, key: K, leaving: ExitStack) -> None:
        if len(self._idle) + len(self._loans) + self._opening < self.size:
            return
        if not self._idle:
            raise self._refuse(
                f"no connection to {key!r} is free, and all {self.size} that may be open are in use"
            )
        self._evict(leaving)

    def _evict(self, leaving: ExitStack) -> None:
        """Close the connection that was released longest ago."""
        _, oldest = self._idle.popitem(last=False)
        self._counts.idle -= 1
        self._counts.evicted += 1
        leaving.callback(_close, oldest.connection)

    def _drain(self) -> None:
        with ExitStack() as leaving, self._lock:
            for idle in self._idle.values():
                leaving.callback(_close, idle.connection)
            self._idle.clear()
            self._counts.idle = 0


class StandIn:
    """Lent by debug mode instead of a connection: has its attributes until it is released."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Any) -> None:
        object.__setattr__(self, "_connection", connection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lent(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._lent(), name, value)

    def _lent(self) -> Any:
        if self._connection is None:
            raise UseAfterRelease("this connection was released and belongs to its pool")
        return self._connection


def _close(connection: Closeable) -> None:
    """Close a connection; a failure is logged, since the caller may not have used this one."""
    try:
        connection.close()
    except Exception:
        log.warning("a pooled connection could not be closed", exc_info=True)
