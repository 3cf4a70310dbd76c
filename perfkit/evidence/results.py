"""The file a measurement ends in: one result, its raw samples and where it was taken, as JSON.

Reports, comparisons and the regression gate all read these files, perhaps years later and from
another version, so the schema has a number, unknown is null, and a file that can't be trusted is
refused with a sentence that says what is wrong with it. Raw samples are the truth here; `value`,
`low` and `high` are what the experiment derived from them at the time.
"""

import math
import os
import sys
import uuid
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perfkit.evidence.environment import Environment, machine_differences

if TYPE_CHECKING:
    import pandas as pd

#: Raised when a field changes its meaning or a required one is added.
SCHEMA = 1


class ResultError(ValueError):
    """A result that can't be made, read or written, said in one sentence."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure: `value` in `unit`, between `low` and `high`, with its raw `samples`.

    `spec` names the cluster's parts and `engine` who ran the tasks. `workers` and `tasks` are None
    where an experiment has none. `samples` are in `unit`, in the order they were taken. `counters`
    are totals or per-task figures by name, units last; `series` are columns over time, equally
    long or not, with None for a gap. `parameters` holds what else the experiment was given, as
    JSON values. A number that is not finite raises ResultError: unknown is None.
    """

    schema: int = SCHEMA
    experiment: str
    spec: str
    engine: str
    workers: int | None
    tasks: int | None
    value: float | None
    unit: str
    low: float | None
    high: float | None
    samples: list[float]
    environment: Environment
    seed: int | None = None
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    started_utc: str | None = None
    duration_s: float | None = None
    counters: dict[str, float | int | None] = msgspec.field(default_factory=dict)
    series: dict[str, list[float | None]] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "samples", "duration_s"):
            _refuse_infinite(name, getattr(self, name))
        for name in ("parameters", "counters", "series"):
            _refuse_infinite(name, getattr(self, name))
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ResultError(f"`low` is {self.low:g} and above `high`, {self.high:g}.")

    def describe(self) -> str:
        """Say the figure in one line, fit for a terminal."""
        return f"{self.experiment} of {self.spec} on {self.engine}: {_figure_text(self)}"

    def _repr_html_(self) -> str:
        rows = {
            "experiment": self.experiment,
            "spec": self.spec,
            "engine": self.engine,
            "workers": _text(self.workers),
            "tasks": _text(self.tasks),
            "figure": _figure_text(self),
            "samples": str(len(self.samples)),
            "started": _text(self.started_utc),
            **{name: _text(value) for name, value in self.counters.items()},
        }
        cells = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
            for name, text in rows.items()
        )
        return f"<table>{cells}</table>"


class _Header(msgspec.Struct):
    schema: int


def encode(result: Result) -> str:
    """JSON with one top-level field per line, so that a diff of two results can be read."""
    return encode_fields({name: getattr(result, name) for name in result.__struct_fields__})


def encode_fields(fields: Mapping[str, object]) -> str:
    """A JSON object with one of the fields per line; ResultError names one that JSON can't hold."""
    lines = []
    for name, field in fields.items():
        try:
            value = msgspec.json.encode(field).decode()
        except (TypeError, OverflowError) as error:
            raise ResultError(f"`{name}` holds what JSON can't: {error}.") from None
        lines.append(f'  "{name}": {value}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def decode(text: str | bytes, source: str = "the text") -> Result:
    """The result in a JSON text; `source` is what to call it in a ResultError."""
    try:
        schema = msgspec.json.decode(text, type=_Header).schema
    except msgspec.ValidationError as error:
        raise ResultError(f"{source} is JSON but not a perfkit result: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultError(f"{source} is not JSON: {error}.") from None
    if schema > SCHEMA:
        raise ResultError(
            f"{source} was made by a newer perfkit: it has schema {schema} and this one reads "
            f"up to {SCHEMA}; update perfkit to read it."
        )
    if schema < 1:
        raise ResultError(f"{source} has schema {schema}, which never was: it begins with 1.")
    try:
        return msgspec.json.decode(text, type=Result)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ResultError(f"{source} is not a valid result: {error}.") from None


def save(result: Result, path: str | Path) -> None:
    """Write a result as JSON, whole or not at all; `-` writes it to standard output.

    The folder is made if there is none. Raises ResultError when it can't be written.
    """
    write(encode(result), path)


def write(text: str, path: str | Path) -> None:
    """Write the JSON of results where `save` would, in the same way."""
    if str(path) == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")  # a pipe or a device must not be replaced
        else:
            _write_whole(target, text)
    except OSError as error:
        raise ResultError(f"Cannot write the result to {target}: {error.strerror}.") from None


def _write_whole(target: Path, text: str) -> None:
    # Beside the target: a rename is atomic within one file system only.
    draft = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def load(path: str | Path) -> Result:
    """Read a saved result.

    Raises ResultError that names the file and says whether it is missing, not JSON, not a result,
    made by a newer perfkit, or which field has the wrong type.
    """
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        raise ResultError(f"There is no result at {path}.") from None
    except OSError as error:
        raise ResultError(f"Cannot read the result at {path}: {error.strerror}.") from None
    return decode(text, source=str(path))


def comparable(a: Result, b: Result) -> list[str]:
    """Why the figures of a and b must not be set side by side; empty if they may be.

    Spec and engine may differ: that is what one compares.
    """
    fields = {"experiment": "experiment", "unit": "unit", "workers": "workers", "tasks": "tasks"}
    found = [
        f"{words}: {_text(getattr(a, field))} against {_text(getattr(b, field))}"
        for field, words in fields.items()
        if getattr(a, field) != getattr(b, field)
    ]
    for name in sorted(a.parameters.keys() | b.parameters.keys()):
        ours, theirs = a.parameters.get(name), b.parameters.get(name)
        if ours != theirs:
            found.append(f"parameter {name}: {_text(ours)} against {_text(theirs)}")
    return found + machine_differences(a.environment, b.environment)


def to_frame(results: Iterable[Result]) -> "pd.DataFrame":
    """One row per result: what ran, its figure, the number of samples, machine and counters.

    Parameters and counters become columns named `parameters.<name>` and `counters.<name>`; what a
    result lacks is missing there, not 0. Raises ResultError without pandas.
    """
    try:
        import pandas as pd
    except ImportError:
        raise ResultError("A table of results needs pandas: pip install 'perfkit[lab]'.") from None
    columns = ["experiment", "spec", "engine", "workers", "tasks", "value", "low", "high", "unit"]
    columns += ["samples", "seed", "started_utc", "duration_s", "machine_id", "git_commit"]
    rows = []
    for result in results:
        row = {name: getattr(result, name, None) for name in columns}
        row["samples"] = len(result.samples)
        row["machine_id"] = result.environment.machine_id
        row["git_commit"] = result.environment.git_commit
        for group in ("parameters", "counters"):
            row |= {f"{group}.{name}": value for name, value in getattr(result, group).items()}
        rows.append(row)
    extra = dict.fromkeys(name for row in rows for name in row if name not in columns)
    return pd.DataFrame(rows, columns=[*columns, *extra])


def _refuse_infinite(name: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ResultError(f"`{name}` is {value}: a result holds finite numbers, or None.")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_infinite(f"{name}.{key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _refuse_infinite(f"{name}[{i}]", item)


def _figure_text(result: Result) -> str:
    if result.value is None:
        return f"unknown ({result.unit})"
    text = f"{result.value:,.6g} {result.unit}"
    if result.low is None or result.high is None:
        return f"{text} (no interval)"
    return f"{text} ({result.low:,.6g} to {result.high:,.6g})"


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)
