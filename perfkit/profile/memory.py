"""What a piece of code adds to its process's memory, and which of its lines did.

RSS, USS and PSS and the sampling of them are in `perfkit.profile.watch`. The kernel keeps the
highest RSS that a process ever had (VmHWM in `/proc/<pid>/status`, see proc(5)). If it rose during
a block, it is the block's peak, exactly. Otherwise the peak lies below it, and only the samples of
`watch_memory` say more.
"""

from __future__ import annotations

import linecache
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from perfkit.evidence.samples import counted
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import quantity, size
from perfkit.profile.instrument import Finish, Instrument
from perfkit.profile.paths import short_path
from perfkit.profile.watch import (
    MEASURES,
    UNKNOWN,
    MemorySample,
    process_memory,
    status_bytes,
)

if TYPE_CHECKING:
    import pandas as pd

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


@dataclass(frozen=True)
class MemoryUse(Showable):
    """What a block of code did to its process's memory.

    `peak_rss_bytes` is exact, or None when it is unknown; it is never above `high_water_bytes`,
    the process's so far. `allocations` are the lines that changed most, None
    when tracemalloc was not asked for or was stopped inside the block; `traced_growth_bytes` is
    the growth of all that Python's allocator holds. `error` is the name of the exception that
    ended the block.
    """

    name: str
    wall_s: float
    before: MemorySample | None
    after: MemorySample | None
    peak_rss_bytes: int | None = None
    high_water_bytes: int | None = None
    allocations: tuple[AllocationLine, ...] | None = None
    traced_growth_bytes: int | None = None
    error: str | None = None

    @property
    def growth_bytes(self) -> tuple[int | None, ...]:
        """RSS, USS and PSS, each after minus before; None where either is unknown."""
        ends = zip(self.before or UNKNOWN, self.after or UNKNOWN, strict=True)
        return tuple(None if old is None or new is None else new - old for old, new in ends)

    def to_frame(self) -> pd.DataFrame:
        """The lines of `allocations` as rows; none when they are unknown."""
        return data_frame(self.allocations or (), AllocationLine.__slots__)

    def _sheets(self) -> Iterator[Sheet]:
        ended = "" if self.error is None else f", ended by {self.error}"
        columns = (self.before or UNKNOWN, self.after or UNKNOWN, self.growth_bytes)
        rows = [
            (
                measure.upper(),
                size(before),
                size(self.peak_rss_bytes) if measure == "rss" else "",
                size(after),
                size(growth, sign="+"),
            )
            for measure, before, after, growth in zip(MEASURES, *columns, strict=True)
        ]
        peak = f"The process never held more than {size(self.high_water_bytes)}."
        lines = [
            f"{line.file}:{line.line} {size(line.growth_bytes, sign='+')} "
            f"in {line.growth_blocks:+,} blocks"
            for line in self.allocations or ()
        ]
        yield Sheet(
            f"Memory {self.name}: {quantity(self.wall_s * 1e3, 'ms')}{ended}",
            ("", "before", "peak", "after", "growth"),
            rows,
            [peak, *lines],
        )

    def _figures(self) -> Figures:
        before, after = (sample and sample.rss_bytes for sample in (self.before, self.after))
        ends = {"before": before, "peak": self.peak_rss_bytes, "after": after}
        return "MiB", [(f"RSS {name}", counted(it, 2**-20)) for name, it in ends.items()]


class track_memory(Instrument[MemoryUse]):  # noqa: N801 -- a context manager, named as those are
    """Measure a `with` block, or each call of a function it decorates; see `result`.

    `tracemalloc` finds the lines that allocated; it slows allocations down several times and takes
    memory itself, which RSS then includes. Memory belongs to the process: what other threads do
    meanwhile is in the figures. `perfkit.profile.watch.watch_memory` samples it over time.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        tracemalloc: bool = False,
    ) -> None:
        super().__init__(name)
        self.tracemalloc = tracemalloc

    def _begin(self, name: str) -> Finish:
        stop_tracing = _trace_allocations() if self.tracemalloc else None
        before, high_before = process_memory(), status_bytes("self", "VmHWM")
        since_s = time.perf_counter()

        def finish(error: BaseException | None) -> None:
            wall_s = time.perf_counter() - since_s
            after, high_after = process_memory(), status_bytes("self", "VmHWM")
            growth, lines = (None, None) if stop_tracing is None else stop_tracing()
            self.result = MemoryUse(
                name=name,
                wall_s=wall_s,
                before=before,
                after=after,
                peak_rss_bytes=_peak(before, after, high_before, high_after),
                high_water_bytes=high_after,
                allocations=lines,
                traced_growth_bytes=growth,
                error=None if error is None else type(error).__name__,
            )

        return finish


#: Growth of all that Python's allocator holds, and the lines that changed most; None for both if
#: tracing was stopped by other code.
Growth: TypeAlias = tuple[int | None, tuple[AllocationLine, ...] | None]


def _trace_allocations() -> Callable[[], Growth]:
    """Start tracemalloc, unless it is on already; the function returned ends it.

    tracemalloc is one switch for the whole process, and turning it off forgets everything. So only
    the measurement that turned it on turns it off.
    """
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


def _peak(
    before: MemorySample | None,
    after: MemorySample | None,
    high_before: int | None,
    high_after: int | None,
) -> int | None:
    """The highest RSS inside a block; None when it is unknown."""
    if high_before is None or high_after is None or high_after <= high_before:
        return None
    # The kernel folds the present RSS into the mark only at times, so it can lag a little.
    return max(high_after, *(sample.rss_bytes for sample in (before, after) if sample is not None))
