"""Long work in a thread that lets the loop go first.

Threads of one process take turns at Python's lock. A loop that answers many small requests lets it
go at each system call, and would wait for a busy thread each time it comes back. So the thread asks
the loop before each step: while the loop has anything to do, the thread stands still.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
#: A loop that is at its end answers no more.
ANSWER_S = 1.0

_thread = threading.local()


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """What a call returns or raises, made in a thread in which `pause` waits for this loop."""
    loop, may_go = asyncio.get_running_loop(), threading.Lock()
    may_go.acquire()

    def wait() -> None:
        loop.call_soon_threadsafe(may_go.release)
        may_go.acquire(timeout=ANSWER_S)

    def run() -> T:
        _thread.wait = wait
        try:
            return call(*arguments)
        finally:
            del _thread.wait

    return await asyncio.to_thread(run)


def pause() -> None:
    """Between two steps of long work: let the loop do all it has to do. Returns at once in a thread
    that `in_thread` did not start.
    """
    wait: Callable[[], None] | None = getattr(_thread, "wait", None)
    if wait is not None:
        wait()
