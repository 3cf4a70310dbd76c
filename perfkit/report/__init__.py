"""Runs notebooks into reports that a person wants to read and a program can check.

`run_report` takes notebooks and parameters and publishes a folder with an index, a self-contained
page per notebook, their results as JSON and the command to run it all again. The heavy packages
behind it (papermill, nbconvert, matplotlib) are imported when they are first used: a command line
that only prints its help pays for none of them.

Pictures are in `perfkit.report.figures`, headline findings in `perfkit.report.engine.headlines`;
both are for notebooks and know nothing of how a report is run.
"""

from perfkit.report.engine.headlines import Headline, Verdict
from perfkit.report.engine.outcome import (
    SEVERITY,
    ExitCode,
    Failure,
    ReportError,
    Status,
    most_severe,
)
from perfkit.report.engine.parameters import Parameter, ParameterError, read_parameters
from perfkit.report.engine.progress import (
    PlainProgress,
    Progress,
    SilentProgress,
    TerminalProgress,
    progress_for,
)
from perfkit.report.engine.result import NotebookRun, ReportRun
from perfkit.report.run import DEFAULT_CELL_TIMEOUT_S, rerun_command, run_report

__all__ = [
    "DEFAULT_CELL_TIMEOUT_S",
    "SEVERITY",
    "ExitCode",
    "Failure",
    "Headline",
    "NotebookRun",
    "Parameter",
    "ParameterError",
    "PlainProgress",
    "Progress",
    "ReportError",
    "ReportRun",
    "SilentProgress",
    "Status",
    "TerminalProgress",
    "Verdict",
    "most_severe",
    "progress_for",
    "read_parameters",
    "rerun_command",
    "run_report",
]
