"""Which thread runs a client's I/O.

A hand-over between threads costs about as much as a hop on loopback. So a thread that waits for a
lone result leads: it runs the I/O itself. The client's own thread leads whenever no other does:
while many tasks are in flight, for callbacks and for heartbeats. This is the leader/followers
pattern of Schmidt, O'Ryan, Kircher and Pyarali (PLoP 2000).

Invariant: one thread leads, the one that holds ``_place``, and it holds no other lock while it
waits. Ctrl-C may end a visit at any bytecode, so ``visit`` acquires inside its ``try`` and gives
the place back in its ``finally``, with nothing between that could be interrupted. An RLock makes
that safe: a release by any thread but its owner fails and changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.vocabulary.errors import ClusterError

#: how long the own thread rests after the last visit before it leads again
REST_S = 0.005
#: how long a visitor waits for the place
PATIENCE_S = 0.001


class Leadership:
    """One place for the thread that leads; ``wake`` makes the leader's wait return."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._place = threading.RLock()
        self._leader: int | None = None
        self._is_wanted = False
        self._was_visited = False
        self._called = threading.Event()

    def is_mine(self) -> bool:
        """Whether this thread leads."""
        return self._leader == threading.get_ident()

    def check_not_mine(self) -> None:
        """Raise ClusterError in a callback of this client, whose wait could never end."""
        if self.is_mine():
            raise ClusterError(
                "a callback of a future can't wait for the same client; hand the rest to another "
                "thread, or submit without waiting"
            )

    def call_own(self) -> None:
        """Have the own thread lead if no other does."""
        self._called.set()

    def visit(self, step: Callable[[], bool], ask: bool) -> None:
        """Lead in the caller's thread until ``step`` returns false. Return at once if another
        thread leads, or soon if the own thread is asked for the place and does not make room.
        """
        me, has_asked = threading.get_ident(), False
        try:
            if not self._place.acquire(blocking=False):
                if not ask:
                    return
                has_asked = self._is_wanted = True
                self._wake()
                # Not for long: another thread may lead, and bring about what is waited for.
                if not self._place.acquire(timeout=PATIENCE_S):
                    return
            self._leader = me
            while step():
                pass
        finally:
            if has_asked:  # the wish of another visitor stays
                self._is_wanted = False
            if self._leader == me:
                self._was_visited = True
                self._leader = None
            try:  # noqa: SIM105 - a call to suppress could be interrupted
                self._place.release()
            except RuntimeError:
                pass

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lead in the own thread for a block."""
        with self._place:
            self._leader = threading.get_ident()
            try:
                yield
            finally:
                self._leader = None

    def reside(self, step: Callable[[], bool]) -> None:
        """Lead in the own thread whenever no visitor does, until ``step`` returns false."""
        while True:
            with self.hold():
                while not self._is_wanted:
                    if not step():
                        return
            self._rest()

    def _rest(self) -> None:
        """Return when nobody has visited for a while, or on a call."""
        self._was_visited = True
        while self._was_visited:
            self._was_visited = False
            if self._called.wait(REST_S):
                break
        self._called.clear()
