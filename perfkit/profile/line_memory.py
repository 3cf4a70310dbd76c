"""RSS line by line through one function, by memory_profiler.

memory_profiler reads the process's memory after each line. It is no longer maintained, slows the
function down a lot and sees RSS only: a line that reuses memory shows no growth. So it is optional,
and nothing else depends on it.
"""

from __future__ import annotations

import importlib
import inspect
import linecache
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from perfkit.evidence.tables import data_frame, html_table
from perfkit.evidence.text import size
from perfkit.profile.instrument import ends_early
from perfkit.profile.paths import short_path

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class LineUse:
    """One line of a function: the highest RSS after it, what all its runs added, and their number.

    `growth_bytes` is None for the line that opens the function, before which nothing was read.
    """

    line: int
    code: str
    rss_bytes: int
    growth_bytes: int | None
    runs: int


@dataclass(frozen=True)
class LineMemory:
    """What a function returned, and RSS after each line that ran, in the order of the source.

    Without memory_profiler there are no lines, and `reason` says why.
    """

    function: str
    file: str
    result: Any
    lines: tuple[LineUse, ...] = ()
    reason: str | None = None

    def to_frame(self) -> pd.DataFrame:
        """A row for each line that ran; the columns are LineUse's fields."""
        return data_frame(self.lines, LineUse.__slots__)

    def _repr_html_(self) -> str:
        rows = (
            (
                str(use.line),
                size(use.rss_bytes),
                "" if use.growth_bytes is None else size(use.growth_bytes, sign="+"),
                f"{use.runs:,}",
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
    passes. A debugger does not see the call. Without memory_profiler the function is called all the
    same, and `reason` says what to install. Raises TypeError for anything but a plain Python
    function, ValueError when its source is not in a file (a notebook's cell, `exec`).
    """
    if not isinstance(func, FunctionType) or ends_early(func):
        raise TypeError(f"line_memory runs plain Python functions, and {func!r} is not one.")
    name, filename = func.__qualname__, func.__code__.co_filename
    try:
        inspect.getsourcelines(func)
        with open(filename, "rb"):
            pass
    except OSError as error:
        raise ValueError(
            f"line_memory needs the source of {name} in a file; move it to a module."
        ) from error
    try:
        memory_profiler = importlib.import_module("memory_profiler")
    except ImportError as error:
        reason = (
            f"memory by line needs memory_profiler, which cannot be imported ({error}): install "
            '"perfkit[lab]". The package is unmaintained and partly imports distutils, which '
            "Python 3.12 removed and setuptools brings back"
        )
        return LineMemory(name, short_path(filename), func(*args, **kwargs), reason=reason)
    profiler = memory_profiler.LineProfiler(backend="psutil")
    # A debugger or a coverage tool that traces as well would take the place of the reader.
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        result = profiler(func)(*args, **kwargs)
    finally:
        sys.settrace(tracer)
    lines = tuple(
        _line_use(source, line, measure, first=line == func.__code__.co_firstlineno)
        for source, measures in profiler.code_map.items()
        for line, measure in measures
        if measure is not None
    )
    return LineMemory(name, short_path(filename), result, lines)


def _line_use(source: str, line: int, measure: tuple[float, float, int], first: bool) -> LineUse:
    growth_mib, rss_mib, runs = measure
    return LineUse(
        line,
        linecache.getline(source, line).rstrip(),
        round(rss_mib * 2**20),
        None if first else round(growth_mib * 2**20),
        runs,
    )
