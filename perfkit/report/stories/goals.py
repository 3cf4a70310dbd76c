"""What any notebook shows of a table of goals: bars, words and headlines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perfkit.bench.experiments.setting import is_full
from perfkit.bench.goals.memory import PROFILES
from perfkit.bench.goals.memory_runs import MemorySizes
from perfkit.bench.goals.table import COLUMNS, Goal, GoalTable, cells, verdict
from perfkit.bench.leaks.check import CheckSizes
from perfkit.evidence.results import write
from perfkit.evidence.text import estimate, quantity
from perfkit.evidence.verdicts import Verdict
from perfkit.report.engine import headlines
from perfkit.report.figures.charts import Bar
from perfkit.report.stories.views import Table, Words

#: The rows of the memory goals that make one picture.
ROLES = ("coordinator_idle", "coordinator_after_1m_tasks", "worker", "worker_onnxruntime")
QUEUED = ("queued_in_a_run", "queued_alone")
DRAINED = ("drained_run", "drained_alone")
SHARED = ("shared_pss_4", "shared_load", "shared_latency")
COUNTED = ("allocations_stream", "allocations_single")


def goal_bars(table: GoalTable, names: Sequence[str]) -> list[Bar]:
    """Two bars for each row: the baseline, then the optimised figure.

    The goal stands beside the second if it is in the row's unit.
    """
    found = []
    for row in map(table.of, names):
        found.append(Bar(f"{row.name}, baseline", row.baseline))
        claim = None if row.against else row.goal
        found.append(Bar.of(f"{row.name}, optimized", row, claim))
    return found


def goal_rows(table: GoalTable, names: Sequence[str]) -> Table:
    """The rows of these goals; rows that the profile left out are named below."""
    found = [row for row in table.rows if row.name in names]
    left_out = sorted(set(names) - {row.name for row in found})
    notes = (f"This profile leaves out {', '.join(left_out)}; the full one has it.",)
    return Table(
        "Goals (95 % intervals)",
        tuple(tuple(cells(row).values()) for row in found),
        COLUMNS,
        notes if left_out else (),
    )


def goal_words(table: GoalTable) -> Words:
    """How many goals are met, and a sentence for each other one, with its figure."""
    judged = [row for row in table.rows if row.goal is not None]
    met = sum(row.met is True for row in judged)
    told = [f"Of {len(judged)} goals {met} are met by their whole interval."]
    for row in judged:
        if row.met:
            continue
        word = "missed" if row.met is False else "inconclusive"
        of = row.against or "the bare limit"
        ratio = "" if row.ratio is None else f", {quantity(row.ratio, '×')} {of}"
        told.append(f"{row.name} ({row.goal_text}) is {word}: {estimate(row, row.unit)}{ratio}.")
    return Words(tuple(told))


def memory_sizes(profile: str) -> MemorySizes:
    """How much of memory is measured: `quick` leaves out what takes minutes."""
    if is_full(profile):
        return PROFILES["full"]
    return MemorySizes(
        rounds=3,
        passed_tasks=1_000_000,
        baseline_passed_tasks=5_000,
        queued_tasks=20_000,
        baseline_queued_tasks=5_000,
        full_rounds=0,
        stream_rounds=0,
        leaks=CheckSizes(tasks=260_000, churn=2_600),
        sharing=None,
    )


def record_goals(out_dir: str | Path, goals: Sequence[Goal], table: GoalTable, name: str) -> None:
    """Save a table as `goals-<name>.json`, and each of its goals as a judged headline.

    A headline's figure is the ratio if the goal is a ratio.
    """
    write(table.encode(), Path(out_dir) / f"goals-{name}.json")
    measured = {row.name for row in table.rows}
    for goal in (goal for goal in goals if goal.name in measured):
        row = table.of(goal.name)
        of_ratio = goal.of == "ratio"
        figure = (row.ratio, row.ratio_low, row.ratio_high)
        value, low, high = figure if of_ratio else (row.value, row.low, row.high)
        headlines.record(
            out_dir,
            f"Goal: {row.name}",
            value,
            "×" if of_ratio else row.unit,
            low,
            high,
            row.goal_text,
            Verdict.MEASURED if row.goal is None else verdict(row),
            note=row.note,
        )
