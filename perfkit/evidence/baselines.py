"""The file of a machine's baseline: the results that later runs on that machine are judged by.

A baseline is a list of results, each with its raw samples, its counters and its environment. The
machine names the file, because times of different machines are not comparable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from perfkit.evidence.environment import Environment, fingerprint
from perfkit.evidence.results import Result, ResultError, write

#: Raised when a field changes its meaning or a required one is added.
SCHEMA = 1
#: Where baselines are, from the root of a checkout.
FOLDER = Path("reports/baselines")
SAVE = "`perfkit baseline save` makes one"


class NoBaseline(ResultError):
    """There is no baseline where one was expected; the message says how to make one."""


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """Results of one run on one machine: at least one, all with the same `machine_id`."""

    schema: int = SCHEMA
    results: list[Result]

    def __post_init__(self) -> None:
        machines = {result.environment.machine_id for result in self.results}
        if len(machines) != 1:
            raise ResultError(
                f"A baseline is of one machine, and these results are of {len(machines)}."
                if machines
                else "A baseline has at least one result, and this one has none."
            )

    @property
    def environment(self) -> Environment:
        """The machine and the software behind the results."""
        return self.results[0].environment

    def of(self, experiment: str) -> list[Result]:
        """The results of an experiment."""
        return [result for result in self.results if result.experiment == experiment]


def machine_name(environment: Environment) -> str:
    """A file name for the machine, which people can read: `amd-epyc-2-cores-python-3.11-<id>`."""
    cores = environment.cores_available or environment.cores_logical
    parts = [
        re.sub(r"\(.*?\)| CPU.*| @.*|\d+-Core.*", "", environment.cpu_model or "unknown"),
        "" if cores is None else f"{cores:g} cores",
        environment.python_minor.replace("CPython", "python"),
    ]
    words = re.sub(r"[^a-z0-9.]+", "-", " ".join(parts).lower()).strip("-.")
    return f"{words}-{environment.machine_id}"


def baseline_path(folder: Path = FOLDER, environment: Environment | None = None) -> Path:
    """Where the baseline of a machine is, of this one by default; it need not exist."""
    return folder / f"{machine_name(environment or fingerprint())}.json"


def save_baseline(results: Sequence[Result], folder: Path = FOLDER) -> Path:
    """Make these results their machine's baseline; returns the file.

    Raises ResultError without results, for those of several machines, and if it can't write.
    """
    baseline = Baseline(results=[*results])
    path = baseline_path(folder, baseline.environment)
    # A result a line, for the diff.
    lines = ",\n".join(f"  {msgspec.json.encode(result).decode()}" for result in results)
    write(f'{{"schema": {SCHEMA}, "results": [\n{lines}\n]}}\n', path)
    return path


def load_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises NoBaseline if there is no such file, and ResultError, which names the file, for one that
    is broken, no baseline or of a newer perfkit.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise NoBaseline(f"There is no baseline at {path}; {SAVE}.") from None
    except OSError as error:
        raise ResultError(f"Cannot read the baseline at {path}: {error.strerror}.") from None
    try:
        schema = msgspec.json.decode(text, type=_Header).schema
        if schema > SCHEMA:
            raise ResultError(
                f"{path} was made by a newer perfkit: it has schema {schema} and this one reads "
                f"up to {SCHEMA}; update perfkit, or save a baseline with this one."
            )
        return msgspec.json.decode(text, type=Baseline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultError(f"{path} is no baseline of a machine: {error}; {SAVE}.") from None


class _Header(msgspec.Struct):
    schema: int
