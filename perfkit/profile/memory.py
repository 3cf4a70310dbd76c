"""What a piece of code adds to its process's memory, and which of its lines did.

What RSS, USS and PSS are, and the sampling of them, is in `perfkit.profile.watch`.

A peak is easily invented. The kernel keeps the highest RSS a process ever had (VmHWM in
`/proc/<pid>/status`, see proc(5)): when it rose during a block, it is the block's peak, exactly.
Otherwise the peak is known to lie below it, and only a sampler (`interval_s`) says more.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from perfkit.evidence.tables import data_frame, html_table, mib_text
from perfkit.profile import switch
from perfkit.profile.allocations import AllocationLine, Traces
from perfkit.profile.findings import MemoryFinding
from perfkit.profile.watch import (
    MEASURES,
    MemorySample,
    check_interval,
    process_memory,
    watch_memory,
)

if TYPE_CHECKING:
    import pandas as pd

F = TypeVar("F", bound=Callable[..., Any])

#: How many finished measurements `recent()` remembers.
RECENT_LIMIT = 32


@dataclass(frozen=True)
class MemoryUse:
    """What a block of code did to its process's memory.

    `peak_rss_bytes` is None when nothing is known of it, and `peak_source` says where it is from:
    "high-water mark" is exact, "samples" may miss what was shorter than the interval. The peak is
    never above `high_water_bytes`, the process's so far. `allocations` are the lines that grew or
    shrank most, None when tracemalloc was not asked for or was stopped by somebody inside of the
    block; `traced_growth_bytes` is what Python's allocator holds more than before. `error` is the
    name of the exception that ended the block.
    """

    name: str
    wall_s: float
    before: MemorySample | None
    after: MemorySample | None
    peak_rss_bytes: int | None = None
    peak_source: str | None = None
    high_water_bytes: int | None = None
    samples: int = 0
    allocations: tuple[AllocationLine, ...] | None = None
    traced_growth_bytes: int | None = None
    error: str | None = None

    @property
    def rss_growth_bytes(self) -> int | None:
        """RSS after minus before."""
        return self._growth("rss_bytes")

    @property
    def uss_growth_bytes(self) -> int | None:
        """USS after minus before."""
        return self._growth("uss_bytes")

    @property
    def pss_growth_bytes(self) -> int | None:
        """PSS after minus before."""
        return self._growth("pss_bytes")

    def _growth(self, measure: str) -> int | None:
        before, after = getattr(self.before, measure, None), getattr(self.after, measure, None)
        return None if before is None or after is None else after - before

    def findings(self) -> tuple[MemoryFinding, ...]:
        """A row each for RSS, USS and PSS, and one for each line of `allocations`."""
        measures = (
            MemoryFinding(
                "track_memory",
                self.name,
                measure.upper(),
                size_bytes=getattr(self.after, f"{measure}_bytes", None),
                peak_bytes=self.peak_rss_bytes if measure == "rss" else None,
                growth_bytes=self._growth(f"{measure}_bytes"),
            )
            for measure in MEASURES
        )
        return (*measures, *(line.finding(self.name) for line in self.allocations or ()))

    def to_frame(self) -> pd.DataFrame:
        """The lines of `allocations` as rows; none when they are unknown."""
        columns = AllocationLine.__slots__
        lines = self.allocations or ()
        return data_frame([{c: getattr(line, c) for c in columns} for line in lines], columns)

    def _repr_html_(self) -> str:
        ended = "" if self.error is None else f", ended by {self.error}"
        rows = [
            (
                measure.upper(),
                mib_text(getattr(self.before, f"{measure}_bytes", None)),
                mib_text(self.peak_rss_bytes) if measure == "rss" else "",
                mib_text(getattr(self.after, f"{measure}_bytes", None)),
                mib_text(self._growth(f"{measure}_bytes"), sign="+"),
            )
            for measure in MEASURES
        ]
        peak = f"Peak from {self.peak_source}." if self.peak_source else "The peak is not known."
        if self.high_water_bytes is not None:
            peak += f" The process never held more than {mib_text(self.high_water_bytes)}."
        lines = [
            f"{line.file}:{line.line} {mib_text(line.growth_bytes, sign='+')} "
            f"in {line.growth_blocks:+} blocks"
            for line in self.allocations or ()
        ]
        return html_table(
            f"Memory {self.name}: {self.wall_s * 1e3:.1f} ms{ended}",
            ("", "before", "peak", "after", "growth"),
            rows,
            [peak, *lines],
        )


@overload
def track_memory(name: F, /) -> F: ...
@overload
def track_memory(
    name: str | None = None,
    *,
    tracemalloc: bool = False,
    interval_s: float | None = None,
    enabled: bool = True,
) -> MemoryTracker: ...
def track_memory(
    name: F | str | None = None,
    *,
    tracemalloc: bool = False,
    interval_s: float | None = None,
    enabled: bool = True,
) -> F | MemoryTracker:
    """Measure a `with` block, or each call of a function it decorates (`@track_memory`, or called).

    The measurement is the `result` of what this returns, and in `recent()`. `interval_s` samples
    RSS in a thread for a peak. `tracemalloc` finds the lines that allocated; it slows allocations
    down several times and takes memory itself, which RSS then includes. It is started only if
    nobody has, and stopped only by those who started it, after the last of them.

    Memory belongs to the process: what other threads do meanwhile is in the figures. Raises
    ValueError for an interval below a millisecond, TypeError for what cannot be decorated.
    """
    if name is None or isinstance(name, str):
        return MemoryTracker(name, tracemalloc, interval_s, enabled)
    return MemoryTracker(None, tracemalloc, interval_s, enabled)(name)


class MemoryTracker:
    """What `track_memory` returns: a context manager, a decorator, and the last measurement."""

    def __init__(
        self, name: str | None, tracemalloc: bool, interval_s: float | None, enabled: bool
    ) -> None:
        if name is not None and not name.strip():
            raise ValueError("A measurement's name must not be empty.")
        if interval_s is not None:
            check_interval(interval_s)
        self.name = name
        self.tracemalloc = tracemalloc
        self.interval_s = interval_s
        self.enabled = enabled
        self.result: MemoryUse | None = None
        self._blocks: list[AbstractContextManager[None]] = []

    def __enter__(self) -> MemoryTracker:
        if switch.on and self.enabled:
            block = _measure(self, self.name or "memory")
            block.__enter__()
            self._blocks.append(block)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._blocks:
            self._blocks.pop().__exit__(kind, error, traceback)

    def __call__(self, func: F) -> F:
        """Decorate a function, coroutine function or generator function; see `track_memory`."""
        if inspect.isclass(func) or not callable(func):
            raise TypeError(f"track_memory decorates functions, and {func!r} is not one.")
        if inspect.isasyncgenfunction(func):
            raise TypeError(
                f"track_memory cannot decorate the asynchronous generator {func.__qualname__}: "
                "use it as a `with` block inside of it."
            )
        if not self.enabled:
            return func
        return cast(F, _wrap(self, func))


def _wrap(source: MemoryTracker, func: Callable[..., Any]) -> object:
    name = source.name or str(getattr(func, "__qualname__", type(func).__name__))
    if inspect.iscoroutinefunction(func):

        @functools.wraps(func)
        async def tracked_coroutine(*args: Any, **kwargs: Any) -> Any:
            if not switch.on:
                return await func(*args, **kwargs)
            with _measure(source, name):
                return await func(*args, **kwargs)

        return tracked_coroutine
    if inspect.isgeneratorfunction(func):

        @functools.wraps(func)
        def tracked_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            if not switch.on:
                return (yield from func(*args, **kwargs))
            with _measure(source, name):
                return (yield from func(*args, **kwargs))

        return tracked_generator

    @functools.wraps(func)
    def tracked(*args: Any, **kwargs: Any) -> Any:
        if not switch.on:
            return func(*args, **kwargs)
        with _measure(source, name):
            return func(*args, **kwargs)

    return tracked


def recent(name: str | None = None) -> tuple[MemoryUse, ...]:
    """The last measurements of this process, at most RECENT_LIMIT, oldest first; or of a name."""
    return tuple(use for use in _recent if name is None or use.name == name)


_recent: deque[MemoryUse] = deque(maxlen=RECENT_LIMIT)


@contextmanager
def _measure(source: MemoryTracker, name: str) -> Iterator[None]:
    """One measurement, from before the block to after it, however it ends."""
    traces = Traces() if source.tracemalloc else None
    before, high_before = process_memory(), _high_water_bytes()
    watch = None
    if source.interval_s is not None:
        watch = watch_memory(interval_s=source.interval_s, limit=1, shared=False).start()
    since = time.perf_counter()
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        wall_s = time.perf_counter() - since
        series = None if watch is None else watch.stop()
        after, high_after = process_memory(), _high_water_bytes()
        highest = None if series is None else series.peak
        peak, peak_source = _peak(before, after, (high_before, high_after), highest)
        growth, lines = (None, None) if traces is None else traces.stop()
        source.result = MemoryUse(
            name=name,
            wall_s=wall_s,
            before=before,
            after=after,
            peak_rss_bytes=peak,
            peak_source=peak_source,
            high_water_bytes=high_after,
            samples=0 if series is None else series.seen,
            allocations=lines,
            traced_growth_bytes=growth,
            error=None if failure is None else type(failure).__name__,
        )
        _recent.append(source.result)


def _peak(
    before: MemorySample | None,
    after: MemorySample | None,
    high_water: tuple[int | None, int | None],
    highest: MemorySample | None,
) -> tuple[int | None, str | None]:
    """The highest RSS inside of a block, and where that figure comes from; None when unknown."""
    high_before, high_after = high_water
    ends = [sample.rss_bytes for sample in (before, after) if sample is not None]
    if high_before is not None and high_after is not None and high_after > high_before:
        # The kernel folds the present RSS into the mark only at times, so it can lag a little.
        return max(high_after, *ends), "high-water mark"
    if highest is not None:
        return max(highest.rss_bytes, *ends), "samples"
    return None, None


def _high_water_bytes() -> int | None:
    """VmHWM of this process, the highest RSS it ever had; None where there is no such file."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
