"""What somebody who waits for a report sees, line by line or as bars."""

import io

import pytest
from rich.console import Console

from perfkit.report.engine.progress import PlainProgress, Progress, TerminalProgress, progress_for


def play(progress: Progress) -> None:
    """A run of two notebooks: the first fails in its second cell, the second never starts."""
    progress.run_started(["01_baseline", "02_hot_paths"])
    progress.notebook_started("01_baseline", 3)
    progress.cell_started("01_baseline", 1, 3, "Where the time [goes]")
    progress.cell_finished("01_baseline", 1, 4.16)
    progress.cell_started("01_baseline", 2, 3, "Memory")
    progress.notebook_finished("01_baseline", "failed", 5.0)
    progress.run_finished()


def test_a_log_has_one_line_per_cell() -> None:
    log = io.StringIO()
    PlainProgress(log).cell_started("n", 1, 2, "Load")
    assert log.getvalue() == "[n 1/2] Load …"  # as soon as it begins
    log = io.StringIO()
    play(PlainProgress(log))
    assert log.getvalue().splitlines() == [
        "[01_baseline 1/3] Where the time [goes] … 4.2 s",
        "[01_baseline 2/3] Memory …",
        "[01_baseline] failed in 5.0 s",
    ]


def test_a_long_cell_says_that_it_still_runs() -> None:
    log, screen = io.StringIO(), io.StringIO()
    bars = TerminalProgress(Console(file=screen, force_terminal=True, width=140))
    lines = PlainProgress(log)
    for progress in (lines, bars):
        progress.run_started(["n"])
        progress.notebook_started("n", 2)
        progress.cell_started("n", 2, 2, "Load")
        progress.cell_running("n", 2, 2, "table = measure()", 30.04)
        progress.cell_running("n", 2, 2, "table = measure()", 60.2)
    bars.run_finished()
    lines.cell_finished("n", 2, 71.0)
    assert log.getvalue().splitlines() == [
        "[n 2/2] Load …",
        "[n 2/2] runs for 30.0 s: table = measure() …",
        "[n 2/2] runs for 1 min 0 s: table = measure() … 1 min 11 s",
    ]
    assert "cell 2 of 2, 1 min 0 s: table = measure()" in screen.getvalue()


def test_a_terminal_shows_a_bar_per_notebook() -> None:
    screen = io.StringIO()
    play(TerminalProgress(Console(file=screen, force_terminal=True, width=100)))
    last = screen.getvalue()
    for words in ("01_baseline", "02_hot_paths", "waiting", "failed in 5.0 s", "1/3"):
        assert words in last


def test_the_stream_decides_between_lines_and_bars(capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(progress_for(Terminal()), TerminalProgress)
    assert isinstance(TerminalProgress(), TerminalProgress)
    plain = progress_for()
    assert isinstance(plain, PlainProgress)
    plain.notebook_finished("n", "done", 1)
    assert capsys.readouterr().err == "[n] done in 1.0 s\n"
