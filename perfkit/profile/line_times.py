"""Which line of a function takes how long, by line_profiler, as a table of a report.

`%lprun` prints such a table into a pager; a report wants it as a value that can be shown, sorted
and tested. Lines are timed one by one, which makes short ones look dearer than they are: the shares
inside of one function are what to read.
"""

from __future__ import annotations

import importlib
import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from types import ModuleType
from typing import Any

from perfkit.profile import short_path

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
    """The lines of one function that ran, in the order they are written."""

    function: str
    file: str
    total_s: float
    lines: tuple[LineTime, ...]

    @property
    def passes_on(self) -> bool:
        """Whether nothing ran, or one line has all of the time: a table of it would say nothing."""
        return not any(SHARE_SHOWN <= line.share <= 1 - SHARE_SHOWN for line in self.lines)


@dataclass(frozen=True)
class LineTimes:
    """Functions line by line, those with the most time first. `tasks` went through them.

    Shown are those whose lines share their time.
    """

    functions: tuple[FunctionLines, ...]
    name: str
    tasks: int

    def _repr_html_(self) -> str:
        shown = [function for function in self.functions if not function.passes_on]
        return "".join(map(self._table, shown)) or f"<p>No line of {escape(self.name)} ran.</p>"

    def _table(self, function: FunctionLines) -> str:
        shown = [line for line in function.lines if line.share >= SHARE_SHOWN]
        left_out = len(function.lines) - len(shown)
        rows = "".join(
            f"<tr><td>{line.line}</td><td>{line.runs / self.tasks:.3g}</td>"
            f"<td>{line.total_s * 1e6 / self.tasks:.3g}</td><td>{line.share:.0%}</td>"
            f"<td><code>{escape(line.code)}</code></td></tr>"
            for line in shown
        )
        took_us = function.total_s * 1e6 / self.tasks
        title = f"{function.function} ({function.file}) of {self.name}: {took_us:.3g} µs per task"
        note = f"<p>Left out: {left_out} below {SHARE_SHOWN:.0%}.</p>" if left_out else ""
        head = "".join(
            f"<th>{name}</th>" for name in ("line", "runs per task", "µs per task", "share", "code")
        )
        return (
            f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table>{note}"
        )


def line_times(
    functions: Sequence[Callable[..., Any]], work: Callable[[], object], name: str, tasks: int
) -> LineTimes:
    """Time each line of the functions while `work()` sends `tasks` tasks through them.

    Only calls made by this thread during the work count. Raises LineProfilerMissing without
    line_profiler, ValueError for a function that is not Python's, and passes what the work raises.
    """
    profiler = _line_profiler().LineProfiler()
    for function in functions:
        if not hasattr(function, "__code__"):
            raise ValueError(f"{function!r} has no lines: it is not written in Python")
        profiler.add_function(function)
    profiler.enable_by_count()
    try:
        work()
    finally:
        profiler.disable_by_count()
    stats = profiler.get_stats()
    names = {
        (code.co_filename, code.co_firstlineno): function.__qualname__
        for function in functions
        for code in (function.__code__,)
    }
    found = [
        _function_lines(names.get((file, first), called), file, timings, stats.unit)
        for (file, first, called), timings in stats.timings.items()
    ]
    return LineTimes(tuple(sorted(found, key=lambda f: -f.total_s)), name, tasks)


def _function_lines(
    function: str, file: str, timings: Sequence[tuple[int, int, int]], unit_s: float
) -> FunctionLines:
    total_s = sum(time for _, _, time in timings) * unit_s
    lines = tuple(
        LineTime(
            line,
            linecache.getline(file, line).strip(),
            runs,
            time * unit_s,
            time * unit_s / total_s if total_s else 0.0,
        )
        for line, runs, time in timings
    )
    return FunctionLines(function, short_path(file), total_s, lines)


def _line_profiler() -> ModuleType:
    try:
        return importlib.import_module("line_profiler")
    except ImportError as error:
        raise LineProfilerMissing(
            f"line_times needs line_profiler, which cannot be imported ({error}): install "
            '"perfkit[lab]".'
        ) from error
