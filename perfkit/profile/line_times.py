"""How long each line of a function takes, by line_profiler, as a table of a report.

`%lprun` prints such a table into a pager; a report needs a value that can be shown and tested.
Lines are timed one by one, which makes short ones look slower than they are: read the shares inside
one function, not the times.

line_profiler counts a recursive call twice: in the line that calls, and in the lines called. Here
it counts where its innermost call is, so a function's lines add up to the time that it ran. What a
generator does between its resumption and its next line is not counted, so one that calls itself
can't be timed.
"""

from __future__ import annotations

import importlib
import linecache
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from time import perf_counter
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from perfkit.evidence.samples import counted
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import quantity
from perfkit.profile.instrument import name_of
from perfkit.profile.paths import short_path

if TYPE_CHECKING:
    import pandas as pd

YIELDS = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
#: How many lines a picture compares.
LINES_DRAWN = 12
#: Lines that take less of their function than this are left out of the table.
SHARE_SHOWN = 0.02


class LineProfilerMissing(ImportError):
    """line_profiler cannot be imported; the message says what to install."""


@dataclass(frozen=True, slots=True)
class LineTime:
    """One line: how often it ran, its time in seconds, and its part of the function's in 0..1."""

    line: int
    code: str
    runs: int
    total_s: float
    share: float


@dataclass(frozen=True, slots=True)
class FunctionLines:
    """The lines of one function that ran, in the order of the source."""

    function: str
    file: str
    total_s: float
    lines: tuple[LineTime, ...]

    @property
    def passes_on(self) -> bool:
        """Whether nothing ran, or one line has all of the time: a table of it would say nothing."""
        return not any(SHARE_SHOWN <= line.share <= 1 - SHARE_SHOWN for line in self.lines)


@dataclass(frozen=True)
class LineTimes(Showable):
    """Functions line by line, most time first, after `tasks` went through them.

    A function is shown if its lines share its time, or if there is no such function. `per` names
    one of the tasks.
    """

    functions: tuple[FunctionLines, ...]
    name: str
    tasks: int
    per: str = "task"

    def to_frame(self) -> pd.DataFrame:
        """A row for each line that ran, with its function and file."""
        return data_frame(
            {"function": function.function, "file": function.file, **asdict(line)}
            for function in self.functions
            for line in function.lines
        )

    def _sheets(self) -> Iterator[Sheet]:
        shown = [function for function in self.functions if not function.passes_on]
        shown = shown or [function for function in self.functions if function.lines]
        yield from map(self._table, shown) if shown else [Sheet(f"No line of {self.name} ran.")]

    def _figures(self) -> Figures:
        lines = [(function, line) for function in self.functions for line in function.lines]
        lines.sort(key=lambda found: -found[1].total_s)
        return "ms", [
            (f"{function.function}:{line.line} {line.code}", counted(line.total_s, 1e3))
            for function, line in lines[:LINES_DRAWN]
        ]

    def _table(self, function: FunctionLines) -> Sheet:
        shown = [line for line in function.lines if line.share >= SHARE_SHOWN]
        left_out = len(function.lines) - len(shown)
        took = quantity(function.total_s * 1e6 / self.tasks, "µs")
        return Sheet(
            f"{function.function} ({function.file}) of {self.name}: {took} per {self.per}",
            ("line", f"runs per {self.per}", f"µs per {self.per}", "share %", "code"),
            [
                (
                    str(line.line),
                    quantity(line.runs / self.tasks),
                    quantity(line.total_s * 1e6 / self.tasks),
                    f"{line.share * 100:.0f}",
                    line.code,
                )
                for line in shown
            ],
            [f"Left out: {left_out} below {SHARE_SHOWN:.0%}."] if left_out else [],
        )


def line_times(
    functions: Sequence[Callable[..., Any]],
    work: Callable[[], object],
    name: str,
    tasks: int,
    per: str = "task",
) -> LineTimes:
    """Time each line of the functions while `work()` sends `tasks` tasks through them.

    Raises what `LineTimer` raises, and passes what the work raises.
    """
    timer = LineTimer(functions)
    with timer:
        work()
    return timer.times(name, tasks, per)


class LineTimer:
    """Times each line of the functions during a `with` block, in which this thread calls them.

    Raises LineProfilerMissing without line_profiler, ValueError for a function that is not
    Python's.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        try:
            self._profiler = importlib.import_module("line_profiler").LineProfiler()
        except ImportError as error:
            raise LineProfilerMissing(
                f"line_times needs line_profiler, which cannot be imported ({error}): install "
                '"perfkit[lab]".'
            ) from error
        self._names, codes = {}, []
        for function in functions:
            code = getattr(function, "__code__", None)
            if code is None:
                raise ValueError(f"{name_of(function)} has no lines: it is not written in Python")
            place = code.co_filename, code.co_firstlineno, code.co_qualname
            self._names[place] = function.__qualname__
            self._profiler.add_function(function)
            codes.append(function.__code__)  # add_function may have exchanged it
        self._nested = NestedCalls(codes)

    def __enter__(self) -> None:
        self._before = sys.getprofile()
        self._profiler.enable_by_count()
        sys.setprofile(self._nested.note)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)
        self._profiler.disable_by_count()

    def times(self, name: str, tasks: int, per: str = "task") -> LineTimes:
        """The times of the lines, after `tasks` went through them.

        Raises ValueError for a generator that called itself.
        """
        nested = self._nested
        if nested.generators:
            names = ", ".join(sorted(nested.generators))
            raise ValueError(f"{names}: a generator that calls itself")
        stats = self._profiler.get_stats()
        found = [
            _function_lines(
                self._names.get((file, first, called), called),
                file,
                [(at, runs, time * stats.unit - nested.s[file, at]) for at, runs, time in timings],
            )
            for (file, first, called), timings in stats.timings.items()
        ]
        return LineTimes(tuple(sorted(found, key=lambda f: -f.total_s)), name, tasks, per)


class NestedCalls:
    """Seconds that functions spent in calls of themselves, by file and line of the outer call."""

    def __init__(self, codes: Collection[CodeType]) -> None:
        self.s: defaultdict[tuple[str, int], float] = defaultdict(float)
        #: the names of generators that called themselves
        self.generators: set[str] = set()
        self._running: dict[CodeType, list[tuple[FrameType, float]]] = {code: [] for code in codes}

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        """Take note of an event of `sys.setprofile`."""
        running = self._running.get(frame.f_code)
        if running is None:
            return
        if event == "call":
            running.append((frame, perf_counter()))
        elif event == "return" and running:
            _, began = running.pop()
            if running and frame.f_code.co_flags & YIELDS:
                self.generators.add(frame.f_code.co_name)
            elif running:
                self.s[frame.f_code.co_filename, running[-1][0].f_lineno] += perf_counter() - began


def _function_lines(
    function: str, file: str, timings: Sequence[tuple[int, int, float]]
) -> FunctionLines:
    total_s = sum(time_s for _, _, time_s in timings)
    lines = tuple(
        LineTime(
            line,
            linecache.getline(file, line).strip(),
            runs,
            time_s,
            time_s / total_s if total_s else 0.0,
        )
        for line, runs, time_s in timings
    )
    return FunctionLines(function, short_path(file), total_s, lines)
