"""Reports from the command line: arguments, output and exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from typer.testing import Result

from perfkit.report import ExitCode, NotebookRun, ReportRun, Status
from perfkit.report.engine.floods import DISPLAYS_MAX, TEXT_MAX
from perfkit.report.engine.outcome import Failure
from perfkit.report.engine.plan import rerun_command
from tests.perfkit.cli.conftest import plain_environment

Call = Callable[..., Result]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of run_report; it returns a report whose only notebook failed."""
    heard: dict[str, Any] = {}

    def run_report(notebooks: Any, profile: str, parameters: Any, out: Any, **more: Any) -> Any:
        heard.update(more, notebooks=notebooks, profile=profile, parameters=parameters, out=out)
        failure = Failure(3, "Where it breaks", "ValueError", "no luck")
        run = NotebookRun(
            "01_x", "X", "x", "x.html", "x.ipynb", Status.FAILED, 1.0, 4, 3, {}, failure
        )
        return ReportRun(
            Path("reports/r"), profile, "now", 1.0, ExitCode.CELL_FAILED, (run,), (), ("perfkit",)
        )

    monkeypatch.setattr("perfkit.report.run_report", run_report)
    return heard


def test_the_last_line_is_the_index_and_codes_pass(perfkit: Call, asked: dict[str, Any]) -> None:
    ended = perfkit("report", "x.ipynb")
    assert (ended.exit_code, ended.stdout) == (1, "reports/r/index.html\n")
    assert ended.stderr == ("perfkit: 01_x failed in “Where it breaks”: ValueError: no luck\n")


@pytest.mark.parametrize(
    ("parameters", "out", "options"),
    [
        ({}, "reports", {}),
        ({"tasks": "5000", "name": "a=b"}, "elsewhere", {"cell_timeout_s": 1.5, "gate": True}),
        ({}, "reports", {"cell_timeout_s": None}),
    ],
)
def test_the_command_that_a_report_stores_repeats_it(
    perfkit: Call, asked: dict[str, Any], parameters: Any, out: str, options: Any
) -> None:
    program, *arguments = rerun_command(["a.ipynb", "b.ipynb"], "full", parameters, out, **options)
    perfkit(*arguments)
    assert program == "perfkit"
    assert asked == {
        "notebooks": [Path("a.ipynb"), Path("b.ipynb")], "profile": "full", "out": Path(out),
        "parameters": parameters, "cell_timeout_s": 600.0, "gate": False, **options,
    }  # fmt: skip


def test_a_parameter_without_a_value_is_refused(perfkit: Call, asked: dict[str, Any]) -> None:
    ended = perfkit("report", "x.ipynb", "-p", "tasks")
    assert (ended.exit_code, asked) == (2, {})
    assert ended.stderr == "perfkit: -p: 'tasks' is not NAME=VALUE\n"


def test_a_missing_notebook_is_an_error(perfkit: Call) -> None:
    ended = perfkit("report", "none.ipynb")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("perfkit: ")
    assert "none.ipynb" in ended.stderr


def test_without_papermill_it_says_why(perfkit: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_report(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'papermill'", name="papermill")

    monkeypatch.setattr("perfkit.report.run_report", run_report)
    ended = perfkit("report", "x.ipynb")
    assert ended.exit_code == 1
    assert "pip install 'perfkit[lab]'" in ended.stderr
    assert "papermill" in ended.stderr


def test_the_notebooks_of_the_folder_are_run_in_order_or_else_those_of_the_package(
    perfkit: Call, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    monkeypatch.setattr("perfkit.__file__", str(package / "__init__.py"))
    assert "there is no notebook in ./notebooks" in perfkit("report").stderr
    (package / "_notebooks").mkdir(parents=True)
    (package / "_notebooks" / "01_a.ipynb").touch()
    perfkit("report")
    assert asked["notebooks"] == [package / "_notebooks" / "01_a.ipynb"]
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("02_b", "01_a", "scratch"):
        (folder / f"{name}.ipynb").touch()
    perfkit("report")
    assert asked["notebooks"] == [Path("notebooks/01_a.ipynb"), Path("notebooks/02_b.ipynb")]


@pytest.fixture
def four_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with notebooks."""
    monkeypatch.chdir(tmp_path)
    folder = Path("notebooks")
    folder.mkdir()
    for name in ("01_a", "02_b", "04_c", "06_d"):
        (folder / f"{name}.ipynb").touch()
    return folder


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (["01"], ["01_a"]),
        (["06", "02_b"], ["02_b", "06_d"]),
        (["0"], ["01_a", "02_b", "04_c", "06_d"]),
    ],
)
def test_only_chooses_by_the_beginning_of_a_name_in_their_order(
    perfkit: Call, asked: dict[str, Any], four_notebooks: Path, only: list[str], names: list[str]
) -> None:
    perfkit("report", *(part for prefix in only for part in ("--only", prefix)))
    assert asked["notebooks"] == [four_notebooks / f"{name}.ipynb" for name in names]


@pytest.mark.parametrize("wrong", ["9", "baseline", ""])
def test_only_with_what_fits_no_notebook_says_what_there_is(
    perfkit: Call, asked: dict[str, Any], four_notebooks: Path, wrong: str
) -> None:
    ended = perfkit("report", "--only", "01", "--only", wrong)
    assert (ended.exit_code, asked) == (2, {})
    assert f"no notebook begins with {wrong!r}; there are 01_a, 02_b, 04_c, 06_d" in ended.stderr
    ended = perfkit("report", "x.ipynb", "--only", "01")
    assert (ended.exit_code, asked) == (2, {})
    assert "leave out NOTEBOOK" in ended.stderr


def test_index_writes_the_history_and_runs_nothing(
    perfkit: Call, asked: dict[str, Any], tmp_path: Path
) -> None:
    ended = perfkit("report", "index", "--out", str(tmp_path))
    assert (ended.exit_code, ended.stdout) == (0, f"{tmp_path}/index.html\n")
    assert (tmp_path / "index.html").is_file()
    assert asked == {}
    ended = perfkit("report", "index", "--out", str(tmp_path / "none"))
    assert ended.exit_code == 2
    assert "has no reports to list" in ended.stderr


#: Notebooks by name; a cell that begins with `#!` has the tag raises-exception.
ENDS = {
    "leaves": ["import sys; sys.exit(0)", "open('results/went-on', 'w')"],
    "quits": ["exit()", "open('results/went-on', 'w')"],
    "unexpected": ["#!\n1 / 0", "{}['missing' * 1_000_000]", "'not reached'"],
    "goes_on": [
        "#!\n1 / 0",
        "#!\nraise SystemExit(0)",
        "#!\n'no error'",
        "import os, subprocess, sys\nos.system('echo child; echo child >&2')\n"
        "os.write(1, b'descriptor\\n')\nprint('underneath', file=sys.__stdout__, flush=True)",
        "import atexit\natexit.register(os.write, 1, b'at exit\\n')\n"
        "line = 'sleep 0.3; echo orphan; exec sleep 600'\n"
        "child = subprocess.Popen(['setsid', 'sh', '-c', line])\n"
        "print(child.pid, file=open('results/orphan', 'w'), flush=True)",
        "done = os.system('yes 2> /dev/null | head -c 1100000')",
        "for number in range(600): print(number, 'é', flush=True)\nprint('z' * 1_100_000)",
        "import threading\nloud = lambda: [display(number) for number in range(300)]\n"
        "thread = threading.Thread(target=loud); thread.start(); thread.join(); loud()",
        "'w' * 1_100_000",
        "shown = display(0, display_id=True)\nfor number in range(600): shown.update(number)",
        "from IPython.display import clear_output\n"
        "for number in range(300): clear_output(wait=True); display(number)",
        "'the last cell'",
    ],
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, bool]:
    """The command with all of ENDS: how it ended, the run's folder, and whether a child of a
    notebook's outlived it.
    """
    folder = tmp_path_factory.mktemp("ends")
    for name, sources in ENDS.items():
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        for cell in cells:
            if cell.source.startswith("#!"):
                cell.metadata["tags"] = ["raises-exception"]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
    command = [sys.executable, "-m", "perfkit", "report", *(f"{name}.ipynb" for name in ENDS)]
    ended = subprocess.run(
        [*command, "--cell-timeout", "240"],
        cwd=folder,
        env=plain_environment(folder),
        capture_output=True,
        text=True,
    )
    run = folder / os.path.dirname(ended.stdout.strip())
    orphan = psutil.Process(int((run / "results" / "orphan").read_text()))
    lives = orphan.is_running()
    orphan.kill()
    return ended, run, lives


def test_standard_output_is_the_path_whatever_children_print(ends: Any) -> None:
    ended, folder, orphan_lives = ends
    assert ended.stdout.count("\n") == 1, ended.stderr
    assert (folder / "index.html").is_file()
    text = (folder / "goes_on.ipynb").read_text()
    assert all(word in text for word in ("child", "descriptor", "underneath"))
    assert "\nchild" not in ended.stderr
    assert orphan_lives  # the command did not wait for it


def test_how_a_cell_ends_is_how_its_notebook_ends(ends: Any) -> None:
    ended, folder, _ = ends
    run = json.loads((folder / "run.json").read_text())
    notebooks = {found["name"]: found for found in run["notebooks"]}
    statuses = {name: (found["status"], found["cells_run"]) for name, found in notebooks.items()}
    assert statuses == {
        "leaves": ("failed", 0),
        "quits": ("failed", 0),
        "unexpected": ("failed", 1),
        "goes_on": ("done", 12),
    }
    assert ended.returncode == run["exit_code"] == 1
    assert "left the notebook by SystemExit: 0" in notebooks["leaves"]["failure"]["message"]
    assert "left the notebook by exit()" in notebooks["quits"]["failure"]["message"]
    assert notebooks["unexpected"]["failure"]["name"] == "KeyError"
    assert notebooks["unexpected"]["failure"]["cell_index"] == 1
    assert len(ended.stderr) < 5_000
    assert not (folder / "results" / "went-on").exists()


def test_a_flood_is_cut_with_a_note(ends: Any) -> None:
    notebook = nbformat.read(ends[1] / "goes_on.ipynb", as_version=4)
    outputs_of = [cell.outputs for cell in notebook.cells[5:]]
    child, printed, displayed, value, updated, cleared, last = outputs_of
    for outputs in (child, printed):
        text = "".join(output.text for output in outputs)
        assert TEXT_MAX < len(text) < TEXT_MAX + 200
        assert text.endswith("the rest is left out …\n")
        assert len(outputs) < 200
    assert len(displayed) == DISPLAYS_MAX + 1
    assert "the rest is left out" in displayed[-1].data["text/plain"]
    assert TEXT_MAX < len(value[0].data["text/plain"]) < TEXT_MAX + 200
    assert [output.data["text/plain"] for output in (*updated, *cleared)] == ["599", "299"]
    assert last[0].data["text/plain"] == "'the last cell'"
