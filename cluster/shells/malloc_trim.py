"""Memory that is free goes back to the system, now and then.

What was freed stays with the process: glibc hands back what is free at the end of its heap, and a
queue that has drained leaves holes. ``malloc_trim`` hands back whole pages wherever they are
(https://man7.org/linux/man-pages/man3/malloc_trim.3.html). It takes milliseconds, and what is given
back must be fetched again, so it pays after a lot has passed through, when nothing is under way.

It only helps if that is where the memory is. Python's own allocator keeps an arena of a MiB as long
as one number in it is left, and the end of any but the first of glibc's heaps is never given back.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

MIB = 1 << 20
#: How a process has to be started for its memory to be in one heap that only ``trim`` makes
#: smaller. Left to itself glibc would take the end of that heap from the system for each large
#: message, and give it back (https://man7.org/linux/man-pages/man3/mallopt.3.html).
ONE_HEAP = {
    "PYTHONMALLOC": "malloc",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(16 * MIB),
    "MALLOC_MMAP_THRESHOLD_": str(32 * MIB),
}


class MallocTrim:
    """Trims this process's heap after each ``after_bytes`` of messages; never, if that is 0.

    Where the C library has no ``malloc_trim`` (musl, macOS) nothing is ever given back.
    """

    def __init__(self, after_bytes: int) -> None:
        self._after_bytes = after_bytes
        self._trim = find_trim() if after_bytes else None
        self._trimmed_at = 0

    def is_due(self, passed_bytes: int) -> bool:
        """Whether it is worth it, after ``passed_bytes`` since the start and nothing under way."""
        return self._trim is not None and passed_bytes - self._trimmed_at >= self._after_bytes

    def trim(self, passed_bytes: int) -> None:
        """Give back what is free after ``passed_bytes``."""
        self._trimmed_at = passed_bytes
        gc.collect()  # the interpreter's free lists hold on to pages, and this empties them
        if self._trim is not None:
            self._trim(0)


def reexec_with_one_heap() -> None:
    """Begin this process's program anew with ONE_HEAP; return if it has begun so, or can't.

    What the environment says already is left as it is.
    """
    if not ONE_HEAP.keys() <= os.environ.keys() and find_trim() is not None:
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**ONE_HEAP, **os.environ})


def find_trim() -> Callable[[int], int] | None:
    """The C library's ``malloc_trim``, or None where there is none."""
    try:
        import ctypes

        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, TypeError, AttributeError):
        return None
    return trim
