"""The goals for memory: what each role holds, what a waiting task takes, and what is left of it.

Rows, intervals and verdicts are those of the cluster's goals. A MB is a million bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from cluster.models.manifest import ModelError
from cluster.spec import BASELINE as BASELINE_SPEC
from cluster.spec import ClusterSpec
from perfkit.bench.goals.contest import Contest
from perfkit.bench.goals.memory_runs import (
    MemoryContest,
    MemorySizes,
    allocating,
    in_fresh_clusters,
)
from perfkit.bench.goals.sharing import GOALS as SHARING_GOALS
from perfkit.bench.goals.sharing import measure_sharing
from perfkit.bench.goals.streaming import ROLES
from perfkit.bench.goals.table import BASELINE, Goal, GoalRow, GoalTable, chosen, make_row
from perfkit.bench.leaks.check import OBJECTS_MOST, Leak, LeakTable, check_leaks
from perfkit.bench.workloads.rounds import Say, prefixed
from perfkit.evidence.environment import fingerprint
from perfkit.optimized.specs import OPTIMIZED

#: Explains the rows of growth, below the table.
GROWTH_NOTE = (
    "growth_*: gc objects left of each event after warm-up, with simulated peers; met only if fds, "
    "threads and every container are back to baseline too."
)
#: Quick is for a look, some minutes on two cores; full is for a claim.
PROFILES: Mapping[str, MemorySizes] = {
    "quick": MemorySizes(
        rounds=4, passed_tasks=1_000_000, baseline_passed_tasks=20_000, queued_tasks=100_000,
        baseline_queued_tasks=20_000, full_rounds=3,
    ),
    "full": MemorySizes(
        rounds=8, passed_tasks=1_000_000, baseline_passed_tasks=100_000, queued_tasks=100_000,
        baseline_queued_tasks=100_000, full_rounds=4,
    ),
}  # fmt: skip

GOALS: Sequence[Goal] = (
    Goal(
        "coordinator_idle", "idle", "MB", "lower", "value", 28.0, "≤ 28 MB",
        note="RSS with two workers and a client, all idle",
    ),
    Goal(
        "coordinator_after_1m_tasks", "passed", "MB", "lower", "value", 40.0, "≤ 40 MB",
        note="RSS after a map of 1,000,000 tasks; the baseline after fewer",
    ),
    Goal(
        "drained_run", "run_drained", "× idle", "lower", "value", 1.1, "≤ 1.1 × idle",
        note="RSS after 100,000 queued tasks, submitted in runs, have drained",
    ),
    Goal(
        "drained_alone", "alone_drained", "× idle", "lower", "value", 1.1, "≤ 1.1 × idle",
        note="the same after tasks submitted one by one",
    ),
    Goal(
        "queued_in_a_run", "run_per_task", "B", "lower", "value", 300.0, "≤ 300 B",
        note="growth of RSS per queued task of 200 B; the baseline's runs are of one task",
    ),
    Goal(
        "queued_alone", "alone_per_task", "B", "lower", "value", 900.0, "≤ 900 B",
        note="growth of RSS per queued task of 200 B, each submitted by itself",
    ),
    Goal(
        "queue_of_1m", "full", "MB", "lower", "value", 350.0, "≤ 350 MB",
        note="RSS with 1,000,000 queued tasks; one more was refused with a reason",
    ),
    Goal(
        "worker", "worker", "MB", "lower", "value", 35.0, "≤ 35 MB", note="RSS without models"
    ),
    Goal(
        "worker_onnxruntime", "worker_onnx", "MB", "lower", "value", 60.0, "≤ 60 MB",
        note="PSS with ONNX Runtime and the digits model loaded",
    ),
    Goal(
        "allocations_stream", "allocations_stream", "allocations", "lower", "ratio", 0.5,
        "≤ ½ of the baseline's", against=BASELINE,
        note="a coordinator's per task of a map; memray's count of calls to Python's allocator",
    ),
    Goal(
        "allocations_single", "allocations_single", "allocations", "lower", "ratio", 0.5,
        "≤ ½ of the baseline's", against=BASELINE,
        note="the same with one task in flight, which shares nothing",
    ),
    *(
        Goal(
            f"streamed_{role}", f"stream_{role}", "MB", "lower", "value", None, "for comparison",
            note=f"what a result of 256 MiB adds to the {role}'s RSS at its worst moment",
        )
        for role in ROLES
    ),
)  # fmt: skip


def measure_memory(
    profile: str | MemorySizes = "quick",
    *,
    optimized: ClusterSpec = OPTIMIZED,
    baseline: ClusterSpec = BASELINE_SPEC,
    seed: int = 0,
    progress: Say | None = None,
) -> GoalTable:
    """Measure every goal on this machine, in fresh clusters that take turns.

    Raises ExperimentError for an unknown profile and for memory that does not settle, WrongResult
    if any result was wrong, and what the cluster raises.
    """
    name, sizes = chosen(profile, PROFILES)
    environment, began_s = fingerprint(), time.perf_counter()
    contest = Contest(optimized, baseline, sizes, seed, prefixed(progress, "memory"))
    samples = in_fresh_clusters(contest) | allocating(contest)
    rows = [make_row(goal, samples, seed) for goal in GOALS]
    rows += sharing_a_model(contest)
    rows += growth_rows(check_leaks(contest.optimized, sizes.leaks, progress=contest.say))
    return GoalTable(
        tuple(rows), environment, name, seed, "", time.perf_counter() - began_s, (GROWTH_NOTE,)
    )


def sharing_a_model(contest: MemoryContest) -> Sequence[GoalRow]:
    """Workers with one model, with and without shared weights.

    Without the model the rows are unknown, and a progress line says why.
    """
    try:
        return measure_sharing(contest.sizes.sharing, seed=contest.seed, progress=contest.say).rows
    except ModelError as error:
        contest.say(f"sharing is not measured: {error}")
        return [make_row(goal, {}) for goal in SHARING_GOALS.values()]


def growth_rows(table: LeakTable) -> list[GoalRow]:
    """The goal "growth per event" as rows, one for each kind of event.

    The figure counts gc objects; the goal is met only if nothing else is left either.
    """
    return [
        GoalRow(
            name=f"growth_{row.event.replace(' ', '_')}",
            value=row.gc_objects_per_event.value,
            unit="objects",
            low=row.gc_objects_per_event.low,
            high=row.gc_objects_per_event.high,
            goal=OBJECTS_MOST,
            met={Leak.FOUND: False, Leak.NONE: True, Leak.UNCLEAR: None}[row.verdict],
            goal_text="< 0.001",
            note=f"{row.events:,} events: {row.reason}",
            baseline=None,
            samples={table.spec: [float(reading.gc_objects) for reading in row.readings]},
        )
        for row in table
    ]
