"""Where the time of a lone task goes: several specs, pinned and not, in turns.

Two pictures from different minutes can't be compared on a shared machine, and placement decides
half of a lone task's time. So all traces come from short blocks that take turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import BASELINE, ClusterSpec
from perfkit.bench.experiments.roles import trace_result
from perfkit.bench.workloads.load import Work, echo_work, map_s, result_of
from perfkit.bench.workloads.pinning import UNPINNED, affinity_restored, apply, layouts
from perfkit.evidence.results import Recording, Result
from perfkit.optimized.specs import OPTIMIZED
from perfkit.profile.latency import Stamps, Waterfall, waterfall

#: Tasks in a block: some milliseconds, so that all arms see the same machine.
BLOCK_TASKS = 25


@dataclass(frozen=True)
class LoneTraces:
    """The traces of a lone task by spec and placement, and the same as files by name."""

    found: Mapping[tuple[str, str], Waterfall]
    results: Mapping[str, Result]


def trace_lone_tasks(
    specs: Sequence[ClusterSpec] = (BASELINE, OPTIMIZED), *, tasks: int = 300, seed: int = 0
) -> LoneTraces:
    """Trace `tasks` tasks of each spec and placement, one in flight, through one worker.

    The placements are all processes on one core, and wherever the system puts them. Every task is
    traced, so the stages include the cost of stamping. Raises WrongResult for a wrong result.
    """
    recording, work = Recording(), echo_work(tasks, seed)
    pinned = layouts()[0]
    placements = {} if pinned.broker is None else {"one core": pinned}
    placements[UNPINNED.name] = UNPINNED
    stamps: dict[tuple[str, str], list[Stamps]] = {}
    with ExitStack() as stack:
        running: dict[str, tuple[Client, list[int]]] = {}
        for spec in specs:
            local = stack.enter_context(LocalCluster(1, spec))
            running[spec.name] = local.client(), [local.coordinator_pid, local.workers[0].pid]
            map_s(running[spec.name][0], work.warm_up)
        stack.enter_context(affinity_restored())
        for placement, layout in placements.items():
            for _, pids in running.values():
                apply(layout, pids)
            for start in range(0, tasks, BLOCK_TASKS):
                part = work.part(start, start + BLOCK_TASKS)
                for name, (client, _) in running.items():
                    stamps.setdefault((name, placement), []).extend(_traced(client, part))
    found = {key: waterfall(traces) for key, traces in stamps.items()}
    results = {
        f"trace-{spec.name}-{placement.replace(' ', '-')}": trace_result(
            recording,
            spec,
            found[spec.name, placement],
            work,
            workers=1,
            seed=seed,
            placement=placement,
        )
        for spec in specs
        for placement in placements
    }
    return LoneTraces(found, results)


def _traced(client: Client, work: Work) -> list[Stamps]:
    futures = []
    for payload in work.payloads:
        futures.append(client.submit(work.kind, payload, traced=True))
        result_of(futures[-1])
    work.check([future.result() for future in futures])
    return [future.stamps for future in futures]
