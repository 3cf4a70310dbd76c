"""Runs notebooks into reports for people to read and programs to check.

`run_report` takes notebooks and parameters and publishes a folder with an index, a self-contained
page per notebook, their results as JSON and the command to run it all again. `write_history` makes
one page about all runs of a folder. The heavy packages
behind it (papermill, nbconvert, matplotlib) are imported on first use, so a command line that only
prints its help does not load them.

Pictures are in `perfkit.report.figures`, headline findings in `headlines`; notebooks use both, and
check their own parameters by `check_parameters`.
"""

from perfkit.evidence.verdicts import Verdict
from perfkit.report.engine import headlines
from perfkit.report.engine.headlines import Headline
from perfkit.report.engine.outcome import ExitCode, ReportError, Status
from perfkit.report.engine.progress import Progress
from perfkit.report.engine.result import NotebookRun, ReportRun
from perfkit.report.engine.running import check_parameters
from perfkit.report.page.history import write_history
from perfkit.report.run import run_report

__all__ = [
    "ExitCode",
    "Headline",
    "NotebookRun",
    "Progress",
    "ReportError",
    "ReportRun",
    "Status",
    "Verdict",
    "check_parameters",
    "headlines",
    "run_report",
    "write_history",
]
