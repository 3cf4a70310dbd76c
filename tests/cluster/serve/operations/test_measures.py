"""Counts, histograms and quantiles of requests, under a clock of the test's own."""

import random

import pytest

from cluster.serve.operations.measures import (
    FINE_S,
    LATENCY_S,
    MODELS_MAX,
    OTHER,
    Histogram,
    Measures,
    quantile,
)


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def measures(clock):
    return Measures(clock)


def test_buckets_for_prometheus_are_cumulative_and_sum_up_to_all_values():
    histogram = Histogram(FINE_S)
    values = [0.0, 0.0005, 0.001, 0.0011, 0.03, 29.9, 30.0, 31.0]
    for value in values:
        histogram.add(value)
    buckets = histogram.cumulative(LATENCY_S)
    expected = [(str(b), sum(v <= b for v in values)) for b in LATENCY_S]
    assert buckets == [*expected, ("+Inf", len(values))]
    assert histogram.total == pytest.approx(sum(values))


def test_every_bound_for_prometheus_is_one_of_the_finer_ones():
    assert set(LATENCY_S) <= set(FINE_S)
    assert list(FINE_S) == sorted(set(FINE_S))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantiles_are_right_within_a_tenth(share):
    chance = random.Random(7)
    values = sorted(chance.lognormvariate(-4, 1) for _ in range(5_000))
    histogram = Histogram(FINE_S)
    for value in values:
        histogram.add(value)
    found = quantile(histogram.counts, FINE_S, share)
    assert found == pytest.approx(values[int(share * len(values))], rel=0.1)


def test_a_quantile_of_nothing_is_unknown_and_one_beyond_the_last_bound_is_that_bound():
    histogram = Histogram(FINE_S)
    assert quantile(histogram.counts, FINE_S, 0.5) is None
    histogram.add(100.0)
    assert quantile(histogram.counts, FINE_S, 0.5) == 30.0


def test_recent_figures_are_unknown_at_first_and_then_of_the_time_between(measures, clock):
    measures.observe("digits", "v2", 200, 0.002, 0.0, 1)
    everything, _ = measures.recent()
    assert (everything.total, everything.per_s, everything.p50_s) == (1, None, None)
    for code in (200, 200, 200, 429, 503):
        measures.observe("digits", "v2", code, 0.02, 0.001, 1)
    clock.now_s += 5
    everything, by_pair = measures.recent()
    assert everything == by_pair["digits", "v2"]
    assert everything.total == 6
    assert everything.window_s == 5
    assert everything.per_s == pytest.approx(1.0)
    assert everything.errors_per_s == everything.refused_per_s == pytest.approx(0.2)
    assert everything.p50_s == pytest.approx(0.02, rel=0.1)


def test_recent_figures_forget_what_is_older_than_the_window(measures, clock):
    for second in range(60):
        clock.now_s += 1
        measures.observe("digits", "v2", 200, 1.0 if second < 30 else 0.01, 0.0, 1)
        measures.recent()
    everything, _ = measures.recent()
    assert 9 <= everything.window_s <= 11
    assert everything.p99_s == pytest.approx(0.01, rel=0.2)


def test_after_a_long_silence_nothing_is_known_until_the_second_look(measures, clock):
    measures.recent()
    clock.now_s += 3_600
    assert measures.recent()[0].window_s is None
    clock.now_s += 1
    assert measures.recent()[0].window_s == 1


def test_two_who_look_at_once_see_the_same_window(measures, clock):
    measures.recent()
    for _ in range(30):
        clock.now_s += 0.25
        measures.observe("digits", "v2", 200, 0.01, 0.0, 1)
        assert measures.recent() == measures.recent()
    assert measures.recent()[0].window_s > 5


def counted(measures):
    return {(*pair, code): n for pair, s in measures.series.items() for code, n in s.codes.items()}


def test_a_refusal_is_counted_but_has_no_latency(measures):
    measures.observe("digits", "v2", 200, 0.01, 0.0, 1)
    measures.observe("digits", "v2", 429, 0.0001, 0.0, 1)
    assert counted(measures) == {("digits", "v2", 200): 1, ("digits", "v2", 429): 1}
    assert sum(measures.series["digits", "v2"].latency.counts) == 1


def test_names_that_only_refused_requests_had_share_one_label(measures):
    for number in range(1_000):
        measures.observe(f"guess-{number}", "v2", 404, 0.001, 0.0, 1)
    measures.observe("", "v2", 503, 0.001, 0.0, 1)
    measures.observe("digits", "v2", 200, 0.001, 0.0, 1)
    measures.observe("digits", "openai", 400, 0.001, 0.0, 1)
    assert counted(measures) == {
        (OTHER, "v2", 404): 1_000,
        (OTHER, "v2", 503): 1,
        ("digits", "v2", 200): 1,
        ("digits", "openai", 400): 1,
    }


def test_names_of_models_beyond_the_bound_share_one_label(measures):
    for number in range(10 * MODELS_MAX):
        measures.observe(f"m{number}", "v2", 200, 0.001, 0.0, 1)
    assert len(measures.series) == MODELS_MAX + 1
    assert counted(measures)[OTHER, "v2", 200] == 9 * MODELS_MAX
