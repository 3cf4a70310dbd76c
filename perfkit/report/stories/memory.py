"""What the memory notebook shows and says; every sentence is made from the table of memory.

Sections about pools, shared models, copies and leaks take their tables from the modules that
measure those.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perfkit.bench.goals.memory import GOALS
from perfkit.bench.goals.table import GoalTable
from perfkit.report.figures.charts import Bar
from perfkit.report.stories.hot_paths import limit_words, record_goals
from perfkit.report.stories.views import Words

ROLES = ("coordinator_idle", "coordinator_after_1m_tasks", "worker", "worker_onnxruntime")
QUEUED = ("queued_in_a_run", "queued_alone")
DRAINED = ("drained_run", "drained_alone")
COUNTED = ("allocations_stream", "allocations_single")


def bars(table: GoalTable, names: Sequence[str]) -> list[Bar]:
    """Each row twice, the baseline first; the goal stands beside the optimised one if it is in the
    row's unit.
    """
    found = []
    for name in names:
        row = table.of(name)
        claim = None if row.against else row.goal
        found.append(Bar(f"{name}, baseline", row.baseline))
        found.append(Bar(f"{name}, optimized", row.value, row.low, row.high, claim))
    return found


def words(table: GoalTable) -> Words:
    """How many goals are met, and which are not, each with its figure."""
    return limit_words(table)


def record(out_dir: str | Path, table: GoalTable) -> None:
    """Save each goal as a headline."""
    record_goals(out_dir, GOALS, table)
