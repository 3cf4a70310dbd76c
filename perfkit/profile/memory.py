"""What a piece of code adds to its process's memory, and which of its lines did.

RSS, USS and PSS and the sampling of them are in `perfkit.profile.watch`. The kernel keeps the
highest RSS that a process ever had (VmHWM in `/proc/<pid>/status`, see proc(5)). If it rose during
a block, it is the block's peak, exactly. Otherwise the peak lies below it, and only a sampler
(`interval_s`) says more.
"""

from __future__ import annotations

import linecache
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from perfkit.evidence.tables import data_frame, html_table
from perfkit.evidence.text import quantity, size
from perfkit.profile.instrument import Finish, Instrument
from perfkit.profile.paths import short_path
from perfkit.profile.watch import (
    MEASURES,
    UNKNOWN,
    MemorySample,
    check_interval,
    process_memory,
    status_bytes,
    watch_memory,
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
class MemoryUse:
    """What a block of code did to its process's memory.

    `peak_rss_bytes` is None when it is unknown. `peak_source` says where it is from: "high-water
    mark" is exact, "samples" may miss what was shorter than the interval. The peak is never above
    `high_water_bytes`, the process's so far. `allocations` are the lines that changed most, None
    when tracemalloc was not asked for or was stopped inside the block; `traced_growth_bytes` is
    the growth of all that Python's allocator holds. `error` is the name of the exception that
    ended the block.
    """

    name: str
    wall_s: float
    before: MemorySample | None
    after: MemorySample | None
    peak_rss_bytes: int | None = None
    peak_source: str | None = None
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

    def _repr_html_(self) -> str:
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
        peak = f"Peak from {self.peak_source}." if self.peak_source else "The peak is unknown."
        if self.high_water_bytes is not None:
            peak += f" The process never held more than {size(self.high_water_bytes)}."
        lines = [
            f"{line.file}:{line.line} {size(line.growth_bytes, sign='+')} "
            f"in {line.growth_blocks:+,} blocks"
            for line in self.allocations or ()
        ]
        return html_table(
            f"Memory {self.name}: {quantity(self.wall_s * 1e3, 'ms')}{ended}",
            ("", "before", "peak", "after", "growth"),
            rows,
            [peak, *lines],
        )


class track_memory(Instrument[MemoryUse]):  # noqa: N801 -- a context manager, named as those are
    """Measure a `with` block, or each call of a function it decorates; see `result`.

    `interval_s` samples RSS in a thread for a peak. `tracemalloc` finds the lines that allocated;
    it slows allocations down several times and takes memory itself, which RSS then includes.

    Memory belongs to the process: what other threads do meanwhile is in the figures. Raises
    ValueError for an interval below a millisecond.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        tracemalloc: bool = False,
        interval_s: float | None = None,
        enabled: bool = True,
    ) -> None:
        super().__init__(name, enabled)
        if interval_s is not None:
            check_interval(interval_s)
        self.tracemalloc = tracemalloc
        self.interval_s = interval_s

    def _begin(self, name: str) -> Finish:
        stop_tracing = _trace_allocations() if self.tracemalloc else None
        before, high_before = process_memory(), status_bytes("self", "VmHWM")
        watch = None
        if self.interval_s is not None:
            watch = watch_memory(interval_s=self.interval_s, limit=1, shared=False).start()
        since_s = time.perf_counter()

        def finish(error: BaseException | None) -> None:
            wall_s = time.perf_counter() - since_s
            series = None if watch is None else watch.stop()
            after, high_after = process_memory(), status_bytes("self", "VmHWM")
            highest = None if series is None else series.peak
            peak, peak_source = _peak(before, after, (high_before, high_after), highest)
            growth, lines = (None, None) if stop_tracing is None else stop_tracing()
            self.result = MemoryUse(
                name=name,
                wall_s=wall_s,
                before=before,
                after=after,
                peak_rss_bytes=peak,
                peak_source=peak_source,
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
    high_water: tuple[int | None, int | None],
    highest: MemorySample | None,
) -> tuple[int | None, str | None]:
    """The highest RSS inside a block, and where that figure comes from; None when unknown."""
    high_before, high_after = high_water
    seen = [sample.rss_bytes for sample in (before, after, highest) if sample is not None]
    if high_before is not None and high_after is not None and high_after > high_before:
        # The kernel folds the present RSS into the mark only at times, so it can lag a little.
        return max(high_after, *seen), "high-water mark"
    return (None, None) if highest is None else (max(seen), "samples")
