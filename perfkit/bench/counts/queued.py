"""The memory of waiting tasks: which lines allocate it, and which types it consists of.

RSS says how much a coordinator holds, not what for. Here the real coordinator, turned by hand in
this process, queues runs: tracemalloc names the lines, and a walk from its scheduler counts every
new object once.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from cluster.spec import ClusterSpec, load_codec
from cluster.vocabulary.printable import count_of
from perfkit.bench.counts.lockstep import SteppedClient, SteppedCoordinator
from perfkit.bench.workloads.load import echo_work
from perfkit.evidence.samples import counted
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import quantity
from perfkit.profile.memory import AllocationLine, track_memory

if TYPE_CHECKING:
    import pandas as pd

TYPES_SHOWN = 10


@dataclass(frozen=True)
class TypeUse:
    """The additional objects of a type, and their bytes by sys.getsizeof."""

    type: str
    objects: int
    size_bytes: int


@dataclass(frozen=True)
class QueuedBytes(Showable):
    """What a coordinator holds for `tasks` waiting tasks, by line of code and by type."""

    spec: str
    tasks: int
    traced_bytes: int | None
    lines: tuple[AllocationLine, ...]
    types: tuple[TypeUse, ...]

    def to_frame(self) -> pd.DataFrame:
        """A row for each line of code that allocated."""
        return data_frame(self.lines, AllocationLine.__slots__)

    def _sheets(self) -> Iterator[Sheet]:
        def per_task(size: float) -> str:
            return quantity(size / self.tasks)

        lines = [(f"{x.file}:{x.line}", per_task(x.growth_bytes)) for x in self.lines]
        types = [(x.type, per_task(x.size_bytes)) for x in self.types]
        total = quantity(self.traced_bytes and self.traced_bytes / self.tasks)
        blank = ("", "")
        rows = [(*line, *kind) for line, kind in zip_longest(lines, types, fillvalue=blank)]
        yield Sheet(
            f"{self.spec}: {count_of(self.tasks, 'task')} of 200 B wait; {total} B each by "
            "tracemalloc",
            ("line", "B per task", "type", "B per task"),
            rows,
        )

    def _figures(self) -> Figures:
        return "B per task", [
            (f"{line.file}:{line.line}", counted(line.growth_bytes, 1 / self.tasks))
            for line in self.lines
        ]


def queued_bytes(
    spec: ClusterSpec, *, tasks: int = 2_000, run_tasks: int = 1, seed: int = 0
) -> QueuedBytes:
    """The memory of `tasks` tasks in runs of `run_tasks` at a coordinator without a worker.

    A spec's burst may make the runs smaller. Raises ValueError for less than one task.
    """
    if tasks < 1:
        raise ValueError(f"at least one task has to wait, not {tasks}")
    client = SteppedClient(load_codec(spec))
    runs = [*client.runs(echo_work(tasks, seed), min(run_tasks, spec.burst))]
    coordinator = SteppedCoordinator(spec)
    before = _reached(coordinator.scheduler)
    with track_memory("queued", tracemalloc=True) as tracked:
        coordinator.queue(runs)
    after = _reached(coordinator.scheduler)
    objects, sizes = Counter[str](), Counter[str]()
    for key in after.keys() - before.keys():
        name = type(after[key]).__name__
        objects[name] += 1
        sizes[name] += sys.getsizeof(after[key])
    use = tracked.result
    return QueuedBytes(
        spec.name,
        tasks,
        None if use is None else use.traced_growth_bytes,
        (use.allocations if use is not None else None) or (),
        tuple(TypeUse(name, objects[name], size) for name, size in sizes.most_common(TYPES_SHOWN)),
    )


def _reached(root: object) -> dict[int, Any]:
    """Every object reached from another, by its id; code and modules are left out."""
    found: dict[int, Any] = {}
    waiting: list[Any] = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in found or isinstance(one, type | ModuleType | FunctionType):
            continue
        found[id(one)] = one
        waiting += gc.get_referents(one)
    return found
