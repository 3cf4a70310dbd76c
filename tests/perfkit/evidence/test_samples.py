"""Percentiles and intervals against known answers, and against truths that we drew from."""

import math
import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.evidence.samples import (
    Interval,
    bootstrap_interval,
    percentile,
    percentile_interval,
    ratio_interval,
)

FINITE = st.floats(-1e9, 1e9)


@given(st.lists(FINITE, min_size=2, max_size=30), st.integers(1, 99))
def test_percentiles_agree_with_the_standard_library(samples: list[float], q: int) -> None:
    expected = statistics.quantiles(samples, n=100, method="inclusive")[q - 1]
    assert percentile(samples, q) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert min(samples) <= percentile(samples, q) <= max(samples)
    assert percentile(samples, 0) == min(samples)
    assert percentile(samples, 100) == max(samples)


@pytest.mark.parametrize("q", [-1, 100.5, math.nan])
def test_a_percentile_outside_of_0_to_100_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match=r"q must be in 0\.\.100"):
        percentile([1.0], q)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("function", [bootstrap_interval, lambda samples: percentile(samples, 50)])
def test_samples_must_be_finite(function: Callable[[list[float]], object], bad: float) -> None:
    with pytest.raises(ValueError, match="Sample 1 is"):
        function([1.0, bad])


def test_no_samples_have_no_figures() -> None:
    assert percentile([], 50) is None
    assert bootstrap_interval([]).value is None
    assert percentile_interval([], 99).value is None


def test_an_interval_is_text_and_columns_and_has_other_units() -> None:
    figure = Interval(1.5, 1.0, None, 0.95, "made up").scaled(1e3)
    assert figure == Interval(1500.0, 1000.0, None, 0.95, "made up")
    assert figure.text("ms") == "1,500 ms (1,000 or more)"
    assert figure.columns("took_ms") == {
        "took_ms": 1500.0, "took_ms_low": 1000.0, "took_ms_high": None
    }  # fmt: skip


@pytest.mark.parametrize("samples", [[7.0], [7.0, 9.0]])
def test_two_samples_have_no_interval(samples: list[float]) -> None:
    interval = bootstrap_interval(samples, "mean")
    assert interval.value == statistics.fmean(samples)
    assert (interval.low, interval.high) == (None, None)


@pytest.mark.parametrize("count", [5, 12])
def test_intervals_of_a_mean_cover_it_though_samples_are_few(count: int) -> None:
    rng = random.Random(11)
    held = sum(
        holds(bootstrap_interval([rng.gauss(5, 1) for _ in range(count)], "mean", resamples=400), 5)
        for _ in range(400)
    )
    # The plain percentile interval would hold it 340 times at five samples.
    assert 360 <= held <= 395


@pytest.mark.parametrize("count", [9, 10, 60])
def test_intervals_of_a_median_cover_it(count: int) -> None:
    rng = random.Random(12)
    held = sum(
        holds(
            bootstrap_interval([rng.expovariate(1) for _ in range(count)], resamples=400),
            math.log(2),
        )
        for _ in range(200)
    )
    assert held >= 180


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


@pytest.mark.parametrize("samples", [[1, 2, 4, 8, 16], [1, 2, 4, 8, 16, 32]])
def test_the_quick_bootstrap_of_a_median_equals_drawing(samples: list[float]) -> None:
    quick = bootstrap_interval(samples, "median", confidence=0.5, resamples=20_000)
    drawn = bootstrap_interval(samples, statistics.median, confidence=0.5, resamples=20_000)
    assert (quick.value, quick.low, quick.high) == (drawn.value, drawn.low, drawn.high)


def test_a_mean_of_many_samples_gets_students_interval_and_says_so() -> None:
    rng = random.Random(5)
    samples = [rng.gauss(100, 10) for _ in range(10_000)]
    many = bootstrap_interval(samples, "mean")
    assert many.method == "student t"
    assert many.high - many.low == pytest.approx(
        2 * 1.96 * statistics.stdev(samples) / 100, rel=0.01
    )


def test_an_interval_is_the_same_for_the_same_seed() -> None:
    samples = [1.0, 2.0, 3.5, 9.0, 11.0, 14.0, 21.0, 22.0]
    once, again, other = (bootstrap_interval(samples, "mean", seed=seed) for seed in (3, 3, 4))
    assert once == again != other


@given(st.lists(FINITE, min_size=3, max_size=40))
def test_an_interval_surrounds_its_median_within_the_samples(samples: list[float]) -> None:
    interval = bootstrap_interval(samples, resamples=200)
    assert min(samples) <= interval.low <= interval.high <= max(samples)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"confidence": 1.0}, "confidence"),
        ({"resamples": 10}, "resamples"),
        ({"statistic": "mode"}, "statistic"),
    ],
)
def test_bad_options_of_an_interval_are_refused(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        bootstrap_interval([1.0, 2.0, 3.0], **options)  # type: ignore[arg-type]


def test_a_p99_has_an_upper_bound_from_368_samples_on() -> None:
    assert percentile_interval(range(367), 99).high is None
    assert percentile_interval(range(368), 99).high == 367


def test_ranks_around_a_median_are_those_of_the_tables() -> None:
    # Ten samples: the 2nd and the 9th hold the median with 97.9 %, the 3rd and 8th with 89 %.
    interval = percentile_interval(range(1, 11), 50)
    assert (interval.low, interval.high) == (2, 9)
    assert percentile_interval(range(1, 6), 50).low is None
    interval = percentile_interval(range(1_000_000), 50)
    assert interval.low == pytest.approx(500_000 - 980, abs=2)
    assert interval.high == pytest.approx(500_000 + 980, abs=2)


def test_intervals_of_a_p95_cover_it_whatever_the_distribution() -> None:
    rng = random.Random(13)
    truth = -math.log(0.05)
    held = sum(
        holds(percentile_interval([rng.expovariate(1) for _ in range(300)], 95), truth)
        for _ in range(300)
    )
    assert held >= 280


@pytest.mark.parametrize("q", [0, 100])
def test_extremes_have_no_interval(q: float) -> None:
    with pytest.raises(ValueError, match="extreme"):
        percentile_interval([1.0, 2.0], q)


def test_a_ratio_of_parts_that_are_never_negative_has_no_negative_end() -> None:
    found = ratio_interval([0.0, 0.0, 0.9, 0.0], [1.0, 1.0, 1.0, 1.0])
    assert (found.value, found.low) == (0.225, 0.0)
    assert found.high is not None
    assert found.high > 0.225
    changes = ratio_interval([-1.0, 1.0, 2.0], [1.0, 1.0, 1.0])
    assert changes.low is not None
    assert changes.low < 0


def test_the_interval_of_a_high_percentile_of_few_samples_holds_its_value() -> None:
    found = percentile_interval([1.0, 4.5], 99)
    assert (found.low, found.value, found.high) == (4.465, 4.465, None)
