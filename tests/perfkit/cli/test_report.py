"""Reports from the command line: what is asked for, what is printed, and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from perfkit.cli.config import SettingError
from perfkit.cli.report import default_notebooks
from perfkit.report import ExitCode, Failure, NotebookRun, ReportRun, Status, rerun_command

Call = Callable[..., Result]


def notebook(folder: Path, name: str, *sources: str) -> Path:
    cells = [
        {
            "cell_type": "code", "execution_count": None, "id": f"c{number}", "outputs": [],
            "metadata": {"tags": ["parameters"]} if number == 0 else {}, "source": source,
        }
        for number, source in enumerate(sources)
    ]  # fmt: skip
    content = {
        "cells": cells, "nbformat": 4, "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}},
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What run_report is asked for; it answers with a report whose only notebook failed."""
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


def test_the_notebooks_of_the_folder_are_run_in_order(
    perfkit: Call, asked: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("02_b", "01_a", "scratch"):
        notebook(tmp_path / "notebooks", name, "x = 1")
    perfkit("report")
    assert asked == {
        "notebooks": [Path("notebooks/01_a.ipynb"), Path("notebooks/02_b.ipynb")],
        "profile": "quick",
        "parameters": {},
        "out": Path("reports"),
        "cell_timeout_s": 600.0,
        "gate": False,
    }


def test_the_index_is_the_last_line_and_the_exit_code_is_the_report_s(
    perfkit: Call, asked: dict[str, Any]
) -> None:
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
def test_the_command_that_a_report_stores_asks_for_the_same_again(
    perfkit: Call, asked: dict[str, Any], parameters: Any, out: str, options: Any
) -> None:
    program, *arguments = rerun_command(["a.ipynb", "b.ipynb"], "full", parameters, out, **options)
    perfkit(*arguments)
    assert program == "perfkit"
    assert asked == {
        "notebooks": [Path("a.ipynb"), Path("b.ipynb")],
        "profile": "full",
        "parameters": parameters,
        "out": Path(out),
        "cell_timeout_s": 600.0,
        "gate": False,
        **options,
    }


@pytest.mark.parametrize("pair", ["tasks", "=5", " =5"])
def test_what_is_no_parameter_is_told(perfkit: Call, asked: dict[str, Any], pair: str) -> None:
    ended = perfkit("report", "x.ipynb", "-p", pair)
    assert (ended.exit_code, asked) == (2, {})
    assert ended.stderr == f"perfkit: -p {pair!r} is no parameter; write it as NAME=VALUE\n"


def test_a_notebook_that_is_not_there_is_told(perfkit: Call) -> None:
    ended = perfkit("report", "none.ipynb")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("perfkit: ")
    assert "none.ipynb" in ended.stderr


def test_without_the_extra_it_is_said_what_to_install(
    perfkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_report(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'papermill'", name="papermill")

    monkeypatch.setattr("perfkit.report.run_report", run_report)
    ended = perfkit("report", "x.ipynb")
    assert ended.exit_code == 1
    assert "pip install 'perfkit[lab]'" in ended.stderr
    assert "papermill" in ended.stderr


def test_without_a_folder_of_notebooks_those_of_the_package_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site"
    (installed / "_notebooks").mkdir(parents=True)
    notebook(installed / "_notebooks", "01_a", "x = 1")
    monkeypatch.setattr("perfkit.__file__", str(installed / "__init__.py"))
    assert default_notebooks(tmp_path) == [installed / "_notebooks" / "01_a.ipynb"]
    (installed / "_notebooks" / "01_a.ipynb").unlink()
    with pytest.raises(SettingError, match=r"there is no notebook in \./notebooks"):
        default_notebooks(tmp_path)


def test_a_report_is_made(perfkit: Call, tmp_path: Path) -> None:
    path = notebook(tmp_path, "01_tiny", "seed: int = 1", "seed * 21")
    ended = perfkit("report", path, "-p", "seed=2", "--out", "here")
    assert ended.exit_code == 0, ended.output
    index = Path(ended.stdout.splitlines()[-1])
    assert (tmp_path / index).is_file()
    assert "42" in (tmp_path / index).with_name("01_tiny.html").read_text()
