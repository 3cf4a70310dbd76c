"""How a report run ends: exit codes, statuses, and the errors that keep it from starting.

People at a terminal and programs in CI both need to tell a wrong argument from a failed notebook, a
dead kernel, a time-out and a regression, without reading text. So one table holds the codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from cluster.vocabulary.errors import ClusterError


class ExitCode(IntEnum):
    """The exit code of `perfkit report`, also stored in `run.json`.

    A run of several notebooks ends with the most severe of their codes; SEVERITY is the order.
    """

    DONE = 0
    CELL_FAILED = 1
    BAD_ARGUMENTS = 2
    REGRESSION = 3
    INCONCLUSIVE = 4
    KERNEL_DIED = 5
    TIMED_OUT = 6


#: What each code tells the reader of a report.
MEANING: Mapping[ExitCode, str] = {
    ExitCode.DONE: "Every notebook ran to its end, and no gate failed.",
    ExitCode.CELL_FAILED: "A cell raised or left its notebook, or a page is not self-contained.",
    ExitCode.BAD_ARGUMENTS: "The arguments were wrong; no kernel was started.",
    ExitCode.REGRESSION: "Every notebook ran, and a gate found a missed goal or a regression.",
    ExitCode.INCONCLUSIVE: "Every notebook ran, and a gate could not decide.",
    ExitCode.KERNEL_DIED: "A kernel died in the middle of a cell; the other notebooks ran.",
    ExitCode.TIMED_OUT: "A cell ran out of time and was stopped; the other notebooks ran.",
}

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


class ReportError(ClusterError):
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
        return ExitCode.CELL_FAILED if self is Status.FAILED else ExitCode[self.name]


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
