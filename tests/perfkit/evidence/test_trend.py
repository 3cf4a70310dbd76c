"""A slope that outliers do not move, and an interval that noise does not fool."""

import random
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.evidence.trend import MAX_READINGS, MIN_READINGS, theil_sen

SERIES = st.lists(st.floats(-1e6, 1e6), min_size=MIN_READINGS, max_size=30)


def noise(seed: int, count: int, memory: float) -> list[float]:
    """Readings without a trend; each keeps a part of the one before it."""
    rng = random.Random(seed)
    return [*accumulate((rng.gauss(0, 1) for _ in range(count)), lambda a, b: memory * a + b)]


def false_alarms(memory: float, seeds: int = 200, count: int = 40) -> float:
    """The share of series without a slope whose interval excludes 0."""
    found = [theil_sen(range(count), noise(seed, count, memory)) for seed in range(seeds)]
    bounds = [(one.low, one.high) for one in found if one.low is not None and one.high is not None]
    return sum(not low <= 0 <= high for low, high in bounds) / seeds


def test_a_quarter_of_outliers_does_not_hide_the_slope() -> None:
    readings = [100.0 * x + (1e6 if x % 4 == 1 else 0.0) for x in range(40)]
    found = theil_sen(range(40), readings)
    assert found.low <= 100.0 <= found.high


def test_few_readings_have_a_slope_and_no_interval() -> None:
    found = theil_sen([0, 1, 2], [0.0, 1.0, 2.0])
    assert (found.value, found.low, found.high) == (1.0, None, None)
    assert found.method == "too few readings"


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], [2.0]), ([1.0, 1.0], [2.0, 3.0])])
def test_without_two_moments_the_slope_is_unknown(x: list[float], y: list[float]) -> None:
    assert theil_sen(x, y).value is None


def test_unequal_columns_and_an_impossible_confidence_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        theil_sen([1, 2], [1])
    with pytest.raises(ValueError, match="confidence"):
        theil_sen([1, 2], [1, 2], confidence=1.0)


#: At 0.7 the interval of independent readings would be wrong in more than a quarter of the series.
@pytest.mark.parametrize(("memory", "most"), [(0.0, 0.08), (0.7, 0.15)])
def test_noise_seldom_looks_like_growth(memory: float, most: float) -> None:
    assert false_alarms(memory) <= most


def test_growth_as_large_as_the_noise_is_seen() -> None:
    seen = [
        theil_sen(range(40), [y + 0.2 * x for x, y in enumerate(noise(seed, 40, 0.0))])
        for seed in range(20)
    ]
    assert all(one.low is not None and one.low > 0 for one in seen)


def test_many_readings_are_thinned_out() -> None:
    count = 3 * MAX_READINGS
    found = theil_sen(range(count), [0.5 * x for x in range(count)])
    assert (found.value, found.low) == (0.5, 0.5)


def test_it_agrees_with_another_implementation() -> None:
    stats = pytest.importorskip("scipy.stats")
    for seed in range(20):
        x, y = [*range(30)], noise(seed, 30, 0.0)
        other, ours = stats.theilslopes(y, x, 0.95), theil_sen(x, y)
        assert ours.value == pytest.approx(other[0])
        # Wider where neighbours resemble each other, and by the rounding of a rank.
        assert ours.low <= other[2] + 1e-9
        assert ours.high >= other[3] - 1e-9


@given(SERIES, st.floats(-1e3, 1e3))
def test_a_line_under_the_readings_moves_the_slope_by_its_own(y: list[float], a: float) -> None:
    plain = theil_sen(range(len(y)), y)
    tilted = theil_sen(range(len(y)), [value + a * x for x, value in enumerate(y)])
    assert tilted.value == pytest.approx(plain.value + a, abs=1e-3)


@given(SERIES)
def test_the_slope_lies_in_its_interval(y: list[float]) -> None:
    found = theil_sen(range(len(y)), y)
    assert found.low is None or found.low <= found.value
    assert found.high is None or found.value <= found.high
