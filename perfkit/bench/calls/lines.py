"""Time and memory of each line of some functions, while a piece of work calls them.

Both can't be had in one run: each reader of lines takes Python's tracing for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from inspect import isclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.profile.instrument import F, Finish, Instrument, as_written, ends_early, name_of
from perfkit.profile.line_memory import LineMemory, MemoryReader, memory_by_line
from perfkit.profile.line_times import LineProfilerMissing, LineTimer, LineTimes, line_times

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LinesReport(Showable):
    """The lines' `times` and, function by function, their `memory`.

    `reasons` say what is missing and why. `error` is what ended the work; the lines up to it are
    there.
    """

    times: LineTimes | None
    memory: tuple[LineMemory, ...] = ()
    reasons: tuple[str, ...] = ()
    error: BaseException | None = field(default=None, repr=False)

    def to_frame(self) -> pd.DataFrame:
        """A row for each line that ran: its time, and RSS after it and its growth, in bytes."""
        memory = {(found.function, use.line): use for found in self.memory for use in found.lines}
        rows = [
            {
                "function": function.function,
                "line": line.line,
                "code": line.code,
                "runs": line.runs,
                "total_s": line.total_s,
                "share": line.share,
                "rss_bytes": use and use.rss_bytes,
                "growth_bytes": use and use.growth_bytes,
            }
            for function in (self.times.functions if self.times else ())
            for line in function.lines
            for use in [memory.get((function.function, line.line))]
        ]
        return data_frame(rows) if rows else data_frame(
            [{"function": it.function, **{n: getattr(use, n) for n in use.__slots__}}
             for it in self.memory for use in it.lines]
        )  # fmt: skip

    def _sheets(self) -> Iterator[Sheet]:
        if self.times:
            yield from self.times._sheets()
        for found in self.memory:
            yield from found._sheets()
        if self.reasons:
            yield Sheet("", notes=self.reasons)

    def _figures(self) -> Figures:
        if self.times:
            return self.times._figures()
        return "MiB", [figure for found in self.memory for figure in found._figures()[1]]


def profile_lines(
    functions: Sequence[Callable[..., Any]],
    work: Callable[[], object],
    name: str = "the work",
    *,
    memory: bool = True,
) -> LinesReport:
    """Do the work and time each line of the functions; with `memory`, do it again and read RSS.

    Functions of a notebook's cell count as well as those of a file; of a decorated one, a method
    or a partial those lines count that are written below it. What the work raises is the report's
    `error`. Without line_profiler or memory_profiler, and for a function whose lines can't be read,
    `reasons` say so. Raises ValueError for a function that is not written in Python.
    """
    functions = _written(functions)
    errors: list[BaseException] = []

    def guarded() -> None:
        __tracebackhide__ = True  # IPython leaves such frames out of what it shows
        try:
            work()
        except BaseException as error:  # kept in the report, for the caller to raise
            errors.append(error)

    times, reasons = None, []
    try:
        times = line_times(functions, guarded, name, 1, per="run")
    except (LineProfilerMissing, ValueError) as error:
        reasons.append(f"No times: {error}.")
    uses: tuple[LineMemory, ...] = ()
    if memory and not errors:
        plain, left_out = _plain(functions)
        reasons += left_out
        uses = memory_by_line(plain, guarded)
    return LinesReport(times, uses, tuple(reasons), errors[0] if errors else None)


class track_lines(Instrument[LinesReport]):  # noqa: N801 -- a context manager, named as those are
    """Time each line of some functions in a `with` block, or in each call of a function it
    decorates, which is one of them if none is named; see `result`.

    With `memory` it reads RSS after each line instead: a block runs once, so it has one of both.
    What a block raises is the report's `error`, and passes. Raises ValueError as `profile_lines`
    does, and for a block without functions.
    """

    def __init__(
        self, *functions: Callable[..., Any], name: str | None = None, memory: bool = False
    ) -> None:
        super().__init__(name)
        self.functions, self.memory = _written(functions), memory
        self._is_open = False

    def __call__(self, func: F) -> F:
        """Decorate a function; raises TypeError as every instrument does."""
        decorated = super().__call__(func)
        if not self.functions:
            self.functions = _written([func])
        return decorated

    def _is_covered(self) -> bool:
        return self._is_open

    def _begin(self, name: str) -> Finish:
        if not self.functions:
            raise ValueError("of which functions? with track_lines(f, g) as it: …")
        functions = self.functions
        reasons: list[str] = []
        reader: MemoryReader | LineTimer | None = None
        try:
            if self.memory:
                functions, reasons = _plain(functions)
            reader = (MemoryReader if self.memory else LineTimer)(functions)
        except LineProfilerMissing as error:
            reasons.append(f"No times: {error}.")

        def finish(error: BaseException | None) -> None:
            self._is_open = False
            if reader is not None:
                reader.__exit__()
            times = None
            if isinstance(reader, LineTimer):
                try:
                    times = reader.times(name, 1, per="run")
                except ValueError as reason:
                    reasons.append(f"No times: {reason}.")
            uses = reader.uses if isinstance(reader, MemoryReader) else ()
            self.result = LinesReport(times, uses, tuple(reasons), error)

        self._is_open = True
        if reader is not None:
            reader.__enter__()
        return finish


def _written(functions: Sequence[Callable[..., Any]]) -> tuple[FunctionType, ...]:
    """These functions as they are in the source."""
    written = tuple(map(as_written, functions))
    for function in written:
        if not isinstance(function, FunctionType):
            why = "a class" if isclass(function) else "not written in Python"
            raise ValueError(f"{name_of(function)} has no lines: it is {why}")
    return written


def _plain(
    functions: Sequence[FunctionType],
) -> tuple[tuple[FunctionType, ...], list[str]]:
    """The functions whose memory can be read, and why the others are left out."""
    left_out = [it for it in functions if ends_early(it)]
    reasons = [f"No memory of {name_of(it)}: it ends before its work does." for it in left_out]
    return tuple(it for it in functions if it not in left_out), reasons
