"""Whole runs over tiny notebooks: what is in the folder, what a failure leaves, how a run ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from perfkit.report import (
    ExitCode,
    Progress,
    ReportError,
    ReportRun,
    Status,
    headlines,
    run_report,
)
from perfkit.report.engine.plan import rerun_command

Writer = Callable[..., Path]
QUIET = Progress()
#: The environment of a child process that imports what this one does.
CHILD = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def outputs(run: ReportRun, name: str) -> str:
    return (run.path / f"{name}.ipynb").read_text()


def test_a_run_holds_everything_a_reader_or_a_program_needs(gallery: ReportRun) -> None:
    assert sorted(path.name for path in gallery.path.iterdir()) == sorted(
        ["index.html", "run.json", "environment.json", "results"]
        + [f"{n}.{e}" for n in ("good", "failing", "loading", "dying") for e in ("ipynb", "html")]
    )
    results = {path.name for path in (gallery.path / "results").iterdir()}
    headlines = {"headline-good-throughput.json", "headline-good-gpu-memory.json"}
    assert results == {"raw.json"} | headlines
    assert gallery.path.name.endswith("-quick")


def test_every_notebook_runs_to_its_own_end(gallery: ReportRun) -> None:
    statuses = {run.name: (run.status, run.cells_run, run.cells) for run in gallery.notebooks}
    assert statuses == {
        "good": (Status.DONE, 9, 9),
        "failing": (Status.FAILED, 1, 3),
        "loading": (Status.FAILED, 2, 2),
        "dying": (Status.KERNEL_DIED, 1, 2),
    }
    assert gallery.exit_code is ExitCode.KERNEL_DIED


def test_a_failure_says_which_cell_and_why(gallery: ReportRun) -> None:
    _, failing, _, dying = (notebook.failure for notebook in gallery.notebooks)
    assert failing.sentence == "in “The division”: ZeroDivisionError: division by zero"
    assert "fine / 0" in failing.traceback
    assert "\x1b" not in failing.traceback
    assert dying.sentence.startswith("in “A kernel that dies”: kernel died")


def test_a_notebook_runs_in_this_interpreter_with_typed_parameters(gallery: ReportRun) -> None:
    printed = outputs(gallery, "good")
    assert f"{sys.executable} " in printed
    assert os.path.expanduser("~/.ipython") not in printed
    assert "('quick', 3, 4, 'results')" in printed


def test_nothing_points_into_the_folder_that_was_renamed(gallery: ReportRun) -> None:
    for path in gallery.path.rglob("*.*"):
        assert ".partial-" not in path.read_text(), path.name
    assert str(gallery.path.parent) not in (gallery.path / "good.html").read_text()
    papermill = json.loads(outputs(gallery, "good"))["metadata"]["papermill"]
    assert papermill["output_path"] == "good.ipynb"


def test_magics_that_print_into_a_pager_show_in_batch(gallery: ReportRun) -> None:
    page = (gallery.path / "good.html").read_text()
    assert "function calls in" in page
    assert "Line Contents" in page


def test_the_run_file_says_how_to_run_it_again(gallery: ReportRun) -> None:
    run = json.loads((gallery.path / "run.json").read_text())
    argv = run["command"]["argv"]
    assert argv[:2] == ["perfkit", "report"]
    told = "--profile quick -p workers=4 -p seed=3".split()
    assert argv[argv.index("--profile") :][:6] == told
    assert run["command"]["shell"].startswith("perfkit report ")
    assert (run["seed"], run["exit_code"], run["status"]) == (3, 5, "kernel died")
    assert [part["exit_code"] for part in run["notebooks"]] == [0, 1, 1, 5]
    assert all(part["duration_s"] > 0 for part in run["notebooks"])
    assert {found["title"] for found in run["headlines"]} == {"Throughput", "GPU memory"}
    expected = {"profile": "quick", "seed": 3, "workers": 4, "out_dir": "results"}
    assert run["parameters"]["good"] == expected
    assert json.loads((gallery.path / "environment.json").read_text())["cores_logical"] >= 1


def test_a_cell_over_its_time_is_interrupted(write_notebook: Writer, tmp_path: Path) -> None:
    waiting = "import threading\ntry:\n    threading.Event().wait()\nfinally:\n    print('tidied')"
    notebook = write_notebook("waiting", "# Waits", waiting, "print('not reached')")
    run = run_report([notebook], out_root=tmp_path, cell_timeout_s=1.5, progress=QUIET)
    assert run.exit_code is ExitCode.TIMED_OUT
    (waited,) = run.notebooks
    assert (waited.status, waited.cells_run) == (Status.TIMED_OUT, 0)
    assert "longer than 1.5 s" in waited.failure.message
    page = (run.path / waited.html).read_text()
    assert "tidied" in page
    assert "KeyboardInterrupt" in page
    assert "not reached\n" not in page.split("Code · not run")[0]
    assert run.command[-2:] == ("--cell-timeout", "1.5")


HEADLINE = (
    "from perfkit.report import headlines\nheadlines.record('results', 'T', 1.0, 'x', verdict="
)


def test_what_comes_after_the_notebooks_adds_findings(
    write_notebook: Writer, tmp_path: Path
) -> None:
    def after(results: Path) -> None:
        headlines.record(results, "Slower", 1.2, "times", verdict="regression", gate=True)

    again = ("--against", "x.json")
    notebook = write_notebook("plain", "# No gate", "1")
    run = run_report([notebook], out_root=tmp_path, progress=QUIET, after=after, after_argv=again)
    assert (run.exit_code, run.command[-2:]) == (ExitCode.REGRESSION, again)
    assert "Slower" in run.index_path.read_text()


def test_gates_decide_the_exit_code(write_notebook: Writer, tmp_path: Path) -> None:
    notebook = write_notebook("gated", "# A gate", HEADLINE + "'missed')")
    gated = run_report([notebook], out_root=tmp_path, gate=True, progress=QUIET)
    assert (gated.exit_code, gated.command[-1]) == (ExitCode.REGRESSION, "--gate")
    assert gated.notebooks[0].status is Status.DONE
    stored = json.loads((gated.path / "run.json").read_text())
    assert stored["verdict"].startswith("0 of 1 goal met; missed: ")
    assert stored["warnings"] == [*gated.warnings]
    page = (gated.path / "gated.html").read_text()
    assert f'<p class="verdict missed">{stored["verdict"]}</p>' in page


def test_a_broken_headline_is_named_in_the_report(write_notebook: Writer, tmp_path: Path) -> None:
    broken = "open('results/headline-x.json', 'w').write('{')"
    notebook = write_notebook("broken", HEADLINE + "'inconclusive', gate=True)", broken)
    run = run_report([notebook], out_root=tmp_path, progress=QUIET)
    assert run.exit_code is ExitCode.CELL_FAILED
    assert "headline-x.json is not a headline" in run.index_path.read_text()


def test_what_jupyter_a_user_has_installed_does_not_matter(
    write_notebook: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "jupyter" / "kernels" / "python3"
    broken.mkdir(parents=True)
    (broken / "kernel.json").write_text('{"argv": ["/no/such/python"], "language": "python"}')
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("loaded = 'from a profile'")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    notebook = write_notebook("own", "import sys\n(sys.executable, 'loaded' in globals())")
    run = run_report([notebook], out_root=tmp_path / "reports", progress=QUIET)
    assert run.exit_code is ExitCode.DONE
    assert f"('{sys.executable}', False)" in outputs(run, "own")


def test_a_crash_in_the_middle_leaves_nothing(write_notebook: Writer, tmp_path: Path) -> None:
    progress = Mock(Progress)
    progress.notebook_finished.side_effect = ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        run_report([write_notebook("one", "# One", "1")], out_root=tmp_path, progress=progress)
    progress.run_finished.assert_called_once_with()
    assert list(tmp_path.iterdir()) == []


INTERRUPTED = """
import sys
from pathlib import Path
from perfkit.report import Progress, run_report
run_report([Path(sys.argv[1])], out_root=sys.argv[2], progress=Progress())
"""


def test_an_interrupted_run_leaves_nothing_behind(write_notebook: Writer, tmp_path: Path) -> None:
    pipe, reports = tmp_path / "pipe", tmp_path / "reports"
    os.mkfifo(pipe)
    waiting = (
        f"import os, threading\nwith open({str(pipe)!r}, 'w') as pipe:\n"
        "    print(os.getpid(), os.getppid(), file=pipe)\nthreading.Event().wait()"
    )
    command = [
        *(sys.executable, "-c", INTERRUPTED),
        *(str(write_notebook("waiting", "# Waits", waiting)), str(reports)),
    ]
    runs = [subprocess.Popen(command, env=CHILD, stderr=subprocess.DEVNULL) for _ in "ab"]
    try:
        kernels = {}
        while len(kernels) < len(runs):
            for line in pipe.read_text().splitlines():
                kernel, run = map(int, line.split())
                kernels[run] = psutil.Process(kernel)
        runs[0].send_signal(signal.SIGINT)
        runs[1].send_signal(signal.SIGTERM)
        codes = [run.wait(timeout=60) for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.wait()
    assert codes == [-signal.SIGINT, 128 + signal.SIGTERM]
    assert not any(kernel.is_running() for kernel in kernels.values())
    assert list(reports.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "arguments", "complaint"),
    [
        ([], {}, "at least one notebook"),
        (["fin"], {}, "did you mean 'fine.ipynb'"),
        (["fine", "fine"], {}, "two notebooks are called fine"),
        (["index"], {}, "can't be called index"),
        (["fine"], {"profile": "../up"}, "no plain word"),
        (["fine"], {"cell_timeout_s": 0}, "above 0"),
        (["fine"], {"parameters": {"speed": 1}}, "'speed' is unknown"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    write_notebook: Writer, tmp_path: Path, names: list[str], arguments: Any, complaint: str
) -> None:
    fine = write_notebook("fine", "# Fine", parameters='profile: str = "quick"  # quick|full')
    paths = [fine.with_name(f"{name}.ipynb") for name in names]
    with pytest.raises(ReportError, match=complaint) as caught:
        run_report(paths, out_root=tmp_path / "new", progress=QUIET, **arguments)
    assert caught.value.exit_code is ExitCode.BAD_ARGUMENTS
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written_is_named(write_notebook: Writer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=r"can't be written to .*file"):
        run_report([write_notebook("x", "# X")], out_root=tmp_path / "file", progress=QUIET)


def test_the_command_to_run_again_leaves_defaults_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert rerun_command(["/notebooks/a.ipynb"], "full", {"files": [1, "b"]}) == (
        *("perfkit", "report", "notebooks/a.ipynb", "--profile", "full", "-p", "files=[1, 'b']"),
    )
    elsewhere = rerun_command(["a.ipynb"], "q", {}, Path("out"), cell_timeout_s=None, gate=True)
    assert elsewhere[5:] == ("--out", "out", "--cell-timeout", "0", "--gate")


def test_importing_the_engine_imports_nothing_heavy() -> None:
    heavy = {"papermill", "nbconvert", "nbformat", "matplotlib", "IPython", "jinja2", "numpy"}
    code = "import sys, perfkit.report, perfkit.report.figures.charts; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], env=CHILD, capture_output=True, text=True)
    assert "perfkit.report" in loaded.stdout.split()
    assert heavy & set(loaded.stdout.split()) == set()
