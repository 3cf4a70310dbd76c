"""RangeSet against the plainest model of them: a set of numbers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.rangeset import RangeSet, as_ranges


@given(st.lists(st.integers(0, 40)))
def test_ranges_cover_the_same_positions_and_are_the_fewest(positions: list[int]) -> None:
    ranges = as_ranges(positions)
    assert [p for start, stop in ranges for p in range(start, stop)] == sorted(set(positions))
    assert all(a[1] < b[0] for a, b in pairwise(ranges))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60))
def test_a_set_holds_the_added_numbers_above_its_floor_in_any_order(
    moves: list[tuple[bool, int]],
) -> None:
    some, model = RangeSet(99), set[int]()
    for adds, number in moves:
        if adds:
            some.add(number)
            model.add(number)
        else:
            some.forget_below(number)
            model = {each for each in model if each >= number}
        assert [number for number in range(33) if number in some] == sorted(model)
        assert [*some] == as_ranges(model)
        assert len(some) == len(as_ranges(model))


@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 5))
def test_over_its_bound_a_set_gains_numbers_at_its_lower_end_and_loses_none(
    numbers: list[int], most: int
) -> None:
    some = RangeSet(most)
    for number in numbers:
        some.add(number)
        assert len(some) <= most
    held = {number for number in range(-1, 63) if number in some}
    assert held >= set(numbers)
    assert held <= set(range(min(numbers, default=0), max(numbers, default=0) + 1))
    if len(as_ranges(numbers)) <= most and sorted(numbers) == numbers:
        assert held == set(numbers), "nothing was over the bound at any time"


def test_the_lowest_gap_is_closed_first() -> None:
    some = RangeSet(2)
    for number in (5, 1, 9):
        some.add(number)
    assert [*some] == [(1, 6), (9, 10)]
