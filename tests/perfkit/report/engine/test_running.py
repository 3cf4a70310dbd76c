"""A notebook checks its own parameters, by whatever it is run."""

from typing import Any

import pytest

from perfkit.report import check_parameters
from perfkit.report.engine.parameters import ParameterError

DECLARED = """\
profile: str = "quick"  # quick|full: how long to measure
tasks: int = 40  # 20..1_000: tasks of a run
share: float = 0.5  # 0..1
"""
IMPORTS = "from perfkit.report import check_parameters\n\ncheck_parameters(globals())"


def kernel(*cells: str) -> dict[str, Any]:
    """The names of a kernel that has run these cells and now runs the imports."""
    namespace: dict[str, Any] = {"In": ["", *cells, IMPORTS]}
    for cell in cells:
        exec(cell, namespace)
    return namespace


def test_what_is_declared_and_injected_passes_and_text_becomes_a_number() -> None:
    namespace = kernel(DECLARED, '# Parameters\nprofile = "full"\ntasks = "1_000"\nshare = 1\n')
    check_parameters(namespace)
    assert (namespace["profile"], namespace["tasks"]) == ("full", 1_000)
    assert isinstance(namespace["share"], float)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            [DECLARED, '# Parameters\nprofile = "fulll"'],
            r"'profile' \(how long to measure\) is 'fulll', which is none of quick, full; did you "
            r"mean 'full'\?",
        ),
        ([DECLARED, "# Parameters\ntasks = 7"], r"'tasks' \(tasks of a run\) is 7, outside"),
        (
            [DECLARED, '# Parameters\nproflie = "full"'],
            r"'proflie' is unknown; did you mean 'profile'\?; this notebook takes profile, tasks",
        ),
        ([DECLARED.replace("40", "4.5")], "'tasks' .* must be an int, not 4.5"),
        ([DECLARED, "x = 1", DECLARED.replace('"quick"', '"fulll"')], "is 'fulll'"),
        ([DECLARED, "# Parameters\ntasks = 7\nshare = 2"], "2 parameters are wrong"),
    ],
)
def test_what_is_not_declared_is_refused(cells: list[str], said: str) -> None:
    with pytest.raises(ParameterError, match=said) as raised:
        check_parameters(kernel(*cells))
    assert raised.value._render_traceback_() == [f"ParameterError: {raised.value}"]


@pytest.mark.parametrize(
    "cells",
    [[], ["x = 1"], ["%%bash\n1 +"], [DECLARED, "proflie = 2"], [DECLARED, "# Parameters\n(1"]],
)
def test_a_notebook_without_parameters_or_with_cells_of_its_own_passes(cells: list[str]) -> None:
    check_parameters({"In": ["", *cells, IMPORTS], "profile": "quick"})


def test_a_script_made_from_a_notebook_is_checked_by_its_file(tmp_path: Any) -> None:
    script = tmp_path / "notebook.py"
    script.write_text(DECLARED.replace("40", "4") + IMPORTS)
    with pytest.raises(ParameterError, match=r"'tasks' .* is 4, outside"):
        check_parameters({"__file__": str(script), "profile": "quick", "tasks": 4})
