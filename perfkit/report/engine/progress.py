"""Reports which part of a run is going on.

A cell's title is the markdown heading above it: "Where the time goes" says more than "cell 7". A
log gets a line per cell, a terminal gets bars. papermill's own bar knows neither titles nor several
notebooks, and is off.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TextIO

from perfkit.evidence.text import duration

#: How often a long cell says that it still runs, in seconds.
ALIVE_S = 30.0


class Progress:
    """Hears how a run of notebooks proceeds, in order, from one thread at a time; says nothing.

    `number` counts the code cells of a notebook from 1 to `total`. `cell_running` comes every
    ALIVE_S seconds of a long cell, with the cell's first line. A cell that fails is finished too.
    `run_finished` always comes last, also when a run is interrupted.
    """

    def run_started(self, notebooks: Sequence[str]) -> None: ...
    def notebook_started(self, name: str, total: int) -> None: ...
    def cell_started(self, name: str, number: int, total: int, title: str) -> None: ...
    def cell_running(
        self, name: str, number: int, total: int, line: str, duration_s: float
    ) -> None: ...
    def cell_finished(self, name: str, number: int, duration_s: float) -> None: ...
    def notebook_finished(self, name: str, status: str, duration_s: float) -> None: ...
    def run_finished(self) -> None: ...


class PlainProgress(Progress):
    """One line per cell, for logs: `[01_baseline 3/14] Where the time goes … 4.2 s`.

    A line begins when its cell does, so that a log shows what hangs. A long cell says now and then
    that it still runs.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._open_line = False

    def cell_started(self, name: str, number: int, total: int, title: str) -> None:
        self._close_line()
        self._write(f"[{name} {number}/{total}] {title} …")
        self._open_line = True

    def cell_running(
        self, name: str, number: int, total: int, line: str, duration_s: float
    ) -> None:
        self._close_line()
        self._write(f"[{name} {number}/{total}] runs for {duration(duration_s)}: {line} …")
        self._open_line = True

    def cell_finished(self, name: str, number: int, duration_s: float) -> None:
        self._write(f" {duration(duration_s)}\n")
        self._open_line = False

    def notebook_finished(self, name: str, status: str, duration_s: float) -> None:
        self._close_line()
        self._write(f"[{name}] {status} in {duration(duration_s)}\n")

    def run_finished(self) -> None:
        self._close_line()

    def _close_line(self) -> None:
        if self._open_line:
            self._write("\n")
            self._open_line = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class TerminalProgress(Progress):
    """A bar per notebook with the title of the running cell, drawn by rich.

    `console` is a rich Console; None takes one on standard error.
    """

    def __init__(self, console: Any = None) -> None:
        from rich import progress
        from rich.console import Console

        self._bars = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.fields[notebook]}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.description}", markup=False),
            console=console if console is not None else Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def run_started(self, notebooks: Sequence[str]) -> None:
        self._bars.start()
        for name in notebooks:
            self._tasks[name] = self._bars.add_task(
                "waiting", start=False, total=None, notebook=name
            )

    def notebook_started(self, name: str, total: int) -> None:
        self._bars.start_task(self._tasks[name])
        self._bars.update(self._tasks[name], total=total, description="starting its kernel")

    def cell_started(self, name: str, number: int, total: int, title: str) -> None:
        self._bars.update(self._tasks[name], description=title)

    def cell_running(
        self, name: str, number: int, total: int, line: str, duration_s: float
    ) -> None:
        told = f"cell {number} of {total}, {duration(duration_s)}: {line}"
        self._bars.update(self._tasks[name], description=told)

    def cell_finished(self, name: str, number: int, duration_s: float) -> None:
        self._bars.update(self._tasks[name], completed=number)

    def notebook_finished(self, name: str, status: str, duration_s: float) -> None:
        ended = f"{status} in {duration(duration_s)}"
        self._bars.update(self._tasks[name], description=ended)
        self._bars.stop_task(self._tasks[name])

    def run_finished(self) -> None:
        self._bars.stop()


def progress_for(stream: TextIO | None = None) -> Progress:
    """Bars when `stream` (standard error when None) is a terminal, else plain lines."""
    target = stream if stream is not None else sys.stderr
    if target.isatty():
        from rich.console import Console

        return TerminalProgress(Console(file=target))
    return PlainProgress(target)
