"""How long one call takes, as a distribution, when it is called again and again from one thread.

Calls follow each other: this is the time of the code alone, not its latency under a load that
arrives on its own (`perfkit bench load` measures that). The collector of garbage stays on, as it is
part of what a caller waits for.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from cluster.vocabulary.printable import count_of
from perfkit.bench.calls.arguments import check_works
from perfkit.evidence.progress import tell
from perfkit.evidence.samples import Interval, counted, percentile_interval
from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import quantity
from perfkit.profile.instrument import Finish, Instrument, name_of

if TYPE_CHECKING:
    import pandas as pd

#: Calls are timed for about this long, unless their number is given.
TIME_S = 1.0
CALLS_MIN, CALLS_MAX = 5, 10_000
#: Blocks that `track_latency` remembers, the newest.
BLOCKS_MAX = 100_000
#: How often a long measurement tells how far it is.
TELL_EVERY_S = 0.5
#: A call has to take this many times as long as reading the clock to be timed by itself.
CLOCKS_MIN = 20
PERCENTILES = (50.0, 95.0, 99.0)
UNITS = (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9))


@dataclass(frozen=True)
class LatencyReport(Showable):
    """The times of calls in seconds, in the order they were made.

    Each of `samples_s` is the time of one call, or the mean of `loops` calls that are too short to
    be timed alone. `first_s` is the call before them, which may have filled caches and is not among
    them; None if there is none. `clock_s` is what reading the clock takes, which each sample
    contains once.
    """

    name: str
    samples_s: tuple[float, ...] = field(repr=False)
    loops: int
    first_s: float | None
    clock_s: float

    @cached_property
    def percentiles_s(self) -> dict[str, Interval]:
        """p50, p95 and p99 in seconds; a bound that the samples can't give is None."""
        return {f"p{q:g}": percentile_interval(self.samples_s, q) for q in PERCENTILES}

    @property
    def unit(self) -> tuple[str, float]:
        """The unit that fits the median, and how many of it make a second."""
        middle_s = median(self.samples_s)
        return next((it for it in UNITS if middle_s * it[1] >= 1), UNITS[-1])

    def to_frame(self) -> pd.DataFrame:
        """A row for each sample, in the order of the calls."""
        return data_frame(
            [{"sample": n, "seconds": it} for n, it in enumerate(self.samples_s)],
            ["sample", "seconds"],
        )

    def _sheets(self) -> Iterator[Sheet]:
        unit, scale = self.unit
        known = {
            "fastest": counted(min(self.samples_s)),
            **self.percentiles_s,
            "slowest": counted(max(self.samples_s)),
        }
        notes = []
        if self.first_s is not None:
            took = quantity(self.first_s * scale, unit)
            notes.append(f"The first call took {took} and is not counted.")
        if self.loops > 1:
            notes.append(
                f"One call is too short to be timed alone: a sample is the mean of {self.loops:,} "
                "calls, so slow single calls do not show."
            )
        calls = count_of(len(self.samples_s) * self.loops, "call")
        yield Sheet(
            f"Latency of {self.name}: {calls}, one after the other (95 % intervals)",
            ("", "time of one call"),
            [(name, figure.scaled(scale).text(unit)) for name, figure in known.items()],
            notes,
        )


def measure_latency(
    call: Callable[[], object], name: str | None = None, *, calls: int | None = None
) -> LatencyReport:
    """Call a function without arguments again and again, and report what a call takes.

    `calls` is how many are timed (default: as many as fit into a second, 5 to 10,000). What the
    call raises passes. Raises ValueError for less than one call, TypeError for a coroutine function
    or a generator function.
    """
    __tracebackhide__ = True  # IPython leaves such frames out of what it shows
    if calls is not None and calls < 1:
        raise ValueError(f"at least one call has to be timed, not {calls}")
    check_works(call)
    clock_s = min(_time_s(_nothing, 1) for _ in range(100))
    first_s = _time_s(call, 1)
    once_s = min(_time_s(call, 1) for _ in range(3 if first_s < TIME_S / 10 else 1))
    loops = 1
    if calls is None or calls >= CALLS_MIN * CLOCKS_MIN:
        loops = max(1, math.ceil(CLOCKS_MIN * clock_s / max(once_s - clock_s, 1e-9)))
        loops = min(loops, calls // CALLS_MIN if calls else loops)
    fit = int(TIME_S / max(once_s * loops, 1e-9))
    count = math.ceil(calls / loops) if calls else min(max(fit, CALLS_MIN), CALLS_MAX)
    samples, told_s = [], perf_counter()
    for number in range(count):
        samples.append(_time_s(call, loops) / loops)
        if perf_counter() - told_s > TELL_EVERY_S:
            told_s = perf_counter()
            tell(f"call {(number + 1) * loops:,} of {count * loops:,}")
    return LatencyReport(name or name_of(call), tuple(samples), loops, first_s, clock_s)


class track_latency(Instrument[LatencyReport]):  # noqa: N801 -- a context manager, named as those are
    """Time each run of a `with` block, or each call of a function it decorates; see `result`.

    All runs count, the first and those that raise as well, up to the newest `BLOCKS_MAX`. The block
    may be in a loop of your own, beside other work:

        timer = track_latency("parse")
        for line in lines:
            with timer:
                parse(line)
        timer.result
    """

    def __init__(self, name: str | None = None) -> None:
        self._samples_s: deque[float] = deque()
        super().__init__(name)
        self._title = name or ""

    @property
    def result(self) -> LatencyReport | None:
        """The report of all runs so far, None before the first; set it to None to begin anew."""
        if not self._samples_s:
            return None
        clock_s = min(_time_s(_nothing, 1) for _ in range(100))
        return LatencyReport(self._title, tuple(self._samples_s), 1, None, clock_s)

    @result.setter
    def result(self, value: LatencyReport | None) -> None:
        self._samples_s = deque(value.samples_s if value else (), BLOCKS_MAX)

    def _begin(self, name: str) -> Finish:
        self._title = name
        since_s = perf_counter()

        def finish(_: BaseException | None) -> None:
            self._samples_s.append(perf_counter() - since_s)

        return finish


def _nothing() -> None:
    pass


def _time_s(call: Callable[[], object], loops: int) -> float:
    """The time of `loops` calls in a row, in seconds."""
    __tracebackhide__ = True  # IPython leaves such frames out of what it shows
    if loops == 1:
        since_s = perf_counter()
        call()
        return perf_counter() - since_s
    since_s = perf_counter()
    for _ in range(loops):
        call()
    return perf_counter() - since_s
