"""Reads what a notebook can be told, and refuses what it can't, before a kernel starts.

papermill only warns about a parameter that does not exist and checks no type, so that a typing
error costs a whole run and shows at its end. Here the cell tagged `parameters` is the declaration,
in plain Python that JupyterLab runs as it stands:

    profile: str = "quick"  # quick|full: how long to measure
    workers: int = 2  # 1..64: worker processes
    seed: int = 1  # of everything random

A comment opens with a range (`low..high`, either end may be left out) or with choices (`a|b`),
then a colon and help. The type is the annotation, else that of the default. The cell is parsed,
never run.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.vocabulary.errors import did_you_mean
from perfkit.report.engine.outcome import ReportError

#: Set by the report engine; a caller may not pass them as parameters.
RESERVED: Mapping[str, str] = {
    "out_dir": "is the run's own results folder and cannot be set",
    "profile": "is the profile of the whole run: pass it as the profile, not as a parameter",
}

_NUMBER = r"[+-]?\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})?\s*\.\.\s*({_NUMBER})?\s*(?::\s*(.*)|)$", re.DOTALL)
_CHOICES = re.compile(
    r"\s*([\w.+-]+(?:\s*\|\s*[\w.+-]+)+)\s*(?::\s*(.*)|)$",
    re.DOTALL,
)
_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


class ParameterError(ReportError):
    """Every parameter that is wrong, so that all can be put right at once.

    `problems` holds one sentence for each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(
            self.problems[0]
            if count == 1
            else f"{count} parameters are wrong: " + "; ".join(self.problems)
        )


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declared parameter: its type's name, its default, and what it may be.

    `type_name` is one of int, float, str, bool, list, dict, or None where anything goes.
    `low` and `high` are inclusive; None is no bound.
    """

    name: str
    type_name: str | None
    default: object
    optional: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""

    def problem(self, value: object) -> str | None:
        """What is wrong with `value` (of Python type), as a sentence's end; None if fine."""
        if value is None:
            return None if self.optional else f"must be {self._expected()}, not None"
        if not self._fits(value):
            return f"must be {self._expected()}, not {value!r}"
        if self.choices and str(value) not in self.choices:
            return f"is {value!r}, which is none of {', '.join(self.choices)}" + did_you_mean(
                str(value), self.choices
            )
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # Written so that a NaN, which compares false with everything, is outside as well.
            above = self.low is None or value >= self.low
            below = self.high is None or value <= self.high
            if not (above and below):
                return f"is {value!r}, outside {_bounds(self.low, self.high)}"
        return None

    def convert(self, value: object) -> object:
        """`value` as the declared type, where a command line or a path left it as text.

        A value that does not convert comes back as it is, for `problem` to name.
        """
        if isinstance(value, Path):
            value = str(value)
        if self.type_name == "float" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, str) or self.type_name == "str":
            return value
        if self.optional and value.lower() in {"none", "null", ""}:
            return None
        return _from_text(value, self.type_name)

    def _fits(self, value: object) -> bool:
        if self.type_name is None:
            return True
        if isinstance(value, bool):
            return self.type_name == "bool"
        return isinstance(value, _TYPES[self.type_name])

    def _expected(self) -> str:
        article = "an" if self.type_name == "int" else "a"
        return f"{article} {self.type_name}" if self.type_name else "a value"


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters that `notebook` declares, by name, in their order.

    A notebook without a cell tagged `parameters` declares none. Raises ReportError when the file
    is missing or no notebook, ParameterError when its parameter cell can't be read or a default
    breaks its own rule.
    """
    for cell in load_cells(notebook):
        if cell.get("cell_type") == "code" and "parameters" in _tags(cell):
            return _parse_cell(_text(cell.get("source", "")), notebook.name)
    return {}


def load_cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file, as JSON has them.

    Raises ReportError when the file is missing, no JSON or not a notebook of format 4.
    """
    try:
        content = json.loads(notebook.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"there is no notebook {notebook}{_nearby(notebook)}") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{notebook} can't be read as a notebook: {error}") from error
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or content.get("nbformat") != 4:
        raise ReportError(f"{notebook} is not a notebook of format 4; save it in JupyterLab first")
    return cells


def resolve(
    declared: Mapping[str, Mapping[str, Parameter]],
    given: Mapping[str, object],
    engine: Mapping[str, object],
) -> dict[str, dict[str, object]]:
    """What to inject into each notebook, by the notebook's name, checked and converted.

    `declared` is per notebook; `given` comes from the caller and reaches every notebook that
    declares the name; `engine` holds the values of RESERVED names, injected where declared.

    Raises ParameterError with every unknown name and every value of a wrong type or range.
    """
    problems: list[str] = []
    everything = sorted({name for parameters in declared.values() for name in parameters})
    for name in given:
        if name in RESERVED:
            problems.append(f"parameter {name!r} {RESERVED[name]}")
        elif name not in everything:
            problems.append(_unknown(name, [n for n in everything if n not in RESERVED]))
    wanted = {**{k: v for k, v in given.items() if k not in RESERVED}, **engine}
    chosen: dict[str, dict[str, object]] = {}
    for notebook, parameters in declared.items():
        chosen[notebook] = {}
        for name in (name for name in wanted if name in parameters):
            value = parameters[name].convert(wanted[name])
            wrong = parameters[name].problem(value)
            if wrong is not None:
                problems.append(f"parameter {name!r} of {notebook} {wrong}")
            chosen[notebook][name] = value
    if problems:
        raise ParameterError(problems)
    return chosen


def _parse_cell(source: str, notebook: str) -> dict[str, Parameter]:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ParameterError(
            [f"the parameter cell of {notebook} is not plain Python (line {error.lineno or 1})"]
        ) from error
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    problems: list[str] = []
    for node in tree.body:
        parsed = _parse_assignment(node, comments.get(node.end_lineno or 0, ""))
        if parsed is None:
            continue
        found[parsed.name] = parsed
        wrong = parsed.problem(parsed.convert(parsed.default))
        if wrong is not None:
            problems.append(f"the default of {parsed.name!r} in {notebook} {wrong}")
    if problems:
        raise ParameterError(problems)
    return found


def _parse_assignment(node: ast.stmt, comment: str) -> Parameter | None:
    """A Parameter from `name = literal` or `name: type = literal`; None for anything else."""
    target: ast.expr
    if isinstance(node, ast.AnnAssign):
        target, annotation = node.target, ast.unparse(node.annotation)
    elif isinstance(node, ast.Assign) and len(node.targets) == 1:
        target, annotation = node.targets[0], ""
    else:
        return None
    if not isinstance(target, ast.Name) or node.value is None:
        return None
    try:
        default = ast.literal_eval(node.value)
    except ValueError:
        return None
    type_name, optional = _type_of(annotation, default)
    low, high, choices, text = _rule(comment)
    return Parameter(target.id, type_name, default, optional, low, high, choices, text)


def _type_of(annotation: str, default: object) -> tuple[str | None, bool]:
    """(type name or None for any, whether None is allowed) from an annotation, else a default."""
    inner = annotation.strip("\"' ")
    if match := re.fullmatch(r"(?:typing\.)?Optional\[(.*)\]", inner):
        inner = f"{match[1]} | None"
    parts = [part.strip() for part in inner.split("|") if part.strip()]
    named = [part for part in parts if part != "None"]
    optional = default is None or "None" in parts
    if not named:
        kind = type(default).__name__
        return (kind if kind in _TYPES else None), optional
    kind = named[0].split("[")[0]
    return (kind if len(named) == 1 and kind in _TYPES else None), optional


def _rule(comment: str) -> tuple[float | None, float | None, tuple[str, ...], str]:
    """(low, high, choices, help) from a parameter's comment without its leading `#`."""
    if (match := _RANGE.match(comment)) and (match[1] or match[2]):
        return (
            _number(match[1]) if match[1] else None,
            _number(match[2]) if match[2] else None,
            (),
            (match[3] or "").strip(),
        )
    if match := _CHOICES.match(comment):
        choices = tuple(choice.strip() for choice in match[1].split("|"))
        return None, None, choices, (match[2] or "").strip()
    return None, None, (), comment.strip()


def _comments(source: str) -> dict[int, str]:
    """The text after `#` by line number, as Python's own tokenizer sees it."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("#")
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _from_text(text: str, type_name: str | None) -> object:
    plain = text.strip()
    if type_name == "bool":
        lowered = plain.lower()
        return True if lowered in _TRUE else False if lowered in _FALSE else text
    try:
        value: object = float(plain) if type_name == "float" else ast.literal_eval(plain)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if type_name is None or type(value) is _TYPES[type_name] else text


def _number(text: str) -> float:
    value = float(text.replace("_", ""))
    return int(value) if value.is_integer() and "e" not in text.lower() else value


def _bounds(low: float | None, high: float | None) -> str:
    if high is None:
        return f"its range from {low:_} upwards"
    return f"its range up to {high:_}" if low is None else f"its range {low:_} to {high:_}"


def _unknown(name: str, known: Sequence[str]) -> str:
    if not known:
        return f"parameter {name!r} is unknown: no notebook of this run takes any"
    hint = did_you_mean(name, known) or f" (there are {', '.join(known)})"
    return f"parameter {name!r} is unknown{hint}"


def _nearby(notebook: Path) -> str:
    folder = notebook.parent
    names = sorted(path.name for path in folder.glob("*.ipynb")) if folder.is_dir() else []
    hint = did_you_mean(notebook.name, names)
    return hint or (f" (in {folder}: {', '.join(names)})" if names else "")


def _tags(cell: Mapping[str, Any]) -> Sequence[str]:
    tags = cell.get("metadata", {}).get("tags", [])
    return tags if isinstance(tags, list) else []


def _text(source: object) -> str:
    return "".join(source) if isinstance(source, list) else str(source)
