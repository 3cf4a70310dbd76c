"""What each role of a cluster costs: processor time per task, memory, and where the time goes.

Everything is read from real processes at work: processor time from the kernel's accounts, memory
from its maps, the coordinator's hot spots from cProfile in its own process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import BASELINE, ClusterSpec
from perfkit.bench.serving.servers import api, in_front_of
from perfkit.bench.workloads.load import ExperimentError, Work, cpu_s, echo_work, map_s, result_of
from perfkit.bench.workloads.pinning import UNPINNED, affinity_restored, apply, layouts
from perfkit.bench.workloads.rounds import Say, prefixed
from perfkit.bench.workloads.served import model_work
from perfkit.evidence.results import Recording, Result
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.showing import Figures, ResultTable, Sheet
from perfkit.evidence.tables import data_frame
from perfkit.optimized.specs import OPTIMIZED
from perfkit.profile.cpu import load_profile
from perfkit.profile.flame import sample_stacks
from perfkit.profile.latency import waterfall
from perfkit.profile.watch import process_memory

if TYPE_CHECKING:
    import pandas as pd

    from perfkit.profile.cpu import CpuProfile
    from perfkit.profile.flame import Flame
    from perfkit.profile.latency import Stamps, Waterfall

COORDINATOR, WORKER, CLIENT, API = "coordinator", "worker", "client (this process)", "API"
API_PACKAGES = ("uvicorn", "starlette", "httptools", "uvloop")
MEASURES = ("cpu_us_per_task", "rss_bytes", "pss_bytes", "uss_bytes")
#: Few and therefore long, because processor time comes in ticks of 10 ms.
BLOCKS = 6
_UNKNOWN = bootstrap_interval([])
#: Tasks in a block of traces: some milliseconds, so that all arms see the same machine.
BLOCK_TASKS = 25


@dataclass(frozen=True)
class RoleUse:
    """What the processes of one role used under load; unknown values are None.

    Processor time is that of all processes of the role for one task, memory that of one process.
    """

    role: str
    processes: int
    cpu_us_per_task: Interval = _UNKNOWN
    rss_bytes: Interval = _UNKNOWN
    pss_bytes: Interval = _UNKNOWN
    uss_bytes: Interval = _UNKNOWN
    note: str = ""


@dataclass(frozen=True)
class RoleTable(ResultTable[RoleUse]):
    """Every role of a cluster under one kind of `work`.

    `result` holds the same as a file: its figure is the coordinator's processor time in µs per
    task, its series are every role's readings, block by block.
    """

    key: ClassVar[str] = "role"

    work: str
    tasks: int
    result: Result

    def to_frame(self) -> pd.DataFrame:
        """A row for each role; a figure and its bounds in columns."""
        return data_frame(self.rows, ["role", "processes", *MEASURES])

    def _sheets(self) -> Iterator[Sheet]:
        header = ("role", "processes", "CPU µs per task", "RSS MiB", "PSS MiB", "USS MiB")
        rows = [
            (
                row.role,
                row.note or str(row.processes),
                row.cpu_us_per_task.text(),
                *(getattr(row, name).scaled(1 / 2**20).text() for name in MEASURES[1:]),
            )
            for row in self.rows
        ]
        yield Sheet(
            f"What each role used during {self.tasks:,} {self.work} tasks (95 % intervals)",
            header,
            rows,
            [
                "CPU is that of all processes of a role together, memory that of one process. "
                "PSS divides shared pages among the processes that share them."
            ],
        )

    def _figures(self) -> Figures:
        return "µs per task", [(row.role, row.cpu_us_per_task) for row in self.rows]


def measure_roles(
    spec: ClusterSpec,
    *,
    workers: int = 2,
    tasks: int = 6_000,
    seed: int = 0,
    model: str | None = None,
    progress: Say | None = None,
) -> RoleTable:
    """Processor time and memory of each role while a real cluster works through checked tasks.

    The client is this process. The API stands beside, and nobody asks it; without its packages its
    row has no figures. Raises as `perfkit.bench.experiments.catalogue.run` does.
    """
    recording = Recording()
    work = echo_work(tasks, seed) if model is None else model_work(model, tasks, seed)
    say = prefixed(progress, "roles")
    worker_role = WORKER if model is None else f"{WORKER} with {model}"
    with ExitStack() as stack:
        local = stack.enter_context(LocalCluster(workers, spec, models=work.models))
        client = stack.enter_context(local.client())
        pids = {
            COORDINATOR: [local.coordinator_pid],
            worker_role: [worker.pid for worker in local.workers],
            CLIENT: [os.getpid()],
        }
        if has_api := all(map(find_spec, API_PACKAGES)):
            process, _ = stack.enter_context(api(in_front_of(local)))
            pids[API] = [process.pid]
        map_s(client, work.warm_up)
        account = _Account(pids)
        for number, block in enumerate(work.blocks(BLOCKS), 1):
            map_s(client, block)
            account.close_block(len(block))
            say(f"block {number}, {len(block):,} {work.kind} tasks")
    without = [] if has_api else [RoleUse(API, 0, note="not started: it needs the extra [serve]")]
    rows = (*account.rows(), *without)
    result = recording.result(
        "roles",
        spec,
        rows[0].cpu_us_per_task,
        "µs",
        account.readings[f"{COORDINATOR} cpu_us_per_task"],
        workers=workers,
        tasks=tasks,
        seed=seed,
        parameters={"model": model, **work.facts},
        series={name: list(found) for name, found in account.readings.items()},
    )
    return RoleTable(rows, work.kind, tasks, result)


class _Account:
    """The processor time and memory of processes, block by block."""

    def __init__(self, pids_by_role: dict[str, list[int]]) -> None:
        self._processes = {
            role: [psutil.Process(pid) for pid in pids] for role, pids in pids_by_role.items()
        }
        #: By role and measure; of memory, one reading for each process and block.
        self.readings: dict[str, list[float]] = {
            f"{role} {measure}": [] for role in pids_by_role for measure in MEASURES
        }
        self._before_s = {role: self._cpu_s(role) for role in pids_by_role}

    def close_block(self, tasks: int) -> None:
        """Divide what was used since the last block by its tasks."""
        for role, processes in self._processes.items():
            used_s = self._cpu_s(role) - self._before_s[role]
            self.readings[f"{role} cpu_us_per_task"].append(used_s * 1e6 / tasks)
            for process in processes:
                sample = process_memory(process.pid)
                for measure in MEASURES[1:]:
                    if (reading := getattr(sample, measure, None)) is not None:
                        self.readings[f"{role} {measure}"].append(reading)
        # Read again, because reading memory costs this process time.
        self._before_s = {role: self._cpu_s(role) for role in self._processes}

    def rows(self) -> list[RoleUse]:
        return [
            RoleUse(
                role,
                len(processes),
                bootstrap_interval(self.readings[f"{role} cpu_us_per_task"], "mean"),
                bootstrap_interval(self.readings[f"{role} rss_bytes"]),
                bootstrap_interval(self.readings[f"{role} pss_bytes"]),
                bootstrap_interval(self.readings[f"{role} uss_bytes"]),
            )
            for role, processes in self._processes.items()
        ]

    def _cpu_s(self, role: str) -> float:
        try:
            return sum(map(cpu_s, self._processes[role]))
        except psutil.NoSuchProcess as gone:
            raise ExperimentError(
                f"a {role} ended while it was measured (process {gone.pid})"
            ) from None


def profile_coordinator(
    spec: ClusterSpec, path: Path, *, workers: int = 2, tasks: int = 4_000, seed: int = 0
) -> CpuProfile:
    """Profile the coordinator's own process while it handles checked tasks; saved at `path`.

    It covers the process's whole life, waiting for its workers included. Raises ExperimentError if
    the coordinator left no profile.
    """
    work = echo_work(tasks, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    cluster = LocalCluster(workers, spec, cprofile=path.absolute())
    with cluster as local, local.client() as client:
        map_s(client, work)
    if not path.is_file():
        raise ExperimentError("the coordinator wrote no profile; did it have to be killed?")
    return load_profile(path, f"coordinator of {spec.name}")


def sample_coordinator(
    spec: ClusterSpec, *, workers: int = 2, tasks: int = 4_000, seconds: float = 2.0, seed: int = 0
) -> Flame:
    """Sample the stacks of the running coordinator while it handles checked tasks.

    Maps of `tasks` tasks follow each other for `seconds`. If sampling is not possible the flame is
    empty and says why.
    """
    work = echo_work(tasks, seed)
    with LocalCluster(workers, spec) as local, local.client() as client:
        map_s(client, work)

        def keep_busy() -> None:
            until_s = time.perf_counter() + seconds
            while time.perf_counter() < until_s:
                map_s(client, work)

        return sample_stacks(local.coordinator_pid, f"coordinator of {spec.name}", keep_busy)


def trace_tasks(
    spec: ClusterSpec, *, workers: int = 2, tasks: int = 300, seed: int = 0
) -> tuple[Waterfall, Result]:
    """Where the time of a task goes, with one in flight; and the same as a file.

    The result's figure is the median from end to end in ms, its series are the stages. Every task
    is traced, so the stages include the cost of stamping.
    """
    recording = Recording()
    work = echo_work(tasks, seed)
    with LocalCluster(workers, spec) as local, local.client() as client:
        map_s(client, work.warm_up)
        found = waterfall(_traced(client, work))
    return found, trace_result(recording, spec, found, work, workers=workers, seed=seed)


def trace_result(
    recording: Recording,
    spec: ClusterSpec,
    found: Waterfall,
    work: Work,
    *,
    workers: int,
    seed: int,
    **parameters: str,
) -> Result:
    """Traces as a result: the median from end to end in ms, the stages of each as series."""
    columns = zip(*found.intervals_ns, strict=True)
    return recording.result(
        "trace",
        spec,
        found.end_to_end.p50_ms,
        "ms",
        [sum(intervals) / 1e6 for intervals in found.intervals_ns],
        workers=workers,
        tasks=len(work),
        seed=seed,
        parameters={**work.facts, "in_flight": 1, **parameters},
        series={
            f"{stage.stage} ms": [interval / 1e6 for interval in column]
            for stage, column in zip(found.stages, columns, strict=True)
        },
    )


@dataclass(frozen=True)
class LoneTraces:
    """The traces of a lone task by spec and placement, and the same as files by name."""

    found: Mapping[tuple[str, str], Waterfall]
    results: Mapping[str, Result]


def trace_lone_tasks(
    specs: Sequence[ClusterSpec] = (BASELINE, OPTIMIZED), *, tasks: int = 300, seed: int = 0
) -> LoneTraces:
    """Trace `tasks` tasks of each spec and placement, one in flight, through one worker.

    The arms take turns in short blocks, since two minutes can't be compared. The placements are all
    processes on one core, and wherever the system puts them. Every task is traced, so the stages
    include the cost of stamping. Raises WrongResult for a wrong result.
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
