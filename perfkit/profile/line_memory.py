"""RSS line by line through functions, by memory_profiler.

memory_profiler reads the process's memory after each line. It is no longer maintained, slows the
function down a lot and sees RSS only: a line that reuses memory shows no growth. So it is optional,
and nothing else depends on it.

What the process has freed goes back to the system first. Else the C library would serve a line from
there: with 58 MiB to spare in the heap, a line that took 32 MiB grew RSS by nothing. Small objects
still fill holes in the arenas that Python's own allocator keeps.
"""

from __future__ import annotations

import importlib
import linecache
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import FunctionType
from typing import TYPE_CHECKING, Any

from cluster.shells.malloc_trim import MallocTrim
from perfkit.evidence.samples import counted
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import size
from perfkit.profile.instrument import ends_early, name_of
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
class LineMemory(Showable):
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

    def _sheets(self) -> Iterator[Sheet]:
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
        if self.lines:
            yield Sheet(title, header, rows, [self.reason] if self.reason else [])
        else:
            yield Sheet(f"{title}: {self.reason or 'no line of it ran'}.")

    def _figures(self) -> Figures:
        return "MiB", [
            (f"{use.line} {use.code.strip()}", counted(use.growth_bytes, 2**-20))
            for use in self.lines
            if use.growth_bytes is not None
        ]


def line_memory(func: Callable[..., Any], *args: Any, **kwargs: Any) -> LineMemory:
    """Call `func(*args, **kwargs)` and read RSS after each of its lines, in bytes.

    See `memory_by_line`. Raises ValueError as well if there is no source.
    """
    if isinstance(func, FunctionType) and not _source_of(func):
        raise ValueError(f"line_memory needs the source of {func.__qualname__}, and finds none.")
    returned: list[Any] = []
    (found,) = memory_by_line([func], lambda: returned.append(func(*args, **kwargs)))
    return replace(found, result=returned[0])


def memory_by_line(
    functions: Sequence[Callable[..., Any]], work: Callable[[], object]
) -> tuple[LineMemory, ...]:
    """Do the work and read RSS, in bytes, after each line of these functions.

    An exception of the work passes. Raises what `MemoryReader` raises.
    """
    reader = MemoryReader(functions)
    with reader:
        work()
    return reader.uses


class MemoryReader:
    """Reads RSS, in bytes, after each line of the functions that runs in a `with` block.

    Lines of other functions count for the line that calls them. A debugger does not see the block.
    Without memory_profiler it runs all the same; then, and for a function without source (one made
    by `exec`), `reason` says why there are no lines. Raises TypeError for anything but plain Python
    functions.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        for func in functions:
            if not isinstance(func, FunctionType) or ends_early(func):
                raise TypeError(
                    f"memory is read by line in plain Python functions; {name_of(func)} is none."
                )
        self._functions = functions
        self._stack = ExitStack()
        self._profilers: dict[Callable[..., Any], Any] = {}
        self._files = {func: short_path(func.__code__.co_filename) for func in functions}
        self._source = {func: _source_of(func) for func in functions}
        self._reasons = {
            func: "its source is not known" for func in functions if not _source_of(func)
        }
        try:
            self._package: Any = importlib.import_module("memory_profiler")
        except ImportError as error:
            self._reasons = dict.fromkeys(
                functions,
                f"memory by line needs memory_profiler, which cannot be imported ({error}): "
                'install "perfkit[lab]". The package is unmaintained and partly imports distutils, '
                "which Python 3.12 removed and setuptools brings back",
            )

    def __enter__(self) -> None:
        with ExitStack() as stack:
            # A debugger or a coverage tool that traces as well would take the place of the reader.
            stack.callback(sys.settrace, sys.gettrace())
            sys.settrace(None)
            for func in self._functions:
                if func not in self._reasons:
                    stack.enter_context(_in_a_file(func))
                    # One each: a profiler mixes up the lines of functions that call each other.
                    self._profilers[func] = self._package.LineProfiler(backend="psutil")
                    self._profilers[func].add_function(func)
            MallocTrim(after_bytes=1).trim(0)
            for profiler in self._profilers.values():
                stack.enter_context(profiler)
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def uses(self) -> tuple[LineMemory, ...]:
        """The lines of each function that ran."""
        return tuple(
            LineMemory(
                func.__qualname__,
                self._files[func],
                None,
                tuple(
                    _line_use(self._source[func], line, measure, line == first)
                    for _, measures in self._measures(func)
                    for line, measure in measures
                    if measure is not None
                ),
                self._reasons.get(func),
            )
            for func in self._functions
            for first in [func.__code__.co_firstlineno]
        )

    def _measures(self, func: Callable[..., Any]) -> Iterable[tuple[Any, Any]]:
        """By code object, each line with what was read there."""
        found = self._profilers.get(func)
        return found.code_map.items() if found else ()


def _source_of(func: Callable[..., Any]) -> list[str]:
    """The lines of the file or cell that a function was written in; none if they are not known."""
    return linecache.getlines(func.__code__.co_filename)


@contextmanager
def _in_a_file(func: Callable[..., Any]) -> Iterator[None]:
    """Give a cell's function a file with the cell's source, as memory_profiler wants one."""
    code = func.__code__
    if os.path.exists(code.co_filename):
        yield
        return
    with tempfile.NamedTemporaryFile("w", suffix=".py", encoding="utf-8") as file:
        file.writelines(_source_of(func))
        file.flush()
        func.__code__ = code.replace(co_filename=file.name)
        try:
            yield
        finally:
            func.__code__ = code


def _line_use(
    source: Sequence[str], line: int, measure: tuple[float, float, int], first: bool
) -> LineUse:
    growth_mib, rss_mib, runs = measure
    return LineUse(
        line,
        source[line - 1].rstrip(),
        round(rss_mib * 2**20),
        None if first else round(growth_mib * 2**20),
        runs,
    )
