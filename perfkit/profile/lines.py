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

from perfkit.profile import html_table, mib_text, short_path


class MemoryProfilerMissing(ImportError):
    """memory_profiler cannot be imported; the message says why and what to do."""


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
    """What a function returned, and the RSS line by line on the way; lines that ran, in order."""

    function: str
    file: str
    result: Any
    lines: tuple[LineUse, ...]

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
        return html_table(f"Memory by line of {self.function} in {self.file}", header, rows)


def line_memory(func: Callable[..., Any], *args: Any, **kwargs: Any) -> LineMemory:
    """Call `func(*args, **kwargs)` and read RSS after each of its lines, in bytes.

    Lines of functions that it calls count for the line that calls them. An exception of `func`
    passes through. A debugger does not see the call. Raises TypeError for what is no plain Python
    function, ValueError when its source is not in a file (a notebook's cell, `exec`), and
    MemoryProfilerMissing.
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
    profiler = _memory_profiler().LineProfiler(backend="psutil")
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


def _memory_profiler() -> ModuleType:
    try:
        return importlib.import_module("memory_profiler")
    except ImportError as error:
        raise MemoryProfilerMissing(
            f"line_memory needs memory_profiler, which cannot be imported ({error}): install "
            '"perfkit[lab]". The package is unmaintained and partly imports distutils, which '
            "Python 3.12 removed and setuptools brings back."
        ) from error
