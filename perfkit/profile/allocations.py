"""Which lines of Python allocated, by tracemalloc.

tracemalloc is one switch for the whole process, and turning it off forgets everything. So it is
turned on only where it is off, and turned off only by the measurement that turned it on.
"""

from __future__ import annotations

import linecache
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from perfkit.profile.paths import short_path

#: How many lines of code a measurement keeps.
LINES_LIMIT = 10
#: The instrument's own allocations are left out.
_FILTERS = tuple(
    tracemalloc.Filter(False, file) for file in (tracemalloc.__file__, __file__, linecache.__file__)
)


@dataclass(frozen=True, slots=True)
class AllocationLine:
    """What one line of Python allocated and still holds, by tracemalloc's count.

    `growth_bytes` and `growth_blocks` are since the measurement began, `size_bytes` and `blocks`
    are all of it.
    """

    file: str
    line: int
    growth_bytes: int
    growth_blocks: int
    size_bytes: int
    blocks: int


#: Growth of all that Python's allocator holds, and the lines that changed most; None for both if
#: tracing was stopped by other code.
Growth: TypeAlias = tuple[int | None, tuple[AllocationLine, ...] | None]


def trace_allocations() -> Callable[[], Growth]:
    """Start to trace, unless tracing is on already; the function returned ends it."""
    started_here = not tracemalloc.is_tracing()
    if started_here:
        tracemalloc.start()
    before = tracemalloc.take_snapshot().filter_traces(_FILTERS)
    held_bytes = tracemalloc.get_traced_memory()[0]

    def stop() -> Growth:
        if not tracemalloc.is_tracing():
            return None, None
        growth_bytes = tracemalloc.get_traced_memory()[0] - held_bytes
        after = tracemalloc.take_snapshot().filter_traces(_FILTERS)
        if started_here:
            tracemalloc.stop()
        changes = after.compare_to(before, "lineno")
        return growth_bytes, tuple(
            AllocationLine(
                file=short_path(change.traceback[0].filename),
                line=change.traceback[0].lineno,
                growth_bytes=change.size_diff,
                growth_blocks=change.count_diff,
                size_bytes=change.size,
                blocks=change.count,
            )
            for change in changes[:LINES_LIMIT]
            if change.size_diff
        )

    return stop
