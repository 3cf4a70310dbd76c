"""What a report run ends with: exit codes, statuses, and the errors that keep it from starting.

A report is made by people at a terminal and by programs in CI. Both need to tell a wrong argument
from a notebook that failed, a kernel that died, a limit that passed and a finding that is bad
news, without reading text. So the codes live here, in one table, and everything else refers to it.
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


#: Most severe first. What says nothing about the code under study (a dead kernel) outranks what
#: says something (a regression), because the latter's figures can't be trusted beside the former.
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
    """The code that a run ends with, given those of its parts; DONE when there are none."""
    return min(codes, key=SEVERITY.index, default=ExitCode.DONE)


class ReportError(Exception):
    """A report that could not start, in one sentence that says what to change.

    `exit_code` is what a command-line program should end with.
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

    `cell_index` counts all cells of the executed notebook from 0; it is None when the failure
    belongs to no cell (the kernel did not start, the page is too large).
    `traceback` is plain text without terminal colours, empty when there is none.
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
