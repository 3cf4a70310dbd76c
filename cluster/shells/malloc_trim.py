"""Return free memory to the system.

glibc returns only memory at the end of its heap, and a drained queue leaves holes.
``malloc_trim`` returns free pages anywhere in it
(https://man7.org/linux/man-pages/man3/malloc_trim.3.html). It takes milliseconds, and returned
pages must be fetched again, so it pays after much traffic, when the process is idle.

It helps only if all memory is in that heap. Python's own allocator keeps an arena of 1 MiB while
one object in it lives, and glibc never returns the end of any heap but the first.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

MIB = 1 << 20
#: The environment of a process with all its memory in one heap that only ``trim`` shrinks. By
#: default glibc would grow and shrink its end for each large message
#: (https://man7.org/linux/man-pages/man3/mallopt.3.html).
ONE_HEAP = {
    "PYTHONMALLOC": "malloc",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(16 * MIB),
    "MALLOC_MMAP_THRESHOLD_": str(32 * MIB),
}


class MallocTrim:
    """Calls ``malloc_trim`` after each ``after_bytes`` of messages; never if that is 0.

    It does nothing where the C library has no ``malloc_trim`` (musl, macOS).
    """

    def __init__(self, after_bytes: int) -> None:
        self._after_bytes = after_bytes
        self._trim = find_trim() if after_bytes else None
        self._trimmed_at = 0

    def is_due(self, passed_bytes: int) -> bool:
        """Whether a trim pays, after ``passed_bytes`` since the start, when idle."""
        return self._trim is not None and passed_bytes - self._trimmed_at >= self._after_bytes

    def trim(self, passed_bytes: int) -> None:
        """Return free memory to the system, after ``passed_bytes`` since the start."""
        self._trimmed_at = passed_bytes
        gc.collect()  # empties the interpreter's free lists, which hold pages
        if self._trim is not None:
            self._trim(0)


def one_heap() -> dict[str, str]:
    """The variables of ONE_HEAP that this environment has not; none without ``malloc_trim``.

    Variables that are set already keep their values.
    """
    missing = {name: text for name, text in ONE_HEAP.items() if name not in os.environ}
    return missing if missing and find_trim() is not None else {}


def reexec_with_one_heap() -> None:
    """Re-exec this process with ONE_HEAP; return if there is nothing to add."""
    if missing := one_heap():
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **missing})


def find_trim() -> Callable[[int], int] | None:
    """The C library's ``malloc_trim``, or None where there is none."""
    try:
        import ctypes

        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, TypeError, AttributeError):
        return None
    return trim
