"""A finished report and its notebooks, as the program that made it gets them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perfkit.report.engine.headlines import Headline
from perfkit.report.engine.outcome import ExitCode, Failure, Status


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """One notebook of a run: its source, its files and how it ended.

    `html` and `notebook` are file names inside the run's folder. `parameters` holds the effective
    values, defaults included. `cells` counts the code cells with source, `cells_run` those that
    ran to their end.
    """

    name: str
    title: str
    source: str
    html: str
    notebook: str
    status: Status
    duration_s: float
    cells: int
    cells_run: int
    parameters: dict[str, object]
    failure: Failure | None = None

    @property
    def exit_code(self) -> ExitCode:
        return self.status.exit_code


@dataclass(frozen=True, slots=True)
class ReportRun:
    """A finished report: its folder, its parts and the exit code for a command.

    `problems` are what went wrong, `warnings` what disturbed its figures, one sentence each.
    """

    path: Path
    profile: str
    started_utc: str
    duration_s: float
    exit_code: ExitCode
    notebooks: tuple[NotebookRun, ...]
    headlines: tuple[Headline, ...]
    command: tuple[str, ...]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def index_path(self) -> Path:
        return self.path / "index.html"
