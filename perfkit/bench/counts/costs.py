"""Counts per task of a coordinator, for specs side by side.

Counts say which of two designs does less, on a busy machine too. Messages, bytes and allocations
are those of the gate and exact. System calls are counted from outside the living process; their
number depends a little on which messages arrive together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from cluster.local import LocalCluster
from cluster.spec import ClusterSpec
from cluster.vocabulary.printable import count_of
from perfkit.bench.counts.gate import PYTHON, count_afresh
from perfkit.bench.counts.lockstep import LOADS
from perfkit.bench.counts.per_task import COUNTED_SPECS, CountTable, count_per_task, count_specs
from perfkit.bench.workloads.load import ExperimentError, Work, echo_work, map_s
from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import quantity
from perfkit.profile.system_calls import SystemCalls, count_system_calls

if TYPE_CHECKING:
    import pandas as pd

ALLOCATIONS, SYSTEM_CALLS = "allocations_per_task", "system_calls_per_task"
STREAM = "stream"


@dataclass(frozen=True)
class Costs(Showable):
    """Counts per task by spec, load and counter, and by spec the system calls of a map.

    `reasons` says, by counter, why one was not counted.
    """

    counts: CountTable
    system_calls: Mapping[str, SystemCalls]
    tasks: int
    reasons: Mapping[str, str]

    def of(self, spec: str, counter: str, load: str = STREAM) -> float | None:
        """One count; None if it was not counted."""
        if counter != SYSTEM_CALLS:
            return self.counts[spec][load].get(counter)
        total = self.system_calls[spec].total
        return None if total is None or load != STREAM else total / self.tasks

    def to_frame(self) -> pd.DataFrame:
        """A row for each spec, load and counter; system calls are those of a stream."""
        found = [
            {"spec": spec, "load": load, "counter": name, "per_task": count}
            for spec, loads in self.counts.items()
            for load, counts in loads.items()
            for name, count in counts.items()
        ]
        for spec in self.system_calls:
            count = self.of(spec, SYSTEM_CALLS)
            found.append({"spec": spec, "load": STREAM, "counter": SYSTEM_CALLS, "per_task": count})
        return data_frame(found)

    def _sheets(self) -> Iterator[Sheet]:
        columns = [(spec, load) for load in LOADS for spec in self.counts]
        counters = dict.fromkeys(
            name for loads in self.counts.values() for found in loads.values() for name in found
        )
        rows = [
            (
                name.removesuffix("_per_task").replace("_", " "),
                *(quantity(self.of(spec, name, load)) for spec, load in columns),
            )
            for name in (*counters, *(ALLOCATIONS,) * (ALLOCATIONS not in counters), SYSTEM_CALLS)
        ]
        notes = [f"{name.replace('_', ' ')}: {why}." for name, why in self.reasons.items()]
        yield Sheet(
            "Per task at the coordinator: one task at a time, and a stream of them",
            ("counted", *(f"{spec}, {load}" for spec, load in columns)),
            rows,
            [
                f"System calls are those of a map of {count_of(self.tasks, 'task')} through the "
                "living "
                "process. The rest is counted in lockstep: messages and bytes are alike on every "
                "machine, allocations for every machine with this Python.",
                *notes,
            ],
        )


def measure_costs(*, workers: int = 2, tasks: int = 2_000, seed: int = 0) -> Costs:
    """The counts of COUNTED_SPECS, and the system calls of a map of `tasks` checked tasks.

    Without memray or strace, or if the kernel refuses, a count is missing and has a reason.
    """
    reasons = {}
    try:
        afresh = count_afresh()
        counts, allocations = afresh.everywhere, afresh.by_python[PYTHON].counts
        for spec, load in product(counts, LOADS):
            counts[spec][load] |= allocations.get(spec, {}).get(load, {})
    except ExperimentError as error:
        reasons[ALLOCATIONS] = str(error)
        counts = count_specs()
    work = echo_work(tasks, seed)
    calls = {spec.name: _system_calls(spec, workers, work) for spec in COUNTED_SPECS}
    for found in calls.values():
        if found.reason:
            reasons[SYSTEM_CALLS] = found.reason
    return Costs(counts, calls, tasks, reasons)


def messages_per_task(spec: ClusterSpec) -> float:
    """Messages in and out of the coordinator for a task of a stream; exact."""
    counts = count_per_task(spec, STREAM)
    return counts["messages_in_per_task"] + counts["messages_out_per_task"]


def _system_calls(spec: ClusterSpec, workers: int, work: Work) -> SystemCalls:
    with LocalCluster(workers, spec) as local, local.client() as client:
        map_s(client, work)
        return count_system_calls(local.coordinator_pid, lambda: map_s(client, work))
