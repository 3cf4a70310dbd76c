"""Goals as bars, words and headlines, from a table with and without figures."""

from pathlib import Path

import pytest

from perfkit.bench.goals import memory as bench
from perfkit.bench.goals.table import GoalTable, make_row
from perfkit.report.engine import headlines
from perfkit.report.stories import goals
from tests.perfkit.machine import HERE

READINGS = {
    "idle": {"optimized": [25.0] * 4, "baseline": [24.0] * 4},
    "allocations_single": {"optimized": [9.0] * 4, "baseline": [10.0] * 4},
}
TABLE = GoalTable(
    tuple(make_row(goal, READINGS) for goal in bench.GOALS), HERE, "quick", 0, "", 1.0
)


def test_a_row_is_two_bars_and_the_goal_is_beside_the_second() -> None:
    plain, fast = goals.goal_bars(TABLE, ["coordinator_idle"])
    assert (plain.value, plain.claim, fast.value, fast.claim) == (24.0, None, 25.0, 28.0)


def test_a_goal_that_is_a_ratio_is_not_drawn_in_another_unit() -> None:
    assert [bar.claim for bar in goals.goal_bars(TABLE, goals.COUNTED)] == [None] * 4


@pytest.mark.parametrize("names", [goals.ROLES, goals.QUEUED, goals.DRAINED, goals.COUNTED])
def test_every_picture_has_its_rows(names: tuple[str, ...]) -> None:
    assert len(goals.goal_bars(TABLE, names)) == 2 * len(names)


def test_the_words_name_missed_goals_with_their_ratio() -> None:
    first, *others = goals.goal_words(TABLE).sentences
    assert first.endswith("goals 1 are met by their whole interval.")
    (told,) = (line for line in others if line.startswith("allocations_single"))
    assert "is missed: 9 allocations, 0.9 × baseline." in told


def test_every_goal_is_a_headline(tmp_path: Path) -> None:
    goals.record_goals(tmp_path, bench.GOALS, TABLE, "memory")
    found = {h.title for h in headlines.load(tmp_path)}
    assert found == {f"Goal: {goal.name}" for goal in bench.GOALS}


def test_the_quick_sizes_measure_less_and_a_row_that_is_left_out_is_named() -> None:
    quick, full = goals.memory_sizes("quick"), goals.memory_sizes("full")
    assert (quick.full_rounds, quick.sharing) == (0, None)
    assert full is bench.PROFILES["full"]
    html = goals.goal_rows(TABLE, ("coordinator_idle", *goals.SHARED))._repr_html_()
    assert "coordinator_idle" in html
    assert "leaves out shared_latency, shared_load, shared_pss_4" in html
