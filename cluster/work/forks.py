"""Forked children of a handler: each is a copy of its worker's process and must not work on.

A child has the worker's signal handlers and, when it comes back from the handler, the worker's
loop. So signals get their default effect in it, and the child ends where its worker would go on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from contextlib import suppress
from typing import NoReturn, Protocol

from cluster.work.lease_runner import LeaseRunner


class Forkable(Protocol):
    """A worker; ``become_copy`` is called in each forked child."""

    def become_copy(self) -> None:
        """Run no more tasks, and call end_copy when the handler returns."""


_WORKERS: weakref.WeakSet[Forkable] = weakref.WeakSet()
_SIGNALS = {signal.SIGTERM, signal.SIGINT}
#: what the forking thread blocked before
_blocked = threading.local()


def note_worker(worker: Forkable) -> None:
    """Tell this worker's copies what they are."""
    _WORKERS.add(worker)


def default_signals() -> None:
    """Let SIGTERM and SIGINT end this process again."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end_copy(runner: LeaseRunner) -> NoReturn:
    """End a forked child that came back from its handler, with the exit code it would have had in a
    program of its own. The parent goes on with the task.
    """
    code, last = 0, runner.lease.next - 1
    for failure in runner.collect().failures:
        if failure.position != last:
            continue
        said = failure.message
        if failure.error != "SystemExit":
            code = 1
            print(f"{failure.error}: {said}", file=sys.stderr)
        elif said not in ("", "None"):
            code = int(said) & 255 if said.isdecimal() else 1
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _before() -> None:
    # A signal that reached the child before it has default signals would be lost.
    _blocked.signals = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _after() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _blocked.signals)


def _after_in_child() -> None:
    for worker in list(_WORKERS):
        worker.become_copy()
    _after()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
