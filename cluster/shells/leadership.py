"""Which thread runs a client's I/O, and which its callbacks.

A hand-over between threads costs about as much as a hop on loopback. So a thread that waits for a
lone result leads: it runs the I/O itself. The client's own thread leads whenever no other does:
while many tasks are in flight, and for heartbeats. This is the leader/followers pattern of Schmidt,
O'Ryan, Kircher and Pyarali (PLoP 2000).

Invariant: one thread leads, the one that holds ``_place``, and it holds no other lock while it
waits. A visit holds signals back from before it asks for the place until it has left it
(interrupts.py). So Ctrl-C strikes a thread only outside: a signal wakes a visitor that waits, it
leaves, and then the handler runs.

Callbacks of futures run in the own thread, without the place. If they take long, a deputy leads, so
neither heartbeats nor other results wait for them.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from cluster.shells.futures import TaskFuture
from cluster.transport import interrupts
from cluster.transport.interrupts import GuardedLock, Latch
from cluster.vocabulary.errors import ClusterError

#: how long the own thread rests after the last visit before it leads again
REST_S = 0.005
#: how long a visitor waits for the place
PATIENCE_S = 0.001


class Leadership:
    """One place for the thread that leads; ``wake`` makes the leader's wait return. A deputy leads
    when callbacks have kept the own thread away for ``period_s``.
    """

    def __init__(self, wake: Callable[[], None], period_s: float) -> None:
        self._wake = wake
        self._period_s = period_s
        self._place = GuardedLock()
        self._is_wanted = False
        self._was_visited = False
        self._called = Latch()
        self._own: int | None = None
        #: futures whose callbacks are to be run
        self.deferred: deque[TaskFuture] = deque()
        self._is_over = False
        self._away_since = math.inf
        self._deputy: threading.Thread | None = None
        self._dismissed = Latch()

    def is_own(self) -> bool:
        """Whether this is the own thread, so its caller is a callback."""
        return self._own == threading.get_ident()

    def check_not_own(self) -> None:
        """Raise ClusterError in a callback of this client, whose wait would hold up the others."""
        if self.is_own():
            raise ClusterError(
                "a callback of a future can't wait for the same client; hand the rest to another "
                "thread, or submit without waiting"
            )

    def call_own(self) -> None:
        """Have the own thread lead if no other does."""
        self._called.set()

    def defer(self, future: TaskFuture) -> None:
        """Have the own thread run a future's callbacks."""
        self.deferred.append(future)
        if self._is_over:
            self._run_callbacks()
        else:
            self._called.set()

    def visit(self, step: Callable[[], bool], ask: bool) -> None:
        """Lead in the caller's thread until ``step`` returns false or a signal is due. Return at
        once if another thread leads, or soon if the own thread is asked for the place and does not
        make room.
        """
        has_asked = False
        interrupts.hold(self._wake)
        try:
            if not self._place.acquire(blocking=False):
                if not ask:
                    return
                has_asked = self._is_wanted = True
                self._wake()
                # Not for long: another thread may lead, and bring about what is waited for.
                if not self._place.acquire(timeout=PATIENCE_S):
                    return
            try:
                while not interrupts.is_due() and step():
                    pass
            finally:
                self._was_visited = True
                self._place.release()
        finally:
            if has_asked:  # the wish of another visitor stays
                self._is_wanted = False
            interrupts.let_go()

    def reside(self, step: Callable[[], bool]) -> None:
        """Lead in the own thread whenever no visitor does, until ``step`` returns false."""
        self._own = threading.get_ident()
        while True:
            if self.deferred:
                self._leave_for_callbacks(step)
            with self._place:
                while not (self._is_wanted or self.deferred):
                    if not step():
                        return
            if not self.deferred:
                self._rest()

    def retire(self, last: Callable[[], None]) -> None:
        """Do a ``last`` thing in the own thread while no other leads; then run all callbacks."""
        with self._place:
            last()
        self._dismissed.set()
        if self._deputy is not None:
            self._deputy.join()
        self._is_over = True
        self._run_callbacks()

    def _rest(self) -> None:
        """Return when nobody has visited for a while, or on a call."""
        self._was_visited = True
        while self._was_visited:
            self._was_visited = False
            if self._called.wait(REST_S):
                break
        self._called.clear()

    def _leave_for_callbacks(self, step: Callable[[], bool]) -> None:
        if self._deputy is None:
            self._deputy = threading.Thread(
                target=self._stand_in, args=(step,), name="client deputy", daemon=True
            )
            self._deputy.start()
        self._away_since = time.monotonic()
        self._run_callbacks()
        is_long = time.monotonic() - self._away_since >= self._period_s
        self._away_since = math.inf
        if is_long:
            self._wake()  # the deputy leads

    def _run_callbacks(self) -> None:
        with suppress(IndexError):
            while True:
                self.deferred.popleft().run_callbacks()

    def _stand_in(self, step: Callable[[], bool]) -> None:
        while not self._dismissed.wait(self._period_s):
            if time.monotonic() - self._away_since >= self._period_s:
                with self._place:
                    while self._away_since < math.inf and not self._is_wanted and step():
                        pass
