"""The table of memory: what each role holds, what a task that waits takes, and what is left of it.

Rows, intervals and verdicts are those of the table of limits. A MB is a million bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from cluster.models.manifest import ModelError
from cluster.spec import BASELINE as BASELINE_SPEC
from cluster.spec import ClusterSpec
from perfkit.bench.goals.memory_runs import MAKERS, Amounts, Subjects
from perfkit.bench.goals.sharing import GOALS as SHARING_GOALS
from perfkit.bench.goals.sharing import measure_sharing
from perfkit.bench.goals.streaming import ROLES
from perfkit.bench.goals.table import BASELINE, Goal, GoalRow, GoalTable, chosen, make_row
from perfkit.bench.leaks.check import OBJECTS_MOST, Leak, LeakRow, LeakTable, check_leaks
from perfkit.bench.workloads.rounds import Readings
from perfkit.evidence.environment import fingerprint
from perfkit.optimized.specs import spec_named

#: What each row of growth is, said once below the table of goals.
GROWTH_NOTE = (
    "growth_*: gc objects left of each event after warm-up, with simulated peers; met only if fds, "
    "threads and every container are back to baseline too."
)
#: Quick is for a look, some minutes on two cores; full is for a claim.
PROFILES: Mapping[str, Amounts] = {
    "quick": Amounts(
        rounds=4, passed_tasks=1_000_000, baseline_passed_tasks=20_000, queued_tasks=100_000,
        baseline_queued_tasks=20_000, full_rounds=3,
    ),
    "full": Amounts(
        rounds=8, passed_tasks=1_000_000, baseline_passed_tasks=100_000, queued_tasks=100_000,
        baseline_queued_tasks=100_000, full_rounds=4,
    ),
}  # fmt: skip

GOALS: Sequence[Goal] = (
    Goal(
        "coordinator_idle", "idle", "MB", "lower", "value", 28.0, "≤ 28 MB",
        note="RSS with two workers and a client that have nothing to do",
    ),
    Goal(
        "coordinator_after_1m_tasks", "passed", "MB", "lower", "value", 40.0, "≤ 40 MB",
        note="RSS after a map of 1,000,000 tasks; the baseline after fewer",
    ),
    Goal(
        "drained_run", "run_drained", "× idle", "lower", "value", 1.1, "≤ 1.1 × idle",
        note="RSS after 100,000 queued tasks, which came in runs, have drained",
    ),
    Goal(
        "drained_alone", "alone_drained", "× idle", "lower", "value", 1.1, "≤ 1.1 × idle",
        note="the same where they had been submitted one by one",
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
        note="RSS with 1,000,000 queued tasks; that one more is refused with a reason was checked",
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
        note="the same with one task in flight, where there is nothing to share",
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
    profile: str | Amounts = "quick",
    *,
    optimized: ClusterSpec | None = None,
    baseline: ClusterSpec = BASELINE_SPEC,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> GoalTable:
    """Measure every goal on this machine, in fresh clusters that take turns.

    `optimized` None takes the spec of that name. `progress` is called with one plain line at a
    time. Raises ExperimentError for an unknown profile and for what does not come to rest,
    WrongResult when anything gave a wrong result, and what the cluster raises.
    """
    name, amounts = chosen(profile, PROFILES)
    environment, began_s = fingerprint(), time.perf_counter()
    tell = progress or (lambda line: None)
    subjects = Subjects(
        optimized or spec_named("optimized"),
        baseline,
        amounts,
        seed,
        lambda line: tell(f"memory: {line}"),
    )
    readings: Readings = {}
    for make in MAKERS:
        readings |= make(subjects)
    rows = [make_row(goal, readings, seed) for goal in GOALS]
    rows += [row for make in ROW_MAKERS for row in make(subjects)]
    return GoalTable(
        tuple(rows),
        environment,
        name,
        seed,
        "",
        time.perf_counter() - began_s,
        (GROWTH_NOTE,),
    )


def sharing_a_model(subjects: Subjects) -> Sequence[GoalRow]:
    """Workers with one model, shared and the plain way; unknown, with the reason told, where the
    model is not there.
    """
    try:
        sizes = subjects.amounts.sharing
        return measure_sharing(sizes, seed=subjects.seed, progress=subjects.say).rows
    except ModelError as error:
        subjects.say(f"sharing is not measured: {error}")
        return [make_row(goal, {}) for goal in SHARING_GOALS.values()]


def growing(subjects: Subjects) -> Sequence[GoalRow]:
    """What is left of each kind of event."""
    found = check_leaks(subjects.optimized, subjects.amounts.leaks, progress=subjects.say)
    return growth_rows(found)


#: Tables of others that belong into this one.
ROW_MAKERS: Sequence[Callable[[Subjects], Sequence[GoalRow]]] = (sharing_a_model, growing)


def growth_rows(table: LeakTable, baseline: LeakTable | None = None) -> tuple[GoalRow, ...]:
    """The goal "growth per event" as rows of the table of goals, one for each kind of event.

    The figure is of gc objects; a goal is met only if nothing else is left either.
    """
    known = {} if baseline is None else {row.event: row for row in baseline.rows}
    return tuple(_growth_row(row, table.spec, known.get(row.event)) for row in table.rows)


def _growth_row(row: LeakRow, spec: str, baseline: LeakRow | None) -> GoalRow:
    figure = row.gc_objects_per_event
    return GoalRow(
        name=f"growth_{row.event.replace(' ', '_')}",
        value=figure.value,
        unit="objects",
        low=figure.low,
        high=figure.high,
        limit=None,
        ratio=None,
        goal=OBJECTS_MOST,
        met={Leak.FOUND: False, Leak.NONE: True, Leak.UNCLEAR: None}[row.verdict],
        goal_text="< 0.001",
        note=f"{row.events:,} events: {row.reason}",
        limit_name=None,
        against=None,
        ratio_low=None,
        ratio_high=None,
        baseline=None if baseline is None else baseline.gc_objects_per_event.value,
        samples={spec: [float(reading.gc_objects) for reading in row.readings]},
    )
