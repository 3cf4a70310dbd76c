"""Reports from the command line: arguments, output and exit codes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from perfkit.report import ExitCode, NotebookRun, ReportRun, Status
from perfkit.report.engine.outcome import Failure
from perfkit.report.engine.plan import rerun_command

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
    (folder / "03_c.ipynb").write_text('{"metadata": {"perfkit": {"report": "on request"}}}')
    perfkit("report")
    assert asked["notebooks"] == [Path("notebooks/01_a.ipynb"), Path("notebooks/02_b.ipynb")]
