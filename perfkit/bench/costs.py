"""What one task costs a coordinator in things that can be counted: messages, bytes, system calls.

Counts say which of two designs does less, whatever the machine was busy with. Messages and bytes
are the coordinator's own; system calls are counted from outside of the living process, and how many
there are depends a little on which messages happen to be there at one time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.local import LocalCluster
from cluster.spec import ClusterSpec
from perfkit.bench.load import TRAFFIC, Work, echo_work, map_s, traffic_per_task
from perfkit.profile import html_table
from perfkit.profile.system_calls import SystemCalls, count_system_calls

ALLOCATIONS = "allocations"
#: More than a client may have open between two heartbeats would wait for one, and they are put off.
COUNTED_TASKS = 100
NOT_COUNTED = "nobody has counted them in this run"


@dataclass(frozen=True)
class Costs:
    """Counts for one task of a spec by name, None where nobody counted; `reasons` says why."""

    spec: str
    per_task: Mapping[str, float | None]
    system_calls: SystemCalls
    tasks: int
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class CostTable:
    """The counts of several specs side by side."""

    rows: tuple[Costs, ...]

    def of(self, spec: str) -> Costs:
        """The row of a spec; raises KeyError that names those there are."""
        for row in self.rows:
            if row.spec == spec:
                return row
        raise KeyError(f"no spec {spec!r}; there are {', '.join(row.spec for row in self.rows)}")

    def _repr_html_(self) -> str:
        names = list(self.rows[0].per_task) if self.rows else []
        reasons = dict.fromkeys(
            f"{name.replace('_', ' ')}: {why}."
            for row in self.rows
            for name, why in row.reasons.items()
        )
        return html_table(
            f"Counted per task, a map of {self.rows[0].tasks:,} tasks" if self.rows else "Nothing",
            ("counter", *(row.spec for row in self.rows)),
            [
                (name.replace("_", " "), *(_text(row.per_task[name]) for row in self.rows))
                for name in names
            ],
            reasons,
        )


def measure_costs(
    specs: Sequence[ClusterSpec], *, workers: int = 2, tasks: int = 2_000, seed: int = 0
) -> CostTable:
    """Count for each spec what a task of a map costs its coordinator, every result checked."""
    work = echo_work(tasks, seed)
    return CostTable(tuple(_costs(spec, workers, work) for spec in specs))


def traffic(spec: ClusterSpec, workers: int, work: Work) -> dict[str, float | None]:
    """Messages and bytes per task by the names of TRAFFIC, as the coordinator counts them."""
    counted = traffic_per_task(spec, workers, work.part(0, COUNTED_TASKS), map_s)
    return {name: counted[f"{name}_per_task"] for name in TRAFFIC}


def messages_per_task(spec: ClusterSpec, workers: int, work: Work) -> float | None:
    """Messages in and out of the coordinator for one task; None where it does not count."""
    counted = traffic(spec, workers, work)
    known = [count for name in TRAFFIC[:2] if (count := counted[name]) is not None]
    return sum(known) if len(known) == 2 else None


def _costs(spec: ClusterSpec, workers: int, work: Work) -> Costs:
    calls = _system_calls(spec, workers, work)
    per_task: dict[str, float | None] = dict(traffic(spec, workers, work))
    per_task[ALLOCATIONS] = None
    per_task["system_calls"] = None if calls.total is None else calls.total / len(work)
    reasons = {ALLOCATIONS: NOT_COUNTED}
    if calls.reason:
        reasons["system_calls"] = calls.reason
    return Costs(spec.name, per_task, calls, len(work), reasons)


def _system_calls(spec: ClusterSpec, workers: int, work: Work) -> SystemCalls:
    with LocalCluster(workers, spec) as local, local.client() as client:
        map_s(client, work)
        return count_system_calls(local.coordinator_pid, lambda: map_s(client, work))


def _text(count: float | None) -> str:
    return "unknown" if count is None else f"{count:,.3g}" if count < 1_000 else f"{count:,.0f}"
