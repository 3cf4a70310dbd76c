"""The JSON file of one result: its figure, its raw samples and the machine it was taken on.

Reports, comparisons and the regression gate read these files, perhaps years later and from another
version. So the schema has a number, unknown is null, and a bad file is refused with a sentence that
says what is wrong. `value`, `low` and `high` are what the experiment derived from the samples at
the time.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError
from perfkit.evidence.environment import Environment, fingerprint, machine_differences
from perfkit.evidence.files import write_whole
from perfkit.evidence.samples import Interval
from perfkit.evidence.showing import Sheet, Showable, facts
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import UNKNOWN, measured

if TYPE_CHECKING:
    import pandas as pd

#: Raised when a field changes its meaning or a required one is added.
SCHEMA = 1


class ResultError(ClusterError, ValueError):
    """A result that can't be made, read or written; the message is one sentence."""


class Result(Showable, msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure: `value` in `unit`, between `low` and `high`, with its raw `samples`.

    `spec` names the cluster's parts and `engine` what ran the tasks. `workers` and `tasks` are None
    for an experiment without any. `samples` are in `unit`, in the order they were taken. `counters`
    are totals or per-task figures by name, units last; `series` are columns over time of any
    length, with None for a gap. `parameters` holds the experiment's other parameters, as JSON
    values. A number that is not finite raises ResultError: unknown values are None.
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
        for name in self.__struct_fields__:
            _refuse_infinite(name, getattr(self, name))
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ResultError(f"`low` is {self.low:g} and above `high`, {self.high:g}.")

    @property
    def figure_text(self) -> str:
        """The figure with its interval, as people write it."""
        return measured(self.value, self.unit, self.low, self.high)

    def describe(self) -> str:
        """The result in one line, for a terminal."""
        return f"{self.experiment} of {self.spec} on {self.engine}: {self.figure_text}"

    def encode(self) -> str:
        """JSON with one top-level field per line, so that a diff of two results can be read."""
        return encode_fields(msgspec.structs.asdict(self))

    def to_frame(self) -> pd.DataFrame:
        """A row for each raw sample, in the order they were taken."""
        source = {"experiment": self.experiment, "spec": self.spec, "engine": self.engine}
        return data_frame(
            [{**source, "sample": n, "value": it, "unit": self.unit}
             for n, it in enumerate(self.samples)],
            [*source, "sample", "value", "unit"],
        )  # fmt: skip

    def _sheets(self) -> Iterator[Sheet]:
        yield facts(
            {
                "experiment": self.experiment,
                "spec": self.spec,
                "engine": self.engine,
                "workers": self.workers,
                "tasks": self.tasks,
                "figure": self.figure_text,
                "samples": len(self.samples),
                "started": self.started_utc,
                **self.counters,
            }
        )


class Recording:
    """A measurement that begins when this is made; `result` ends it.

    The machine's state is read first: afterwards its load is our own.
    """

    def __init__(self) -> None:
        self.environment = fingerprint()
        self._started = datetime.now(UTC)
        self._began_s = time.perf_counter()

    def result(
        self,
        experiment: str,
        spec: ClusterSpec,
        figure: Interval,
        unit: str,
        samples: list[float],
        *,
        parameters: dict[str, Any] | None = None,
        engine: str = "zmq",
        **facts: Any,
    ) -> Result:
        """The result with this figure; `facts` are further fields of Result.

        Its parameters name the method of the interval.
        """
        return Result(
            experiment=experiment,
            spec=spec.name,
            engine=engine,
            value=figure.value,
            unit=unit,
            low=figure.low,
            high=figure.high,
            samples=samples,
            environment=self.environment,
            parameters={**(parameters or {}), "interval": figure.method},
            started_utc=self._started.isoformat(),
            duration_s=time.perf_counter() - self._began_s,
            **facts,
        )


class _Header(msgspec.Struct):
    schema: int


def encode(result: Result) -> str:
    """`Result.encode` as a function."""
    return result.encode()


def encode_fields(fields: Mapping[str, object]) -> str:
    """A JSON object with one field per line; ResultError names a field that JSON can't hold."""
    lines = []
    for name, field in fields.items():
        try:
            value = msgspec.json.encode(field).decode()
        except (TypeError, OverflowError) as error:
            raise ResultError(f"`{name}` holds what JSON can't: {error}.") from None
        lines.append(f'  "{name}": {value}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def decode(text: str | bytes, source: str = "the text") -> Result:
    """The result in a JSON text; a ResultError calls the text `source`."""
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
    """Write a result as JSON, whole or not at all; `-` is standard output.

    Makes the folder if it is missing. Raises ResultError if it can't write.
    """
    write(encode(result), path)


def write(text: str, path: str | Path) -> None:
    """Write a text as `save` writes a result."""
    if str(path) == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, text.encode())
    except OSError as error:
        raise ResultError(f"Cannot write the result to {target}: {error.strerror}.") from None


def load(path: str | Path) -> Result:
    """Read a saved result.

    Raises ResultError, which names the file and says whether it is missing, not JSON, not a result,
    or made by a newer perfkit, or which field has the wrong type.
    """
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        raise ResultError(f"There is no result at {path}.") from None
    except OSError as error:
        raise ResultError(f"Cannot read the result at {path}: {error.strerror}.") from None
    return decode(text, source=str(path))


def comparable(a: Result, b: Result) -> list[str]:
    """Why the figures of a and b are not comparable; empty if they are.

    Spec and engine may differ: they are what one compares.
    """
    fields = ("experiment", "unit", "workers", "tasks")
    pairs = [(field, getattr(a, field), getattr(b, field)) for field in fields]
    pairs += [
        (f"parameter {name}", a.parameters.get(name), b.parameters.get(name))
        for name in sorted(a.parameters.keys() | b.parameters.keys())
    ]
    found = [
        f"{name}: {UNKNOWN if ours is None else ours} against "
        f"{UNKNOWN if theirs is None else theirs}"
        for name, ours, theirs in pairs
        if ours != theirs
    ]
    return found + machine_differences(a.environment, b.environment)


def _refuse_infinite(name: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ResultError(f"`{name}` is {value}: a result holds finite numbers, or None.")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_infinite(f"{name}.{key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _refuse_infinite(f"{name}[{i}]", item)
