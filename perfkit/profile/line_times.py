"""How long each line of a function takes, as a table of a report.

line_profiler's `%lprun` prints such a table into a pager; a report needs a value that can be shown
and tested. line_profiler also counts the time of a recursive call twice, in the line that calls and
in the lines called, and loses what a generator does between its resumption and its next line.

Here a moment counts once for each function: for the line where its innermost running call is. So a
function's lines add up to the time that it was on the stack, however often it calls itself, also by
way of others. Lines are timed one by one, which makes short ones look slower than they are: read
the shares inside one function, not the times.
"""

from __future__ import annotations

import linecache
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from time import perf_counter_ns
from types import CodeType, FrameType
from typing import Any

from perfkit.evidence.tables import html_table
from perfkit.evidence.text import quantity
from perfkit.profile.paths import short_path

#: Lines that take less of their function than this are left out of the table.
SHARE_SHOWN = 0.02


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
class LineTimes:
    """Functions line by line, most time first, after `tasks` went through them.

    A function is shown if its lines share its time.
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
        took = quantity(function.total_s * 1e6 / self.tasks, "µs")
        return html_table(
            f"{function.function} ({function.file}) of {self.name}: {took} per task",
            ("line", "runs per task", "µs per task", "share %", "code"),
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
    functions: Sequence[Callable[..., Any]], work: Callable[[], object], name: str, tasks: int
) -> LineTimes:
    """Time each line of the functions while `work()` sends `tasks` tasks through them.

    Only calls made by this thread during the work count, and a debugger does not see them. Raises
    ValueError for a function that is not Python's, and passes what the work raises.
    """
    records: dict[CodeType, _Record] = {}
    for function in functions:
        code = getattr(function, "__code__", None)
        if code is None:
            raise ValueError(f"{function!r} has no lines: it is not written in Python")
        records[code] = _Record(function.__qualname__)
    debugger = sys.gettrace()
    sys.settrace(_tracer(records))
    try:
        work()
    finally:
        sys.settrace(debugger)
    found = [_function_lines(code.co_filename, record) for code, record in records.items()]
    return LineTimes(tuple(sorted(found, key=lambda f: -f.total_s)), name, tasks)


@dataclass(slots=True)
class _Record:
    """What one function did: by line its nanoseconds and runs, and its running calls with the line
    where each is, the innermost last.
    """

    function: str
    time_ns: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    runs: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    calls: list[FrameType] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    since_ns: int = 0


def _tracer(records: dict[CodeType, _Record]) -> Callable[[FrameType, str, Any], Any]:
    """A function for `sys.settrace` that fills the records; its own time does not count."""
    own_ns = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal own_ns
        record = records.get(frame.f_code)
        if record is None:
            return None
        entered_ns = perf_counter_ns()
        calls, lines = record.calls, record.lines
        if calls:
            record.time_ns[lines[-1]] += entered_ns - own_ns - record.since_ns
        if not calls or calls[-1] is not frame:  # called, or a generator that goes on
            calls.append(frame)
            lines.append(frame.f_lineno)
        if event == "line":
            lines[-1] = frame.f_lineno
            record.runs[frame.f_lineno] += 1
        elif event == "return":
            calls.pop()
            lines.pop()
        record.since_ns = entered_ns - own_ns
        own_ns += perf_counter_ns() - entered_ns
        return trace

    return trace


def _function_lines(file: str, record: _Record) -> FunctionLines:
    seconds = {line: record.time_ns[line] / 1e9 for line in sorted(record.runs)}
    total_s = sum(seconds.values())
    lines = tuple(
        LineTime(
            line,
            linecache.getline(file, line).strip(),
            record.runs[line],
            took_s,
            took_s / total_s if total_s else 0.0,
        )
        for line, took_s in seconds.items()
    )
    return FunctionLines(record.function, short_path(file), total_s, lines)
