"""Latency in an open loop: a real curve, a sender that is late, and intervals that allow for it."""

import random
from typing import Any

import pytest

from cluster import BASELINE
from cluster.shells.client import Client
from perfkit.bench.experiments import open_loop
from perfkit.bench.experiments.catalogue import judged, run
from perfkit.bench.experiments.open_loop import Point, blocked_quantiles, capacity_rates, knee
from perfkit.bench.workloads.arrivals import waiting_work
from perfkit.bench.workloads.load import WrongResult
from perfkit.engines import make_engine
from perfkit.evidence.results import Result, decode, encode
from perfkit.evidence.samples import percentile_interval
from perfkit.evidence.verdicts import Verdict

TASKS = 30


@pytest.fixture(scope="module")
def curve() -> Result:
    return run("load", spec=BASELINE, workers=2, tasks=TASKS, seed=3)


def test_the_curve_has_a_row_for_each_share_and_process(curve: Result) -> None:
    series = curve.series
    assert series["share"] == [0.2, 0.5, 0.8, 0.95] * 2
    assert series["bursty"] == [0.0] * 4 + [1.0] * 4
    rows = [name for name in series if name.startswith(("p50_", "p95_", "p99_"))]
    assert {len(series[name]) for name in ["offered_per_s", "achieved_per_s", *rows]} == {8}
    capacity = curve.counters["capacity_per_s"]
    offered = [share * capacity for share in series["share"]]
    assert series["offered_per_s"] == pytest.approx(offered)
    assert decode(encode(curve)) == curve


def test_every_latency_is_saved_and_holds_the_service_time(curve: Result) -> None:
    raw = [name for name in curve.series if name.startswith("latency_ms_")]
    assert len(raw) == 8
    assert {len(curve.series[name]) for name in raw} == {TASKS}
    assert min(curve.samples) >= open_loop.SERVICE_S * 1e3
    assert curve.samples == curve.series["latency_ms_poisson_50"]


def test_a_percentile_plot_ends_where_the_samples_do(curve: Result) -> None:
    axis, plot = curve.series["percentile"], curve.series["quantile_ms_poisson_50"]
    if curve.series["valid"][1]:
        known = [ms for ms in plot if ms is not None]
        assert known == sorted(known)
        assert [q for q, ms in zip(axis, plot, strict=True) if ms is not None][-1] < 100 - 1e2 / 31
    else:
        assert set(plot) == {None}


def test_the_figure_is_judged_by_the_goal_of_ten_milliseconds(curve: Result) -> None:
    (found,) = judged(curve)
    assert (found.goal.goal, found.figure.value) == (10.0, curve.value)


def test_a_late_sender_makes_a_point_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_loop, "LAG_MS_MAX", -1.0)
    monkeypatch.setattr(open_loop, "LAG_SHARE_MAX", 0.0)
    result = run("load", spec=BASELINE, workers=1, tasks=10)
    assert result.counters["points_with_late_sender"] == result.counters["points"] == 8
    assert (result.value, result.low, result.high) == (None, None, None)
    assert set(result.series["p95_ms"]) == {None}
    assert result.counters["knee_percent_poisson"] is None
    assert judged(result)[0].verdict is Verdict.INCONCLUSIVE
    assert len(result.samples) == 10  # what was measured is kept


def test_a_wrong_answer_makes_no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    truly = Client.submit
    asked = iter(range(10**9))

    def submit_another(self: Client, kind: str, payload: Any, **options: Any) -> Any:
        # In the curve, after the blocks that measured the capacity.
        return truly(self, kind, b"0.001" if next(asked) == 100 else payload, **options)

    monkeypatch.setattr(Client, "submit", submit_another)
    with pytest.raises(WrongResult, match=r"sleep task \d of 10 gave b'0.001' .* for nothing"):
        run("load", spec=BASELINE, workers=1, tasks=10)


def test_one_worker_bears_no_more_than_its_service_time_allows() -> None:
    with make_engine("local", workers=1) as engine:
        rates = capacity_rates(engine, waiting_work(20, 0.01), lambda _: None)
    assert len(rates) == open_loop.CAPACITY_BLOCKS
    assert max(rates) <= 100


def test_intervals_of_neighbours_that_are_alike_are_wider_than_of_independent_ones() -> None:
    rng = random.Random(1)
    alike = [level for _ in range(10) for level in [rng.random()] * 100]
    mixed = rng.sample(alike, len(alike))
    widths = []
    for samples in (alike, mixed):
        p50 = blocked_quantiles([samples], seed=0)[0]
        alone = percentile_interval(samples, 50)
        assert p50.value == alone.value
        assert p50.low <= alone.low <= alone.high <= p50.high
        widths.append(p50.high - p50.low)
    assert widths[0] > 1.5 * widths[1]


def test_an_end_that_the_samples_cannot_know_is_unknown() -> None:
    p50, p95, p99, p999 = blocked_quantiles([[float(n) for n in range(100)]], seed=0)
    assert None not in (p50.low, p50.high, p95.low, p95.high)
    assert (p99.high, p999.high) == (None, None)


def test_the_knee_has_the_most_load_per_latency() -> None:
    points = [
        Point("poisson", share, 10.0 * share, [], [0.0], [[float(ms)] * 4])
        for share, ms in ((20, 2), (50, 3), (80, 4), (95, 40))
    ]
    assert knee(points, "poisson") == 80
    points[3].lags_ms = [100.0]
    assert knee(points, "poisson") is None
