"""A notebook file as it is read once: title, parameters, cells; and files that are no notebooks."""

import json
from pathlib import Path
from typing import Any

import pytest

from perfkit.report import ReportError
from perfkit.report.engine.notebook import read_notebook


def write(path: Path, *cells: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "cells": cells}))
    return path


def cell(kind: str, source: str | list[str], *tags: str) -> dict[str, Any]:
    return {"cell_type": kind, "metadata": {"tags": tags}, "source": source}


def test_a_notebook_has_a_title_parameters_and_a_count_of_its_code(tmp_path: Path) -> None:
    path = write(
        tmp_path / "n.ipynb",
        cell("code", "# no heading"),
        cell("markdown", ["text\n", "## The *real* `and` [title](x.md) ##\n"]),
        cell("code", "seed = 3", "parameters"),
        cell("code", "seed = 4", "injected-parameters"),
        cell("code", " "),
    )
    found = read_notebook(path)
    assert (found.name, found.title, found.code_cells) == ("n", "The real and title", 2)
    assert {name: parameter.default for name, parameter in found.parameters.items()} == {"seed": 3}


def test_a_notebook_without_headings_or_tags_has_its_name_alone(tmp_path: Path) -> None:
    plain = {"cell_type": "code", "metadata": {"tags": None}, "source": "x = 1"}
    found = read_notebook(write(tmp_path / "plain.ipynb", plain))
    assert (found.title, found.parameters) == ("plain", {})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "can't be read as a notebook"),
        ("[]", "is not a notebook of format 4"),
        ('{"nbformat": 3, "worksheets": []}', "is not a notebook of format 4"),
    ],
)
def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(text)
    with pytest.raises(ReportError, match=complaint):
        read_notebook(path)


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        ("01_base.ipynb", r"did you mean '01_baseline\.ipynb'"),
        ("zzz", r"\(in .*: 01_baseline.ipynb\)"),
        ("nowhere/x.ipynb", r"there is no notebook .*nowhere/x.ipynb$"),
    ],
)
def test_a_missing_notebook_shows_what_there_is(tmp_path: Path, missing: str, hint: str) -> None:
    write(tmp_path / "01_baseline.ipynb")
    with pytest.raises(ReportError, match=hint):
        read_notebook(tmp_path / missing)


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ({"language_info": {"name": "julia", "version": "1.9"}}, "julia"),
        ({"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}}, "R"),
        ({"kernelspec": {"name": "julia-1.9"}}, "julia-1.9"),
        ({"kernelspec": {"name": "xcpp17"}}, "xcpp17"),
    ],
)
def test_a_notebook_of_another_language_is_refused(
    tmp_path: Path, metadata: dict[str, Any], language: str
) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "metadata": metadata, "cells": []}))
    with pytest.raises(ReportError, match=f"is a notebook of {language}; .* Python .* leave it"):
        read_notebook(path)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        None,
        {"kernelspec": {"name": "my-environment"}},
        {"kernelspec": {"name": "ir"}, "language_info": {"name": "Python"}},
        {"kernelspec": {"name": "irene", "language": "python"}},
        {"language_info": {"name": "ipython"}},
    ],
)
def test_a_notebook_of_python_or_without_a_language_is_read(tmp_path: Path, metadata: Any) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "metadata": metadata, "cells": []}))
    assert read_notebook(path).title == "x"
