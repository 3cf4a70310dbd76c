"""The gate that keeps a task's counts from growing, and its baseline.

A timing needs rounds and intervals and still moves with the machine; a count that has grown by one
has grown. So counts are compared with a committed baseline as they are: more is a regression, and
less is a gain that a lower baseline keeps. Allocations depend on the interpreter, so each minor
version of Python has its own baseline, and they are counted in a fresh process that nothing traces:

    python -m perfkit.bench.counts.gate            print the counts of this code as JSON
    python -m perfkit.bench.counts.gate --write    make them the baseline
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path

import msgspec

from cluster.vocabulary.errors import ClusterError
from perfkit.bench.counts.per_task import ALLOCATIONS, TRAFFIC_PER_TASK, CountTable, count_specs
from perfkit.bench.workloads.rounds import run_module
from perfkit.evidence.environment import installed_versions
from perfkit.evidence.results import ResultError, write

#: Raised when a field changes its meaning or a required one is added.
SCHEMA = 1
#: Where the baseline is, from the root of a checkout.
BASELINE_PATH = Path("reports/baselines/counts.json")
PYTHON = "{}.{}".format(*sys.version_info[:2])
#: Packages that allocate along with our own code, and the one that counts.
PACKAGES = ("memray", "msgpack", "msgspec")
FRESH_TIMEOUT_S = 100.0
#: Variables that make a fresh process trace its code or change its allocator.
TRACING = ("COV", "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONTRACEMALLOC")
#: Blocks are read off the whole process, which now and then has one more or less that no task owns
#: (seen in 5 processes of 40, always a single block). Everything else is exact.
TOLERANCES = {"blocks_per_queued_task": 0.02}


class PythonCounts(msgspec.Struct, frozen=True):
    """The counts of one minor version of Python, and the versions that took part in them."""

    versions: dict[str, str]
    counts: CountTable


class AllCounts(msgspec.Struct, frozen=True):
    """What the gate compares, as in the baseline's file: counts that hold everywhere, and those of
    each minor version of Python.
    """

    schema: int
    everywhere: CountTable
    by_python: dict[str, PythonCounts]


def count_afresh() -> AllCounts:
    """All counts of COUNTED_SPECS, from a fresh process that nothing traces.

    Raises ExperimentError with the last line of that process's errors if it fails.
    """
    environment = {n: value for n, value in os.environ.items() if not n.startswith(TRACING)}
    printed = run_module(
        "perfkit.bench.counts.gate",
        what="counting in a fresh process",
        timeout_s=FRESH_TIMEOUT_S,
        environment={**environment, "PYTHONHASHSEED": "0"},
    )
    return msgspec.json.decode(printed, type=AllCounts)


def load_baseline(path: Path) -> AllCounts:
    """The committed counts; ResultError says why there are none, and what to do."""
    try:
        baseline = msgspec.json.decode(path.read_bytes(), type=AllCounts)
    except FileNotFoundError:
        raise ResultError(f"There is no baseline at {path}; `make counts` writes one.") from None
    except (OSError, msgspec.DecodeError) as error:
        raise ResultError(
            f"{path} is no baseline of counts: {error}; remove it and run `make counts`."
        ) from None
    if baseline.schema != SCHEMA:
        raise ResultError(
            f"{path} has schema {baseline.schema} and this perfkit reads {SCHEMA}; remove it and "
            "run `make counts`."
        )
    return baseline


def write_baseline(counted: AllCounts, path: Path) -> None:
    """Make these counts the baseline; those of other versions of Python stay."""
    others = load_baseline(path).by_python if path.exists() else {}
    by_python = dict(sorted({**others, **counted.by_python}.items()))
    write(_as_json(msgspec.structs.replace(counted, by_python=by_python)), path)


def complaints(counted: CountTable, wanted: CountTable) -> list[str]:
    """A sentence for each figure that differs from its baseline, and for each without a partner.

    Counts are exact in both directions, but for TOLERANCES.
    """
    ours, theirs = _flat(counted), _flat(wanted)
    return [
        _complaint(f"{counter} of {spec} under the {load} load", ours.get(key), theirs.get(key))
        for key in {**theirs, **ours}
        for spec, load, counter in [key]
        if not abs(ours.get(key, inf) - theirs.get(key, inf)) <= TOLERANCES.get(counter, 0.0)
    ]


def _complaint(name: str, ours: float | None, theirs: float | None) -> str:
    accept = f"`make counts` and commit {BASELINE_PATH}"
    if ours is None:
        return f"{name} has a baseline but is no longer counted; if that is meant, run {accept}"
    if theirs is None:
        return f"{name} is {ours:.10g} and has no baseline yet; run {accept}"
    if ours > theirs:
        return (
            f"{name} is {ours:.10g}, above its baseline of {theirs:.10g}: find what has made it "
            f"grow, or, if it is worth that, run {accept}"
        )
    return (
        f"{name} is {ours:.10g}, below its baseline of {theirs:.10g}: to keep the gain, run "
        f"{accept}"
    )


def _flat(table: CountTable) -> dict[tuple[str, str, str], float]:
    return {
        (spec, load, counter): figure
        for spec, loads in table.items()
        for load, figures in loads.items()
        for counter, figure in figures.items()
    }


def _only(table: CountTable, counters: Sequence[str]) -> CountTable:
    return {
        spec: {load: {name: counts[name] for name in counters} for load, counts in loads.items()}
        for spec, loads in table.items()
    }


def _as_json(counted: AllCounts) -> str:
    return msgspec.json.format(msgspec.json.encode(counted), indent=2).decode() + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the counts of this code as JSON, or make them the baseline."""
    parser = argparse.ArgumentParser(description="Count what a task costs.")
    parser.add_argument("--write", action="store_true", help=f"write them to {BASELINE_PATH}")
    try:
        if parser.parse_args(arguments).write:
            write_baseline(count_afresh(), BASELINE_PATH)
        else:
            counted = count_specs(allocations=True)
            versions = {"python": platform.python_version(), **installed_versions(PACKAGES)}
            here = PythonCounts(versions, _only(counted, ALLOCATIONS))
            everywhere = _only(counted, TRAFFIC_PER_TASK)
            sys.stdout.write(_as_json(AllCounts(SCHEMA, everywhere, {PYTHON: here})))
    except ClusterError as error:
        raise SystemExit(f"perfkit.bench.counts.gate: {error}") from error


if __name__ == "__main__":
    main()
