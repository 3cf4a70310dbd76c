"""What a task costs the coordinator in messages, bytes and allocations.

Messages and bytes are exact and the same on every machine. Allocations are exact too, but depend on
the interpreter. A count of one task is a mapping from these names to figures:

* `messages_in_per_task`, `messages_out_per_task`, `bytes_in_per_task`, `bytes_out_per_task`, as the
  coordinator's status counts them;
* `allocations_per_task`: requests to Python's allocator while a task passes through;
* `blocks_per_queued_task`: memory blocks held for a waiting task.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from cluster.scratch import ScratchFolder
from cluster.spec import BASELINE, ClusterSpec, load_codec
from perfkit.bench.counts.lockstep import (
    LOADS,
    Letters,
    Load,
    Lockstep,
    SteppedClient,
    SteppedCoordinator,
)
from perfkit.bench.workloads.load import TRAFFIC, ExperimentError, echo_work
from perfkit.optimized.specs import OPTIMIZED

COUNTED_SPECS = (BASELINE, OPTIMIZED)
#: Rounds until all peers have met and leases, which grow round by round, have their size.
WARM_ROUNDS = 6

TRAFFIC_PER_TASK = tuple(f"{name}_per_task" for name in TRAFFIC)
ALLOCATIONS = ("allocations_per_task", "blocks_per_queued_task")

#: Figures by counter; then by spec, load and counter.
Counts: TypeAlias = dict[str, float]
CountTable: TypeAlias = dict[str, dict[str, Counts]]


def count_per_task(spec: ClusterSpec, load: str = "stream", *, allocations: bool = False) -> Counts:
    """The counts of a spec under one of LOADS; every result was checked.

    Allocations are those of this process, with everything that traces it; only those of
    `gate.count_afresh` are comparable. Raises ExperimentError if the work does not end, or if
    memray is missing and allocations are wanted.
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
    counted = {f"{name}_per_task": after[name] - before[name] for name in after}
    if allocations:
        counted["allocations_per_task"] = _allocations(spec, lockstep.inbox, met)
        counted["blocks_per_queued_task"] = _blocks_queued(spec, shape)
    return {name: count / shape.tasks for name, count in counted.items()}


def count_specs(
    specs: Sequence[ClusterSpec] = COUNTED_SPECS, *, allocations: bool = False
) -> CountTable:
    """The counts of each spec under each load, as `count_per_task` has them."""
    return {
        spec.name: {load: count_per_task(spec, load, allocations=allocations) for load in LOADS}
        for spec in specs
    }


def _allocations(spec: ClusterSpec, inbox: Sequence[Letters], met: int) -> int:
    """The coordinator's requests for memory while it receives the same messages again, from step
    `met` on.

    Python's allocator counts a request even if it has free memory. Memory that C libraries take
    directly from the system is not counted.
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
    with ScratchFolder("counts-") as folder:
        for letters in inbox[:met]:
            coordinator.step(letters)
        recording = Path(folder, "counts.bin")
        with uncollected(), memray.Tracker(recording, trace_python_allocators=True):
            for letters in inbox[met:]:
                coordinator.step(letters)
        with memray.FileReader(recording) as reader:
            records = reader.get_allocation_records()
            asked: int = sum(r.n_allocations for r in records if r.allocator in python)
    return asked


def _blocks_queued(spec: ClusterSpec, load: Load) -> int:
    """Blocks that the coordinator holds in addition while the load's tasks wait in its queue.

    The first round absorbs what a process allocates once. The collector empties the free lists
    before each reading.
    """
    client, work = SteppedClient(load_codec(spec)), echo_work(load.tasks, seed=0)
    held = 0
    for _ in range(2):
        runs = [*client.runs(work, min(load.run_tasks, spec.burst))]
        coordinator = SteppedCoordinator(spec)
        with uncollected():
            before = sys.getallocatedblocks()
            coordinator.queue(runs)
            gc.collect()
            held = sys.getallocatedblocks() - before
    return held


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector, which would run at arbitrary moments."""
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
