"""Which lines of Python allocated, by tracemalloc, for as long as anybody asks and no longer.

tracemalloc is one switch for the whole process, and turning it off forgets everything. So it is
turned on only if it is off, and off again only by those who turned it on, after the last of them:
measurements nest, and one that somebody else's code runs for itself is left alone.
"""

from __future__ import annotations

import linecache
import threading
import tracemalloc
from dataclasses import dataclass

from perfkit.profile import short_path
from perfkit.profile.findings import MemoryFinding

#: How many lines of code a measurement keeps.
LINES_LIMIT = 10


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

    def finding(self, role: str) -> MemoryFinding:
        """The same as a row of the common table."""
        return MemoryFinding(
            "tracemalloc",
            role,
            f"{self.file}:{self.line}",
            size_bytes=self.size_bytes,
            growth_bytes=self.growth_bytes,
            count=self.blocks,
            growth_count=self.growth_blocks,
            counted="blocks",
        )


class Traces:
    """Two snapshots of tracemalloc, which runs for as long as anybody here needs it."""

    _lock = threading.Lock()
    _users = 0
    _started_here = False
    #: The instrument's own allocations are no finding.
    _filters = (
        tracemalloc.Filter(False, tracemalloc.__file__),
        tracemalloc.Filter(False, __file__),
        tracemalloc.Filter(False, linecache.__file__),
    )

    def __init__(self) -> None:
        with self._lock:
            if not tracemalloc.is_tracing():
                tracemalloc.start()
                Traces._started_here = True
            Traces._users += 1
        self._before: tracemalloc.Snapshot | None = tracemalloc.take_snapshot()
        self._held_bytes = tracemalloc.get_traced_memory()[0]

    def stop(self) -> tuple[int | None, tuple[AllocationLine, ...] | None]:
        """The growth of all, and the lines that changed most; None twice if tracing was stopped."""
        growth, after = None, None
        with self._lock:
            if tracemalloc.is_tracing():
                growth = tracemalloc.get_traced_memory()[0] - self._held_bytes
                after = tracemalloc.take_snapshot()
            Traces._users -= 1
            if Traces._users == 0 and Traces._started_here:
                tracemalloc.stop()
                Traces._started_here = False
        before, self._before = self._before, None
        if before is None or after is None:
            return None, None
        changes = after.filter_traces(self._filters).compare_to(
            before.filter_traces(self._filters), "lineno"
        )
        return growth, tuple(
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
