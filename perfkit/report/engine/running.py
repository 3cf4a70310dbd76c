"""Checks the parameters of a notebook that runs, by whatever it is run.

`perfkit report` checks before a kernel starts. papermill, JupyterLab and nbconvert do not, and a
value that no code expects may pass for another. So each notebook calls `check_parameters` in its
first cell, which finds the declarations in what the kernel has run (IPython's list ``In``):

    the cell of annotated assignments alone, which papermill knows by its tag `parameters`
    and cells after it that papermill has injected; they open with the comment INJECTED
    (https://papermill.readthedocs.io/en/latest/usage-parameterize.html)
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from cluster.vocabulary.errors import did_you_mean
from perfkit.report.engine.parameters import Parameter, ParameterError, parse_assignments

INJECTED = "# Parameters"


def check_parameters(namespace: MutableMapping[str, object]) -> None:
    """Check what the parameters of this notebook are; call it with ``globals()``.

    Text that stands for a number, as from papermill's ``-r``, becomes that number. In a script made
    from a notebook the declarations are read from its file.

    Raises ParameterError with every value outside its declaration and every injected name that is
    not declared.
    """
    cells = namespace.get("In")
    if isinstance(cells, Sequence):
        newest = [str(cell) for cell in reversed(cells)]
        later = list(takewhile(lambda cell: not _declared(cell), newest))
        declared = _declared(newest[len(later)]) if len(later) < len(newest) else {}
    else:
        later, file = [], namespace.get("__file__")
        declared = _assigned(Path(str(file)).read_text("utf-8")) if file else {}
    problems = [
        f"parameter {name!r} is unknown{did_you_mean(name, declared)}; "
        f"this notebook takes {', '.join(declared)}"
        for cell in reversed(later)
        if cell.partition("\n")[0].rstrip() == INJECTED
        for name in _assigned(cell)
        if name not in declared
    ]
    for name, parameter in declared.items():
        if name in namespace:
            value = namespace[name] = parameter.convert(namespace[name])
            if wrong := parameter.problem(value):
                about = f" ({parameter.help})" if parameter.help else ""
                problems.append(f"parameter {name!r}{about} {wrong}")
    if problems:
        raise ParameterError(problems)


def _declared(cell: str) -> Mapping[str, Parameter]:
    """The parameters of a cell of annotated assignments alone; none in another cell."""
    with suppress(SyntaxError):
        if all(isinstance(node, ast.AnnAssign) for node in ast.parse(cell).body):
            return _assigned(cell)
    return {}


def _assigned(source: str) -> Mapping[str, Parameter]:
    """All literals that a cell assigns to a name; none in one that could not run."""
    with suppress(SyntaxError):
        return {it.name: it for it in parse_assignments(source) if it is not None}
    return {}
