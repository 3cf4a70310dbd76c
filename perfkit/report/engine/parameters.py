"""Checks a notebook's parameters before a kernel starts.

papermill only warns about a parameter that does not exist, and it checks no types: a typing error
would show at the end of a run. Here the cell tagged `parameters` is the declaration, in plain
Python that JupyterLab runs unchanged:

    profile: str = "quick"  # quick|full: how long to measure
    workers: int = 2  # 1..64: worker processes
    seed: int = 1  # of everything random

A comment opens with a range (`low..high`, either end may be missing) or with choices (`a|b`), then
a colon and help. The type is the annotation, else that of the default. The cell is parsed, not run.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.vocabulary.errors import did_you_mean
from perfkit.evidence.text import quantity
from perfkit.report.engine.outcome import ReportError

#: Names that the report engine sets, with the complaint to a caller that passes one.
RESERVED: Mapping[str, str] = {
    "out_dir": "is the run's own results folder and cannot be set",
    "profile": "is the profile of the whole run: pass it as the profile, not as a parameter",
}

_NUMBER = r"[+-]?\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})?\s*\.\.\s*({_NUMBER})?\s*(?::\s*(.*)|)$", re.DOTALL)
_CHOICES = re.compile(r"\s*([\w.+-]+(?:\s*\|\s*[\w.+-]+)+)\s*(?::\s*(.*)|)$", re.DOTALL)
_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}
_BOOLEANS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)


class ParameterError(ReportError):
    """All wrong parameters at once; `problems` holds a sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lead = "" if count == 1 else f"{count} parameters are wrong: "
        super().__init__(lead + "; ".join(self.problems))

    def _render_traceback_(self, *_: object) -> list[str]:
        """What IPython shows below a cell: the message says all."""
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declared parameter: its type's name, its default and its permitted values.

    `type_name` is int, float, str, bool, list or dict, or None for any type. `low` and `high` are
    inclusive; None is no bound.
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
        """The complaint about `value`, as the end of a sentence; None for a valid one."""
        if not self._fits(value):
            article = "an" if self.type_name == "int" else "a"
            return f"must be {article} {self.type_name or 'value'}, not {value!r}"
        if self.choices and value is not None and str(value) not in self.choices:
            hint = did_you_mean(str(value), self.choices)
            return f"is {value!r}, which is none of {', '.join(self.choices)}{hint}"
        if isinstance(value, (int, float)):
            # A NaN compares false with everything, so it is outside every range.
            above = self.low is None or value >= self.low
            below = self.high is None or value <= self.high
            if not (above and below):
                return f"is {value!r}, outside {_range_text(self.low, self.high)}"
        return None

    def convert(self, value: object) -> object:
        """`value` as the declared type, where a command line or a path left it as text.

        A value that does not convert comes back unchanged, for `problem` to name.
        """
        if isinstance(value, Path):
            value = str(value)
        if self.type_name == "float" and type(value) is int:
            return float(value)
        if not isinstance(value, str) or self.type_name == "str":
            return value
        if self.optional and value.lower() in {"none", "null", ""}:
            return None
        return _from_text(value, self.type_name)

    def _fits(self, value: object) -> bool:
        if value is None:
            return self.optional
        if isinstance(value, bool):
            return self.type_name in {"bool", None}
        return self.type_name is None or isinstance(value, _TYPES[self.type_name])


def resolve(
    declared: Mapping[str, Mapping[str, Parameter]],
    given: Mapping[str, object],
    engine: Mapping[str, object],
) -> dict[str, dict[str, object]]:
    """The values to inject into each notebook, by the notebook's name, checked and converted.

    `declared` is per notebook. Every notebook that declares a name gets its value: from `given`,
    which the caller passed, or from `engine`, which holds the RESERVED names.

    Raises ParameterError with every unknown name and every value of a wrong type or range.
    """
    known = sorted({name for parameters in declared.values() for name in parameters})
    problems = [
        f"parameter {name!r} {RESERVED[name]}" if name in RESERVED else _unknown(name, known)
        for name in given
        if name in RESERVED or name not in known
    ]
    wanted = {name: given[name] for name in given if name not in RESERVED} | dict(engine)
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


def parse_parameters(source: str, notebook: str) -> dict[str, Parameter]:
    """The parameters that a cell of `notebook` declares, by name, in order; "" declares none.

    Raises ParameterError when the cell is not plain Python or a default breaks its own rule.
    """
    try:
        parsed = parse_assignments(source)
    except SyntaxError as error:
        raise ParameterError(
            [f"the parameter cell of {notebook} is not plain Python (line {error.lineno or 1})"]
        ) from error
    found = {parameter.name: parameter for parameter in parsed if parameter is not None}
    problems = [
        f"the default of {parameter.name!r} in {notebook} {wrong}"
        for parameter in found.values()
        if (wrong := parameter.problem(parameter.convert(parameter.default)))
    ]
    if problems:
        raise ParameterError(problems)
    return found


def parse_assignments(source: str) -> list[Parameter | None]:
    """For each statement the parameter that it declares, or None; raises SyntaxError."""
    body = ast.parse(source).body
    comments = _comments(source)
    return [_parse_assignment(node, comments.get(node.end_lineno or 0, "")) for node in body]


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
    parts = {part.strip() for part in inner.split("|")} - {""}
    kinds = {part.split("[")[0] for part in parts - {"None"}} or {type(default).__name__}
    known = len(kinds) == 1 and kinds <= _TYPES.keys()
    return kinds.pop() if known else None, default is None or "None" in parts


def _rule(comment: str) -> tuple[float | None, float | None, tuple[str, ...], str]:
    """(low, high, choices, help) from a parameter's comment without its leading `#`."""
    if (match := _RANGE.match(comment)) and (match[1] or match[2]):
        low, high = (float(end) if end else None for end in match.group(1, 2))
        return low, high, (), (match[3] or "").strip()
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
        return _BOOLEANS.get(plain.lower(), text)
    try:
        value: object = float(plain) if type_name == "float" else ast.literal_eval(plain)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if type_name is None or type(value) is _TYPES[type_name] else text


def _range_text(low: float | None, high: float | None) -> str:
    if high is None:
        return f"its range from {quantity(low)} upwards"
    return f"its range {'up to' if low is None else f'{quantity(low)} to'} {quantity(high)}"


def _unknown(name: str, declared: Sequence[str]) -> str:
    known = [other for other in declared if other not in RESERVED]
    if not known:
        return f"parameter {name!r} is unknown: no notebook of this run takes any"
    hint = did_you_mean(name, known) or f" (there are {', '.join(known)})"
    return f"parameter {name!r} is unknown{hint}"
