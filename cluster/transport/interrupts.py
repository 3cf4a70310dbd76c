"""Ctrl-C never strikes a thread while it holds a lock that the client's other threads need.

Python runs signal handlers in the main thread, between any two bytecodes, and the usual handler of
SIGINT raises there. A lock taken at that moment would stay taken, a message would be read by half,
and every thread of the client would wait for ever. So the locks that the threads of a client share
are ``GuardedLock``: while the main thread holds one, handlers are held back, and they run when it
has released the last. It holds them for moments; the one long wait under a lock, of a thread that
leads, is woken by the signal and ends (leadership.py). Waits for a result hold no lock at all.

Why nothing can come between: ``signal.signal`` runs the handlers that are due before it changes
one, in one call in C. So a handler has either raised before the change, when nothing was taken, or
is replaced by ``_hold_back``, which doesn't raise.

Only signals are held back, not an exception that another thread sets (PyThreadState_SetAsyncExc).
"""

from __future__ import annotations

import os
import threading
import time

# signal.py takes ten times as long: it converts to enums and back.
from _signal import getsignal, signal  # type: ignore[import-not-found]
from collections.abc import Callable
from signal import SIGALRM, SIGINT, SIGTERM
from threading import get_ident
from typing import Any

#: the signals whose handlers programs let raise
SIGNALS = int(SIGINT), int(SIGTERM), int(SIGALRM)

_main = threading.main_thread().ident
_depth = 0
_handlers: dict[int, Callable[[int, Any], Any]] = {}
_held: list[int] = []
_wake: Callable[[], None] | None = None


def hold(wake: Callable[[], None] | None = None) -> None:
    """Hold signals back until ``let_go``, as often as this is called; does nothing outside of the
    main thread. A signal calls ``wake``.
    """
    global _depth, _wake
    if get_ident() != _main:
        return
    if not _depth:
        _held.clear()
        for number in SIGNALS:
            handler: Any = getsignal(number)
            if callable(handler) and handler is not _hold_back:
                _handlers[number] = handler
                signal(number, _hold_back)
    _depth += 1
    if wake is not None:
        _wake = wake


def let_go() -> None:
    """Run what was held back, unless another ``hold`` lasts."""
    global _depth, _wake
    if get_ident() != _main:
        return
    _depth -= 1
    if _depth:
        return
    # From here on signals reach their handlers: directly, or through _hold_back.
    _wake = None
    for number, handler in _handlers.items():
        if getsignal(number) is _hold_back:
            signal(number, handler)
    while _held:
        number = _held.pop()
        _handlers[number](number, None)


def is_due() -> bool:
    """Whether a signal is held back in this thread, which should let go."""
    return bool(_held) and get_ident() == _main


def _hold_back(number: int, frame: Any) -> None:
    if not _depth:
        _handlers[number](number, frame)
    elif number not in _held:
        _held.append(number)
        if _wake is not None:
            _wake()


def _begin_anew() -> None:
    global _main, _depth
    _main, _depth = get_ident(), 0


os.register_at_fork(after_in_child=_begin_anew)


class Latch:
    """An event that one thread waits for; Ctrl-C leaves it usable at any instruction."""

    __slots__ = ("_is_set", "_lock")

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let the thread that waits go on."""
        self._is_set = True
        try:  # noqa: SIM105 - three times as fast as suppress
            self._lock.release()
        except RuntimeError:  # set already
            pass

    def clear(self) -> None:
        """Forget that it was set."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Return true when it is set, false after ``timeout`` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            left = -1 if end is None else end - time.monotonic()
            if end is not None and left <= 0.0:
                break
            self._lock.acquire(timeout=left)
        return self._is_set


class GuardedLock:
    """A reentrant lock; signals are held back in the main thread while that holds it."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; false if it is not free in time."""
        hold()
        if self._lock.acquire(blocking, timeout):
            return True
        let_go()
        return False

    def release(self) -> None:
        """Free the lock, then run the handlers of signals that came meanwhile."""
        self._lock.release()
        let_go()

    def notify_all(self) -> None:
        """Do nothing: a Future calls this, and those who wait for one have waiters there."""

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()
