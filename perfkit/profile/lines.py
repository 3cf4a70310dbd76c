"""RSS line by line through one function, by way of memory_profiler.

memory_profiler reads the process's memory after each line, which nothing else here does, but it is
no longer maintained, slows the function down a lot and sees RSS only: a line that reuses memory
shows no growth. So it stays optional, behind one function, and nothing else depends on it.
"""

from __future__ import annotations

import importlib
import inspect
import linecache
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from perfkit.evidence.tables import html_table, mib_text
from perfkit.profile import short_path
from perfkit.profile.findings import MemoryFinding

#: How many lines of a function the common table shows.
FINDINGS_LIMIT = 10


@dataclass(frozen=True, slots=True)
class LineUse:
    """One line of a function: the highest RSS after it, what it added in all its runs, and those.

    `growth_bytes` is None for the line that opens the function, before which nothing was read.
    """

    line: int
    code: str
    rss_bytes: int
    growth_bytes: int | None
    runs: int


@dataclass(frozen=True)
class LineMemory:
    """What a function returned, and the RSS line by line on the way; lines that ran, in order.

    Without memory_profiler there are no lines, and `reason` says why.
    """

    function: str
    file: str
    result: Any
    lines: tuple[LineUse, ...]
    reason: str | None = None

    def findings(self) -> tuple[MemoryFinding, ...]:
        """A row for each line that ran, those that added most first, at most FINDINGS_LIMIT."""
        added = sorted(self.lines, key=lambda use: -(use.growth_bytes or 0))
        return tuple(
            MemoryFinding(
                "memory_profiler",
                self.function,
                f"{self.file}:{use.line}",
                size_bytes=use.rss_bytes,
                growth_bytes=use.growth_bytes,
                count=use.runs,
                counted="runs",
            )
            for use in added[:FINDINGS_LIMIT]
        )

    def _repr_html_(self) -> str:
        rows = (
            (
                str(use.line),
                mib_text(use.rss_bytes),
                "" if use.growth_bytes is None else mib_text(use.growth_bytes, sign="+"),
                str(use.runs),
                use.code,
            )
            for use in self.lines
        )
        header = ("line", "RSS", "growth", "runs", "code")
        title = f"Memory by line of {self.function} in {self.file}"
        return html_table(title, header, rows, [self.reason] if self.reason else [])


def line_memory(func: Callable[..., Any], *args: Any, **kwargs: Any) -> LineMemory:
    """Call `func(*args, **kwargs)` and read RSS after each of its lines, in bytes.

    Lines of functions that it calls count for the line that calls them. An exception of `func`
    passes through. A debugger does not see the call. Where memory_profiler cannot be imported the
    function is called all the same, and the result's `reason` says what to do. Raises TypeError for
    what is no plain Python function, ValueError when its source is not in a file (a notebook's
    cell, `exec`).
    """
    if (
        not isinstance(func, FunctionType)
        or inspect.iscoroutinefunction(func)
        or inspect.isgeneratorfunction(func)
        or inspect.isasyncgenfunction(func)
    ):
        raise TypeError(f"line_memory runs plain Python functions, and {func!r} is not one.")
    filename = func.__code__.co_filename
    try:
        inspect.getsourcelines(func)
        with open(filename, "rb"):
            pass
    except OSError as error:
        raise ValueError(
            f"line_memory needs the source of {func.__qualname__} in a file; move it to a module."
        ) from error
    memory_profiler, reason = _memory_profiler()
    if memory_profiler is None:
        return LineMemory(
            func.__qualname__, short_path(filename), func(*args, **kwargs), (), reason
        )
    profiler = memory_profiler.LineProfiler(backend="psutil")
    # A debugger or a coverage tool that traces as well would take the place of the reader.
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        result = profiler(func)(*args, **kwargs)
    finally:
        sys.settrace(tracer)
    lines: list[LineUse] = []
    first = func.__code__.co_firstlineno
    for source, measures in profiler.code_map.items():
        for line, measure in measures:
            if measure is not None:
                growth_mib, rss_mib, runs = measure
                growth = None if line == first else round(growth_mib * 2**20)
                code = linecache.getline(source, line).rstrip()
                lines.append(LineUse(line, code, round(rss_mib * 2**20), growth, runs))
    return LineMemory(func.__qualname__, short_path(filename), result, tuple(lines))


def _memory_profiler() -> tuple[ModuleType | None, str | None]:
    """The package, or why there is none."""
    try:
        return importlib.import_module("memory_profiler"), None
    except ImportError as error:
        return None, (
            f"memory by line needs memory_profiler, which cannot be imported ({error}): install "
            '"perfkit[lab]". The package is unmaintained and partly imports distutils, which '
            "Python 3.12 removed and setuptools brings back"
        )
