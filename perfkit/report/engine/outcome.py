"""How a report run ends: exit codes, statuses, and the errors that keep it from starting.

People at a terminal and programs in CI both need to tell a wrong argument from a failed notebook, a
dead kernel, a time-out and a regression, without reading text. So one table holds the codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """The exit code of `perfkit report`, also stored in `run.json`.

    A run of several notebooks ends with the most severe of their codes; SEVERITY is the order.
    """

    DONE = 0
    """Every notebook ran to its end, and no gate found bad news."""
    CELL_FAILED = 1
    """A cell raised, or a page could not be written whole and self-contained."""
    BAD_ARGUMENTS = 2
    """A notebook, a parameter or the output folder is wrong; no kernel was started."""
    REGRESSION = 3
    """A gate headline has the verdict `regression` or `slower`."""
    INCONCLUSIVE = 4
    """A gate headline has the verdict `inconclusive`."""
    KERNEL_DIED = 5
    """A kernel ended in the middle of a cell (out of memory, a crash, `os._exit`)."""
    TIMED_OUT = 6
    """A cell took longer than the limit for one cell and was stopped."""


#: Most severe first. A dead kernel outranks a regression, whose figures can't be trusted beside it.
SEVERITY: tuple[ExitCode, ...] = (
    ExitCode.BAD_ARGUMENTS,
    ExitCode.KERNEL_DIED,
    ExitCode.TIMED_OUT,
    ExitCode.CELL_FAILED,
    ExitCode.REGRESSION,
    ExitCode.INCONCLUSIVE,
    ExitCode.DONE,
)


def most_severe(codes: Iterable[ExitCode]) -> ExitCode:
    """The exit code of a run from those of its parts; DONE without any."""
    return min(codes, key=SEVERITY.index, default=ExitCode.DONE)


class ReportError(Exception):
    """Why a report could not start, in one sentence that says what to change.

    `exit_code` is for a command-line program to end with.
    """

    exit_code: ExitCode = ExitCode.BAD_ARGUMENTS


class Status(StrEnum):
    """How one notebook ended."""

    DONE = "done"
    FAILED = "failed"
    KERNEL_DIED = "kernel died"
    TIMED_OUT = "timed out"

    @property
    def exit_code(self) -> ExitCode:
        return {
            Status.DONE: ExitCode.DONE,
            Status.FAILED: ExitCode.CELL_FAILED,
            Status.KERNEL_DIED: ExitCode.KERNEL_DIED,
            Status.TIMED_OUT: ExitCode.TIMED_OUT,
        }[self]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a notebook stopped, in the words of its error.

    `cell_index` counts all cells of the executed notebook from 0; it is None when no cell failed
    (the kernel did not start, the page is too large). `traceback` is plain text without terminal
    colours, empty when there is none.
    """

    cell_index: int | None
    title: str
    name: str
    message: str
    traceback: str = ""

    @property
    def sentence(self) -> str:
        where = f"in “{self.title}”: " if self.cell_index is not None else ""
        return f"{where}{self.name}: {self.message}" if self.message else f"{where}{self.name}"
