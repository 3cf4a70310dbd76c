"""What a task costs in messages, bytes and allocations, and the gate that keeps it from growing.

A timing needs rounds and intervals and still moves with the machine; a count that has grown by one
has grown. So these are held against a committed baseline as they are: what costs more is a
regression, and what costs less is a gain that a lower baseline keeps.

Messages and bytes are the same on every machine. Allocations follow from the interpreter as well,
so each minor version has a baseline of its own, and they are counted in a fresh process, which
nobody traces:

    python -m perfkit.bench.counts.per_task            print the counts of this code as JSON
    python -m perfkit.bench.counts.per_task --write    make them the baseline
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

import msgspec

from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.counts.lockstep import (
    LOADS,
    Letters,
    Load,
    Lockstep,
    SteppedClient,
    SteppedCoordinator,
)
from perfkit.bench.workloads.load import TRAFFIC, ExperimentError, echo_work
from perfkit.evidence.results import ResultError, write
from perfkit.optimized.specs import OPTIMIZED

#: Raised when a field changes its meaning or a required one is added.
SCHEMA = 1
#: Where the baseline is, seen from the root of a checkout.
BASELINE_PATH = Path("reports/baselines/counts.json")
COUNTED_SPECS = (BASELINE, OPTIMIZED)
PYTHON = "{}.{}".format(*sys.version_info[:2])
#: What allocates along with our own code, and what counts it.
PACKAGES = ("memray", "msgpack", "msgspec")
#: Everybody meets, and leases grow to their size, which they do round by round.
WARM_ROUNDS = 6
FRESH_TIMEOUT_S = 100.0
#: What would make a fresh process trace its code, or change its allocator.
TRACING = ("COV", "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONTRACEMALLOC")

TRAFFIC_PER_TASK = tuple(f"{name}_per_task" for name in TRAFFIC)
ALLOCATIONS = ("allocations_per_task", "blocks_per_queued_task")
#: Blocks are read off the whole process, which now and then has one more or less that is not the
#: tasks' (seen in 5 processes of 40, always a single block). Everything else is exact.
TOLERANCES = {"blocks_per_queued_task": 0.02}

#: figures by the spec, the load and the counter's name
Table: TypeAlias = dict[str, dict[str, dict[str, float]]]


class Counts(msgspec.Struct, frozen=True):
    """What one task costs the coordinator; None where that was not counted.

    Messages and bytes are as its status counts them. `allocations_per_task` is how often a task on
    its way through makes it ask Python's allocator for memory, `blocks_per_queued_task` how many
    blocks it holds for a task that waits.
    """

    messages_in_per_task: float
    messages_out_per_task: float
    bytes_in_per_task: float
    bytes_out_per_task: float
    allocations_per_task: float | None = None
    blocks_per_queued_task: float | None = None


Counted: TypeAlias = dict[str, dict[str, Counts]]


class OfPython(msgspec.Struct, frozen=True):
    """Figures of one minor version of Python, and the versions of all that had a part in them."""

    versions: dict[str, str]
    counts: Table


class AllCounts(msgspec.Struct, frozen=True):
    """Everything the gate compares, as the baseline's file has it: what holds everywhere, and what
    holds for a minor version of Python.
    """

    schema: int
    everywhere: Table
    by_python: dict[str, OfPython]


def count_per_task(spec: ClusterSpec, load: str = "stream", *, allocations: bool = False) -> Counts:
    """The counts of a spec under one of LOADS, from work whose every result was checked.

    Allocations are those of this process, whatever traces it included; those of `count_afresh` can
    be compared. Raises ExperimentError when the work comes to no end, or memray is not there to
    count them.
    """
    if load not in LOADS:
        raise ExperimentError(f"there is no load {load!r}; there are {', '.join(LOADS)}")
    shape = LOADS[load]
    work = echo_work(shape.tasks, seed=0)
    coordinator = SteppedCoordinator(spec)
    lockstep = Lockstep(spec, coordinator)
    for _ in range(WARM_ROUNDS):
        lockstep.drive(work.part(0, shape.tasks // 4), shape)
    met, before = len(lockstep.inbox), coordinator.traffic()
    lockstep.drive(work, shape)
    after = coordinator.traffic()
    traffic = {f"{name}_per_task": (after[name] - before[name]) / shape.tasks for name in after}
    if not allocations:
        return Counts(**traffic)
    return Counts(
        **traffic,
        allocations_per_task=_allocations(spec, lockstep.inbox, met) / shape.tasks,
        blocks_per_queued_task=_blocks_queued(spec, shape) / shape.tasks,
    )


def count_specs(
    specs: Sequence[ClusterSpec] = COUNTED_SPECS, *, allocations: bool = False
) -> Counted:
    """The counts of each spec under each load, as `count_per_task` has them."""
    return {
        spec.name: {load: count_per_task(spec, load, allocations=allocations) for load in LOADS}
        for spec in specs
    }


def traffic_of(counted: Counted) -> Table:
    """Messages and bytes alone: what holds on every machine."""
    return _part(counted, TRAFFIC_PER_TASK)


def count_afresh() -> AllCounts:
    """All counts of COUNTED_SPECS, from a process of its own that nothing traces.

    Raises ExperimentError with the last line that process said when it fails.
    """
    environment = {n: value for n, value in os.environ.items() if not n.startswith(TRACING)}
    done = subprocess.run(
        [sys.executable, "-m", "perfkit.bench.counts.per_task"],
        env={**environment, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=FRESH_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise ExperimentError(f"counting in a fresh process failed: {reason}")
    return msgspec.json.decode(done.stdout, type=AllCounts)


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
    """Make these counts the baseline; what it has of other versions of Python stays."""
    others = load_baseline(path).by_python if path.exists() else {}
    by_python = dict(sorted({**others, **counted.by_python}.items()))
    write(_as_json(msgspec.structs.replace(counted, by_python=by_python)), path)


def installed_versions() -> dict[str, str]:
    """The versions of Python and of PACKAGES, without those that are not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def complaints(counted: Table, wanted: Table) -> list[str]:
    """A sentence for each figure that is not its baseline's, and for each that is there only once.

    Counts are exact in both directions, but for TOLERANCES.
    """
    ours, theirs = _flat(counted), _flat(wanted)
    return [
        _complaint(f"{counter} of {spec} under the {load} load", ours.get(key), theirs.get(key))
        for key in {**theirs, **ours}
        for spec, load, counter in [key]
        if not _is_same(counter, ours.get(key), theirs.get(key))
    ]


def allocation_complaints(counted: OfPython, wanted: OfPython) -> list[str]:
    """The same for what one Python allocates; says so when other versions were at work."""
    moved = [
        f"{name} {wanted.versions.get(name)} → {counted.versions.get(name)}"
        for name in {**wanted.versions, **counted.versions}
        if wanted.versions.get(name) != counted.versions.get(name)
    ]
    note = f" (since then {', '.join(moved)})" if moved else ""
    return [complaint + note for complaint in complaints(counted.counts, wanted.counts)]


def _is_same(counter: str, ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return False
    return abs(ours - theirs) <= TOLERANCES.get(counter, 0.0)


def _complaint(name: str, ours: float | None, theirs: float | None) -> str:
    accept = f"`make counts` and commit {BASELINE_PATH}"
    if ours is None:
        return f"{name} has a baseline but is not counted any more; if that is meant, run {accept}"
    if theirs is None:
        return f"{name} is {ours:.10g} and has no baseline yet; run {accept}"
    if ours > theirs:
        return (
            f"{name} is {ours:.10g}, above its baseline of {theirs:.10g}: find what has made it "
            f"grow, or, if it is worth that, run {accept}"
        )
    return (
        f"{name} is {ours:.10g}, below its baseline of {theirs:.10g}: keep what was gained, run "
        f"{accept}"
    )


def _part(counted: Counted, counters: Sequence[str]) -> Table:
    return {
        spec: {load: {name: getattr(counts, name) for name in counters} for load, counts in row}
        for spec, row in ((spec, loads.items()) for spec, loads in counted.items())
    }


def _flat(table: Table) -> dict[tuple[str, str, str], float]:
    return {
        (spec, load, counter): figure
        for spec, loads in table.items()
        for load, figures in loads.items()
        for counter, figure in figures.items()
    }


def _as_json(counted: AllCounts) -> str:
    return msgspec.json.format(msgspec.json.encode(counted), indent=2).decode() + "\n"


def _allocations(spec: ClusterSpec, inbox: Sequence[Letters], met: int) -> int:
    """How often the coordinator asks for memory while it is sent again what it was sent, from step
    `met` on.

    Python's allocator is asked, and counts, also where it has room of its own; what C libraries
    take directly from the system is not ours and not counted.
    """
    try:
        import memray
    except ImportError as error:
        raise ExperimentError(
            f"allocations are counted by memray, which is not installed ({error}); "
            "pip install 'perfkit[profile]' brings it"
        ) from error
    kinds = memray.AllocatorType
    python = {kinds.PYMALLOC_MALLOC, kinds.PYMALLOC_CALLOC, kinds.PYMALLOC_REALLOC}
    coordinator = SteppedCoordinator(spec)
    with tempfile.TemporaryDirectory() as folder:
        for letters in inbox[:met]:
            coordinator.step(letters)
        recording = Path(folder, "counts.bin")
        with _uncollected(), memray.Tracker(recording, trace_python_allocators=True):
            for letters in inbox[met:]:
                coordinator.step(letters)
        with memray.FileReader(recording) as reader:
            records = reader.get_allocation_records()
            asked: int = sum(r.n_allocations for r in records if r.allocator in python)
    return asked


def _blocks_queued(spec: ClusterSpec, load: Load) -> int:
    """How many blocks the coordinator holds more when the load's tasks wait in its queue.

    The first round is for what a process makes once; before each reading the collector empties the
    free lists, whose blocks are nobody's.
    """
    client, work = SteppedClient(spec), echo_work(load.tasks, seed=0)
    held = 0
    for _ in range(2):
        runs = [*client.runs(work, load)]
        coordinator = SteppedCoordinator(spec)
        with _uncollected():
            before = sys.getallocatedblocks()
            coordinator.queue(runs)
            gc.collect()
            held = sys.getallocatedblocks() - before
    return held


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector, which would let go of what happens to be garbage by then."""
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the counts of this code as JSON, or make them the baseline."""
    parser = argparse.ArgumentParser(description="Count what a task costs, in what is exact.")
    parser.add_argument("--write", action="store_true", help=f"write them to {BASELINE_PATH}")
    try:
        if parser.parse_args(arguments).write:
            write_baseline(count_afresh(), BASELINE_PATH)
        else:
            counted = count_specs(allocations=True)
            here = OfPython(installed_versions(), _part(counted, ALLOCATIONS))
            all_counts = AllCounts(SCHEMA, traffic_of(counted), {PYTHON: here})
            sys.stdout.write(_as_json(all_counts))
    except (ClusterError, ResultError) as error:
        raise SystemExit(f"perfkit.bench.counts.per_task: {error}") from error


if __name__ == "__main__":
    main()
