"""One notebook at a time, with kernels that don't stop when told to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import psutil
import pytest

from perfkit.report import NotebookRun, Progress, Status
from perfkit.report.engine.execute import LINE_MAX, execute_notebook, shortened_line
from perfkit.report.engine.kernel import environment_for, kernel_session
from perfkit.report.engine.notebook import read_notebook

Writer = Callable[..., Path]

CHILD = (
    "import os, subprocess, sys\n"
    "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
    "open('child.pid', 'w').write(str(child.pid))\n"
)
STUBBORN = (
    "import signal, threading\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
    "threading.Event().wait()"
)
SWALLOWS = (
    "import threading\ntry:\n    threading.Event().wait()\nexcept KeyboardInterrupt:\n    pass"
)


def execute(notebook: Path, folder: Path, *, limit_s: float, progress: Progress) -> NotebookRun:
    output = folder / "out {braces}.ipynb"
    run, _ = execute_notebook(
        read_notebook(notebook), output, {}, cell_timeout_s=limit_s, progress=progress, grace_s=0.3
    )
    return run


def test_a_deaf_kernel_is_killed_with_its_children(write_notebook: Writer, tmp_path: Path) -> None:
    titles = Mock(Progress)
    notebook = write_notebook("stuck", "# All", CHILD, "## Stuck", STUBBORN, "never = 1")
    ended = execute(notebook, tmp_path, limit_s=2.0, progress=titles)
    assert (ended.status, ended.cells_run) == (Status.TIMED_OUT, 1)
    started = [call("stuck", 1, 3, "All"), call("stuck", 2, 3, "Stuck")]
    assert titles.cell_started.call_args_list == started
    child = int((tmp_path / "child.pid").read_text())
    _, alive = psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], 5)
    assert alive == []
    assert (tmp_path / "out {braces}.ipynb").is_file()


def test_a_long_cell_is_heard_of_while_it_runs(write_notebook: Writer, tmp_path: Path) -> None:
    heard: list[Any] = []

    class Listener(Progress):
        def cell_running(self, *told: Any) -> None:
            heard.append(told)
            (tmp_path / "go-on").touch()

    waits = "import pathlib, time\nwhile not pathlib.Path('go-on').exists():\n    time.sleep(0.01)"
    notebook = write_notebook("long", "# Long", waits, "1")
    run, _ = execute_notebook(
        read_notebook(notebook), tmp_path / "o.ipynb", {}, cell_timeout_s=30.0,
        progress=Listener(), alive_s=0.05,
    )  # fmt: skip
    assert run.status is Status.DONE
    assert heard[0][:4] == ("long", 1, 2, "import pathlib, time")
    assert heard[0][4] >= 0.05


def test_the_first_line_of_a_cell_is_cut_and_no_comment() -> None:
    assert shortened_line("# why\n\n  x = 1\ny = 2") == "x = 1"
    assert shortened_line("# only a comment") == ""
    assert len(shortened_line("x" * 200)) == LINE_MAX


def test_a_cell_that_eats_the_interrupt_times_out(write_notebook: Writer, tmp_path: Path) -> None:
    notebook = write_notebook("sly", SWALLOWS, "never = 1")
    ended = execute(notebook, tmp_path, limit_s=1.0, progress=Progress())
    assert (ended.status, ended.cells_run) == (Status.TIMED_OUT, 0)
    assert "longer than 1 s" in ended.failure.message


def test_a_cell_that_has_ended_does_not_time_out_while_its_output_is_read() -> None:
    with kernel_session("n", 60.0) as session:
        session.ended.touch()  # by the cell before
        session.cell_started()
        assert not session.ended.exists()
        session.ended.touch()
        session._run_out()
        assert not session.timed_out
        session.cell_started()
        session._run_out()
        assert session.timed_out


def test_a_kernel_is_told_where_perfkit_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "relative:/absolute")
    monkeypatch.chdir("/")
    told = environment_for("01_baseline")
    paths = told["PYTHONPATH"].split(":")
    assert (Path(paths[0]) / "perfkit" / "report").is_dir()
    assert paths[1:] == ["/relative", "/absolute"]
    assert told["PERFKIT_REPORT_NOTEBOOK"] == "01_baseline"


@pytest.mark.parametrize("name", ["short", "d" * 100])
def test_a_kernel_lives_in_a_folder_of_its_own_that_is_short_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    with kernel_session("n", None) as session:
        manager = session.manager_class()()
        assert manager.transport == "ipc"
        assert Path(manager.connection_file).parent == session.scratch
        assert len(f"{manager.ip}-5") < 107
        session.abort()
    assert not session.scratch.exists()
