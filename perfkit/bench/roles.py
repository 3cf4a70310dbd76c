"""What each role of a cluster costs: processor time per task, memory, and where the time goes.

A figure for the whole says whether a cluster is fast; these say who pays. They are read from
outside of the real processes while they work for real: processor time from the kernel's accounts,
memory from its maps, the coordinator's hot spots from cProfile in the coordinator's own process.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from cluster.events import WorkerJoined
from cluster.local import LocalCluster
from cluster.policy import AssignmentPolicy
from cluster.roster import WorkerState
from cluster.spec import ClusterSpec, load_part
from cluster.task import NO_REQUIREMENTS, Gpu, Load
from perfkit.bench.environment import fingerprint
from perfkit.bench.load import ExperimentError, WrongResult, echo_work, map_s, result_of
from perfkit.bench.results import Result
from perfkit.bench.served import model_work
from perfkit.bench.stats import Interval, bootstrap_interval, percentile_interval
from perfkit.profile import data_frame, html_table, load_profile, process_memory

if TYPE_CHECKING:
    import pandas as pd

    from perfkit.profile import CpuProfile

MEASURES = ("cpu_us_per_task", "rss_bytes", "pss_bytes", "uss_bytes")
#: Processor time comes in ticks of 10 ms, so blocks must be few to be long.
BLOCKS = 6
NEEDS = ("echo", NO_REQUIREMENTS)
_UNKNOWN = bootstrap_interval([])
#: A tie between scores that differ in the last bit only.
_SCORE_EPSILON = 1e-9


@dataclass(frozen=True)
class RoleUse:
    """What the processes of one role used under load; figures that nobody has taken are None.

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
class RoleTable:
    """Every role of a cluster under one kind of load; `work` says of which."""

    rows: tuple[RoleUse, ...]
    work: str
    tasks: int

    def of(self, role: str) -> RoleUse:
        """The row of a role; raises KeyError that names those there are."""
        for row in self.rows:
            if row.role == role:
                return row
        raise KeyError(f"no role {role!r}; there are {', '.join(row.role for row in self.rows)}")

    def to_frame(self) -> pd.DataFrame:
        """A row for each role; a figure and its bounds in columns."""
        columns = ["role", "processes"]
        columns += [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
        rows = [
            [row.role, row.processes]
            + [
                bound
                for name in MEASURES
                for bound in (
                    getattr(row, name).value,
                    getattr(row, name).low,
                    getattr(row, name).high,
                )
            ]
            for row in self.rows
        ]
        return data_frame([dict(zip(columns, row, strict=True)) for row in rows], columns)

    def _repr_html_(self) -> str:
        header = ("role", "processes", "CPU µs per task", "RSS MiB", "PSS MiB", "USS MiB")
        rows = [
            (
                row.role,
                row.note or str(row.processes),
                _text(row.cpu_us_per_task, 1),
                *(_text(getattr(row, name), 2**20) for name in MEASURES[1:]),
            )
            for row in self.rows
        ]
        return html_table(
            f"What each role used during {self.tasks:,} {self.work} tasks (95 % intervals)",
            header,
            rows,
            [
                "CPU is that of all processes of a role together, memory that of one process. "
                "PSS divides shared pages among those who share them."
            ],
        )


def measure_roles(
    spec: ClusterSpec,
    *,
    workers: int = 2,
    tasks: int = 6_000,
    seed: int = 0,
    model: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> RoleTable:
    """Processor time and memory of each role while a real cluster works through checked tasks.

    The API has a row of its own and no figures as long as there is none. The client is this
    process. Raises as `perfkit.bench.experiments.run` does.
    """
    work = echo_work(tasks, seed) if model is None else model_work(model, tasks, seed)
    worker_role = "worker" if model is None else f"worker with {model}"
    with LocalCluster(workers, spec, models=work.models) as local, local.client() as client:
        map_s(client, work.part(0, max(1, len(work) // 10)))
        account = _Account(
            {
                "coordinator": [local.coordinator_pid],
                worker_role: [worker.pid for worker in local.workers],
                "client (this process)": [os.getpid()],
            }
        )
        for number, block in enumerate(work.blocks(BLOCKS), 1):
            map_s(client, block)
            account.close_block(len(block))
            if progress is not None:
                progress(f"roles: block {number}, {len(block):,} {work.kind} tasks")
    return RoleTable((*account.rows(), RoleUse("API", 0, note="not built yet")), work.kind, tasks)


class _Account:
    """Reads what processes have used, block by block."""

    def __init__(self, pids_by_role: dict[str, list[int]]) -> None:
        self._processes = {
            role: [psutil.Process(pid) for pid in pids] for role, pids in pids_by_role.items()
        }
        self._cpu_us: dict[str, list[float]] = {role: [] for role in pids_by_role}
        self._memory: dict[str, dict[str, list[float]]] = {
            role: {name: [] for name in MEASURES[1:]} for role in pids_by_role
        }
        self._before_s = {role: self._cpu_s(role) for role in pids_by_role}

    def close_block(self, tasks: int) -> None:
        """Book what was used since the last block on that many tasks."""
        for role, processes in self._processes.items():
            now_s = self._cpu_s(role)
            self._cpu_us[role].append((now_s - self._before_s[role]) * 1e6 / tasks)
            for process in processes:
                sample = process_memory(process.pid)
                for name, readings in self._memory[role].items():
                    if (reading := getattr(sample, name, None)) is not None:
                        readings.append(reading)
        # Reading memory costs this process time that no task has asked for.
        self._before_s = {role: self._cpu_s(role) for role in self._processes}

    def rows(self) -> list[RoleUse]:
        return [
            RoleUse(
                role,
                len(processes),
                bootstrap_interval(self._cpu_us[role], "mean"),
                *(bootstrap_interval(self._memory[role][name]) for name in MEASURES[1:]),
            )
            for role, processes in self._processes.items()
        ]

    def _cpu_s(self, role: str) -> float:
        try:
            times = [process.cpu_times() for process in self._processes[role]]
        except psutil.NoSuchProcess as gone:
            raise ExperimentError(
                f"a {role} ended while it was measured (process {gone.pid})"
            ) from None
        return sum(time.user + time.system for time in times)


def profile_coordinator(
    spec: ClusterSpec, path: Path, *, workers: int = 2, tasks: int = 4_000, seed: int = 0
) -> CpuProfile:
    """Profile the coordinator's own process while it passes on checked tasks; kept at `path`.

    It covers the process's whole life, waiting for its workers included. Raises ExperimentError
    when the coordinator left no profile.
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


def trace_tasks(
    spec: ClusterSpec, *, workers: int = 2, tasks: int = 300, seed: int = 0
) -> list[tuple[float, ...]]:
    """The seven stamps of each task, one in flight; their meaning is `perfkit.profile.clocks`'s.

    Every task is traced, so what stamping costs is in the stages.
    """
    work = echo_work(tasks, seed)
    with LocalCluster(workers, spec) as local, local.client() as client:
        map_s(client, work.part(0, max(1, len(work) // 10)))
        futures = []
        for payload in work.payloads:
            futures.append(client.submit(work.kind, payload, traced=True))
            result_of(futures[-1])
    work.check([future.result() for future in futures])
    return [future.stamps for future in futures]


def measure_selection(
    spec: ClusterSpec, *, workers: int = 100, choices: int = 2_000, seed: int = 0
) -> Result:
    """Microseconds that the spec's policy takes to choose one of many workers, in this process.

    The workers are made up, differently loaded, and change between choices. Each choice is checked:
    the worker has credit, and where the policy scores workers nobody eligible scores lower.
    """
    began_s, started = time.perf_counter(), datetime.now(UTC)
    policy: AssignmentPolicy = load_part(spec.policies)[spec.policy]()
    rng = random.Random(seed)
    roster = [_made_worker(number, rng) for number in range(workers)]
    for worker in roster:
        policy.join(worker)
    took_us: list[float] = []
    for _ in range(choices):
        freed = rng.choice([worker for worker in roster if worker.held])
        freed.held -= 1
        policy.touch(freed)
        chosen, us = _timed_choice(policy)
        _check_choice(policy, roster, chosen)
        took_us.append(us)
        chosen.held += 1
        policy.touch(chosen)
    figure, slow = percentile_interval(took_us, 50), percentile_interval(took_us, 99)
    return Result(
        experiment="selection",
        spec=spec.name,
        engine="in process",
        workers=workers,
        tasks=choices,
        value=figure.value,
        unit="µs",
        low=figure.low,
        high=figure.high,
        samples=took_us,
        environment=fingerprint(),
        seed=seed,
        parameters={"policy": policy.name, "interval": figure.method},
        started_utc=started.isoformat(),
        duration_s=time.perf_counter() - began_s,
        counters={
            "choice_us_p99": slow.value,
            "choice_us_p99_low": slow.low,
            "choice_us_p99_high": slow.high,
        },
    )


def _made_worker(number: int, rng: random.Random) -> WorkerState:
    total_bytes = 8 << 30
    joined = WorkerJoined(
        worker=f"worker-{number}",
        incarnation=1,
        capacity=4,
        credit=8,
        kinds=["echo"],
        gpus=[Gpu(family="polaris", vram_total_bytes=total_bytes)],
    )
    worker = WorkerState(joined, epoch=1, now=0.0)
    worker.held = rng.randrange(1, worker.credit)
    worker.load = Load(gpu_busy_pct=rng.uniform(0, 100), vram_free_bytes=rng.randrange(total_bytes))
    return worker


def _timed_choice(policy: AssignmentPolicy) -> tuple[WorkerState, float]:
    began_ns = time.perf_counter_ns()
    chosen = policy.choose(NEEDS, False)
    took_us = (time.perf_counter_ns() - began_ns) / 1e3
    if chosen is None:
        raise WrongResult(f"policy {policy.name!r} found nobody although a worker has credit")
    return chosen, took_us


def _check_choice(
    policy: AssignmentPolicy, roster: Sequence[WorkerState], chosen: WorkerState
) -> None:
    if chosen.free <= 0 or not chosen.offers(*NEEDS):
        raise WrongResult(f"policy {policy.name!r} chose {chosen.id}, which has no credit left")
    score = getattr(policy, "score", None)
    if score is None:
        return
    best = min(score(worker, NEEDS) for worker in roster if worker.free > 0)
    if score(chosen, NEEDS) > best + _SCORE_EPSILON:
        raise WrongResult(
            f"policy {policy.name!r} chose {chosen.id}, though another is less loaded"
        )


def _text(figure: Interval, scale: float) -> str:
    if figure.value is None:
        return "unknown"
    bounds = [
        "unknown" if bound is None else f"{bound / scale:,.1f}"
        for bound in (figure.low, figure.high)
    ]
    return f"{figure.value / scale:,.1f} ({bounds[0]} to {bounds[1]})"
