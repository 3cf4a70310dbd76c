"""Waterfalls of traces with known hops."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.profile.latency import STAGES, waterfall

SECONDS = st.floats(0, 10, allow_nan=False)


def trace(stages: Sequence[float], start: float = 1000.0) -> list[float]:
    """The stamps of a task that took these stages."""
    at = [start]
    for stage in stages:
        at.append(at[-1] + stage)
    return at


def some_traces(count: int) -> list[list[float]]:
    """Traces with hops of 0.1 ms and more, a queue wait of up to 5 ms and a service of 10 ms."""
    rng = random.Random(1)

    def hop() -> float:
        return 1e-4 + rng.expovariate(2e4)

    return [
        trace([hop(), rng.uniform(0, 5e-3), hop(), 0.01, hop(), hop()], 1000.0 + i)
        for i in range(count)
    ]


def test_stages_are_told_apart_with_intervals() -> None:
    result = waterfall(some_traces(400))
    assert [stage.stage for stage in result.stages] == list(STAGES)
    assert (result.traces, result.left_out) == (400, {})
    service, wait = result.stages[3], result.stages[1]
    assert service.p50_ms.value == pytest.approx(10)
    for figure, truth in ((wait.p50_ms, 2.5), (wait.p95_ms, 4.75), (service.share, 10 / 13.1)):
        assert figure.low < truth < figure.high
    assert sum(stage.share.value or 0 for stage in result.stages) == pytest.approx(1)
    assert result.end_to_end.share.value == pytest.approx(1)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e6, allow_nan=False), *[SECONDS] * 6), min_size=5, max_size=30)
)
def test_stages_add_up_to_the_latency_exactly(rows: list[tuple[float, ...]]) -> None:
    traces = [trace(row[1:], start=row[0]) for row in rows]
    result = waterfall(traces)
    assert result.traces == len(traces)
    for stamps, intervals in zip(traces, result.intervals_ns, strict=True):
        assert sum(intervals) == round(stamps[6] * 1e9) - round(stamps[0] * 1e9)
        assert min(intervals) >= 0


def test_a_frame_and_html_hold_the_stages_and_the_whole() -> None:
    result = waterfall([*some_traces(30), (1.0, None, None, None, None, None, None)])
    frame = result.to_frame()
    assert list(frame["stage"]) == [*STAGES, "end to end"]
    assert frame["p50_ms"].iloc[3] == pytest.approx(10)
    assert {"p95_ms_low", "share_high"} <= set(frame.columns)
    html = result._repr_html_()
    assert "queue wait" in html
    assert "1 trace left out: incomplete" in html
    assert "or more)" in html, "30 traces do not bound a 95th percentile from above"


@pytest.mark.parametrize("traces", [[], [trace([0] * 6)] * 3], ids=["no traces", "no time"])
def test_without_time_there_are_no_shares(traces: list[list[float]]) -> None:
    result = waterfall(traces)
    assert result.traces == len(traces)
    assert result.end_to_end.p50_ms.value == (0 if traces else None)
    assert result.stages[0].share.value is None
    assert "unknown" in result._repr_html_()


@pytest.mark.parametrize(
    ("stamps", "reason"),
    [
        ((1.0, 2.0), "incomplete: a stamp is missing"),
        ((1.0, 2.0, 3.0, None, 4.0, 5.0, 6.0), "incomplete: a stamp is missing"),
        ((1.0, 2.0, 3.0, math.nan, 4.0, 5.0, 6.0), "a stamp is not a possible time"),
        ((1.0, 2.0, 3.0, 1e300, 4.0, 5.0, 6.0), "a stamp is not a possible time"),
        ((1.0, 4.0, 3.0, 4.0, 5.0, 6.0, 7.0), "queue wait is negative"),
        ((1.0, 2.0, 3.0, 5.0, 4.0, 6.0, 7.0), "service is negative"),
        ((1.0, 2.0, 3.0, 4.0, 5.0, 4.5, 7.0), "result hop is negative"),
    ],
)
def test_a_trace_that_cannot_be_right_is_left_out_and_counted(
    stamps: tuple[float | None, ...], reason: str
) -> None:
    result = waterfall([*some_traces(3), stamps])
    assert (result.traces, result.left_out) == (3, {reason: 1})
