"""The goals for memory: what each role holds, what a waiting task takes, and what is left of it.

Rows, intervals and verdicts are those of the cluster's goals. A MB is a million bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from msgspec.structs import replace

from cluster.models.inference import ModelError
from cluster.spec import ClusterSpec
from cluster.vocabulary.printable import count_of
from perfkit.bench.goals.memory_runs import (
    MemoryContest,
    MemorySizes,
    allocating,
    in_fresh_clusters,
)
from perfkit.bench.goals.sharing import GOALS as SHARING_GOALS
from perfkit.bench.goals.sharing import measure_sharing
from perfkit.bench.goals.streaming import ROLES
from perfkit.bench.goals.table import (
    BASELINE,
    Contest,
    Goal,
    GoalRow,
    GoalTable,
    at_most,
    chosen,
    make_row,
)
from perfkit.bench.leaks.check import OBJECTS_MOST, Leak, LeakTable, check_leaks
from perfkit.bench.workloads.load import ExperimentError
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
    at_most("coordinator_idle", "idle", "MB", 28, "RSS with two workers and a client, all idle"),
    at_most(
        "coordinator_after_1m_tasks", "passed", "MB", 40,
        "RSS after a map of 1,000,000 tasks; the baseline after fewer",
    ),
    at_most(
        "drained_run", "run_drained", "× idle", 1.1,
        "RSS after all queued tasks, submitted in runs, have drained",
    ),
    at_most(
        "drained_alone", "alone_drained", "× idle", 1.1,
        "the same after tasks submitted one by one",
    ),
    at_most(
        "queued_in_a_run", "run_per_task", "B", 300,
        "growth of RSS per queued task of 200 B; the baseline's runs are of one task",
    ),
    at_most(
        "queued_alone", "alone_per_task", "B", 900,
        "growth of RSS per queued task of 200 B, each submitted by itself",
    ),
    at_most(
        "queue_of_1m", "full", "MB", 350,
        "RSS with 1,000,000 queued tasks; one more was refused with a reason",
    ),
    at_most("worker", "worker", "MB", 35, "RSS without models"),
    at_most(
        "worker_onnxruntime", "worker_onnx", "MB", 60,
        "PSS with ONNX Runtime and the digits model loaded",
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


#: Of the coordinator whose growth is checked.
HISTORY_RUNS = 32
#: The packages that the measurements need, and the extras that bring them.
EXTRAS = {"memray": "profile", "onnxruntime": "infer"}


def measure_memory(
    profile: str | MemorySizes = "quick",
    *,
    optimized: ClusterSpec = OPTIMIZED,
    seed: int = 0,
    progress: Say | None = None,
) -> GoalTable:
    """Measure every goal on this machine, in fresh clusters that take turns.

    Raises ExperimentError for an unknown profile, for a missing package and for memory that does
    not settle, WrongResult if any result was wrong, and what the cluster raises.
    """
    name, sizes = chosen(profile, PROFILES)
    _check_extras()
    environment, began_s = fingerprint(), time.perf_counter()
    contest = Contest(optimized, sizes, seed, prefixed(progress, "memory"))
    samples = in_fresh_clusters(contest) | allocating(contest)
    left_out = _left_out(sizes)
    rows = [make_row(goal, samples, seed) for goal in GOALS if goal.figure not in left_out]
    rows += sharing_a_model(contest)
    # A short history is full before the warm-up ends, and then grows no more.
    limits = replace(contest.optimized.limits, history_runs=HISTORY_RUNS)
    checked = replace(contest.optimized, limits=limits)
    rows += growth_rows(check_leaks(checked, sizes.leaks, progress=contest.say))
    return GoalTable(
        tuple(rows), environment, name, seed, "", time.perf_counter() - began_s, (GROWTH_NOTE,)
    )


def _left_out(sizes: MemorySizes) -> set[str]:
    """The figures that sizes without rounds for them do not measure."""
    streamed = {f"stream_{role}" for role in ROLES}
    return ({"full"} if not sizes.full_rounds else set()) | (
        streamed if not sizes.stream_rounds else set()
    )


def _check_extras() -> None:
    """Refuse to begin what a missing package would end minutes later."""
    if missing := {name: extra for name, extra in EXTRAS.items() if find_spec(name) is None}:
        raise ExperimentError(
            f"measuring memory needs {' and '.join(missing)}; "
            f"pip install 'perfkit[{','.join(missing.values())}]' brings what is missing"
        )


def sharing_a_model(contest: MemoryContest) -> Sequence[GoalRow]:
    """Workers with one model, with and without shared weights; none if the sizes leave it out.

    Without the model the rows are unknown, and a progress line says why.
    """
    if contest.sizes.sharing is None:
        return []
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
            note=f"{count_of(row.events, 'event')}: {row.reason}",
            baseline=None,
            samples={table.spec: [float(reading.gc_objects) for reading in row.readings]},
        )
        for row in table
    ]
