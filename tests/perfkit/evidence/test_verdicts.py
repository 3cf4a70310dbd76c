"""How a figure is judged by its goal."""

import math

from hypothesis import given
from hypothesis import strategies as st

from perfkit.evidence.samples import Interval
from perfkit.evidence.verdicts import Direction, Verdict, judge


def interval(value: float | None, low: float | None, high: float | None) -> Interval:
    return Interval(value, low, high, 0.95, "")


numbers = st.floats(-1e6, 1e6)
ends = st.tuples(numbers, numbers, numbers).map(sorted)
WORDS = {frozenset({True}): Verdict.MET, frozenset({False}): Verdict.MISSED}


@given(ends, numbers, st.sampled_from(["higher", "lower"]), st.booleans(), st.booleans())
def test_a_goal_is_judged_by_the_whole_interval_and_an_unknown_bound_may_be_anywhere(
    found: list[float], goal: float, better: Direction, low_known: bool, high_known: bool
) -> None:
    low, value, high = found
    known = interval(value, low if low_known else None, high if high_known else None)
    ends = (low if low_known else -math.inf, high if high_known else math.inf)
    reached = frozenset(end >= goal if better == "higher" else end <= goal for end in ends)
    assert judge(known, goal, better) is WORDS.get(reached, Verdict.INCONCLUSIVE)


def test_an_unknown_figure_decides_nothing_and_without_a_goal_nothing_is_judged() -> None:
    assert judge(interval(None, None, None), 1.0, "higher") is Verdict.INCONCLUSIVE
    assert judge(interval(5.0, 4.0, 6.0), None, "higher") is Verdict.MEASURED
