"""Waterfalls of traces with known hops and clocks, and the sampler that chooses what to trace."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perfkit.profile
from perfkit.profile import Switch
from perfkit.profile.latency import (
    STAGES,
    LatencySampler,
    Offsets,
    Trace,
    estimate_offsets,
    waterfall,
)

SECONDS = st.floats(0, 10, allow_nan=False)


def trace(
    stages: Sequence[float],
    start: float = 1000.0,
    client: float = 0.0,
    worker: float = 0.0,
    name: str | None = None,
) -> Trace:
    """A trace of six stages, whose client and worker clocks are behind by so many seconds."""
    at = [start]
    for stage in stages:
        at.append(at[-1] + stage)
    return Trace(
        at[0] - client, at[1], at[2], at[3] - worker, at[4] - worker, at[5], at[6] - client, name
    )


def some_traces(count: int, seed: int = 1, **clocks: float) -> list[Trace]:
    """Traces with hops of 0.1 ms and more, a queue wait of up to 5 ms and a service of 10 ms."""
    rng = random.Random(seed)
    return [
        trace(
            [
                1e-4 + rng.expovariate(2e4),
                rng.uniform(0, 5e-3),
                1e-4 + rng.expovariate(2e4),
                0.01,
                1e-4 + rng.expovariate(2e4),
                1e-4 + rng.expovariate(2e4),
            ],
            start=1000.0 + i,
            **clocks,
        )
        for i in range(count)
    ]


def test_stages_are_told_apart_with_intervals() -> None:
    result = waterfall(some_traces(400))

    assert [stage.stage for stage in result.stages] == list(STAGES)
    assert (result.traces, result.left_out, result.offsets) == (400, {}, None)
    service, wait = result.stages[3], result.stages[1]
    assert service.p50_ms.value == pytest.approx(10)
    assert wait.p50_ms.low is not None
    assert wait.p50_ms.high is not None
    assert wait.p50_ms.low < 2.5 < wait.p50_ms.high
    assert wait.p95_ms.low is not None
    assert wait.p95_ms.high is not None
    assert wait.p95_ms.low < 4.75 < wait.p95_ms.high
    assert sum(stage.share.value or 0 for stage in result.stages) == pytest.approx(1)
    assert service.share.low is not None
    assert service.share.high is not None
    assert service.share.low < 10 / 13.1 < service.share.high
    assert result.end_to_end.share.value == pytest.approx(1)
    assert "one host" in result.clock_note


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e6, allow_nan=False), *[SECONDS] * 6), min_size=5, max_size=30)
)
def test_stages_add_up_to_the_latency_exactly(rows: list[tuple[float, ...]]) -> None:
    traces = [trace(row[1:], start=row[0]) for row in rows]
    result = waterfall(traces)
    assert result.traces == len(traces)
    for stamps, intervals in zip(traces, result.intervals_ns, strict=True):
        assert stamps.client_send is not None
        assert stamps.client_receive is not None
        whole_ns = round(stamps.client_receive * 1e9) - round(stamps.client_send * 1e9)
        assert sum(intervals) == whole_ns
        assert min(intervals) >= 0


def test_a_frame_and_html_hold_the_stages_and_the_whole() -> None:
    result = waterfall([*some_traces(30), (1.0, None, None, None, None, None, None)])
    frame = result.to_frame()
    assert list(frame["stage"]) == [*STAGES, "end to end"]
    assert frame["p50_ms"].iloc[3] == pytest.approx(10)
    assert {"p95_low_ms", "share_high"} <= set(frame.columns)
    html = result._repr_html_()
    assert "queue wait" in html
    assert "1 traces left out: incomplete" in html
    assert "to unknown)" in html, "30 traces do not bound a 95th percentile from above"


def test_no_traces_leave_every_figure_unknown() -> None:
    result = waterfall([])
    assert result.traces == 0
    assert result.end_to_end.p50_ms.value is None
    assert result.stages[0].share.value is None
    assert "unknown" in result._repr_html_()


def test_tasks_that_took_no_time_have_no_shares() -> None:
    result = waterfall([trace([0] * 6)] * 3)
    assert result.end_to_end.p50_ms.value == 0
    assert result.stages[0].share.value is None


@pytest.mark.parametrize(
    ("stamps", "reason"),
    [
        ((1.0, 2.0), "incomplete: a stamp is missing"),
        ((1.0, 2.0, 3.0, None, 4.0, 5.0, 6.0), "incomplete: a stamp is missing"),
        ((1.0, 2.0, 3.0, math.nan, 4.0, 5.0, 6.0), "a stamp is not a possible time"),
        ((1.0, 2.0, 3.0, 1e300, 4.0, 5.0, 6.0), "a stamp is not a possible time"),
        ((9.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0), "the client's own clock runs backwards"),
        ((1.0, 4.0, 3.0, 4.0, 5.0, 6.0, 7.0), "the coordinator's own clock runs backwards"),
        ((1.0, 2.0, 3.0, 4.0, 5.0, 2.5, 7.0), "the coordinator's own clock runs backwards"),
        ((1.0, 2.0, 3.0, 5.0, 4.0, 6.0, 7.0), "the worker's own clock runs backwards"),
        ((1.0, 0.5, 3.0, 4.0, 5.0, 6.0, 7.0), "submit hop is negative"),
        ((1.0, 2.0, 3.0, 4.0, 5.0, 4.5, 7.0), "result hop is negative"),
    ],
)
def test_a_trace_that_cannot_be_right_is_left_out_and_counted(
    stamps: tuple[float | None, ...], reason: str
) -> None:
    result = waterfall([*some_traces(3), stamps])
    assert result.traces == 3
    ((why, count),) = result.left_out.items()
    assert why.startswith(reason)
    assert count == 1


def test_offsets_between_hosts_are_found_within_their_uncertainty() -> None:
    traces = some_traces(300, client=5.0, worker=-70.0)
    offsets = estimate_offsets(traces)

    assert offsets.client_s == pytest.approx(5.0, abs=offsets.client_uncertainty_s)
    assert offsets.worker_s == pytest.approx(-70.0, abs=offsets.worker_uncertainty_s)
    assert offsets.client_uncertainty_s == pytest.approx(1e-4, abs=2e-5)
    assert (offsets.traces, offsets.by_worker) == (300, {})


@given(
    st.lists(st.tuples(*[st.floats(1e-6, 1.0)] * 6), min_size=1, max_size=8),
    st.floats(-1e5, 1e5),
    st.floats(-1e5, 1e5),
)
def test_the_true_offset_is_never_outside_of_the_uncertainty(
    rows: list[tuple[float, ...]], client: float, worker: float
) -> None:
    traces = [trace(row, 10.0 * i, client, worker) for i, row in enumerate(rows)]
    offsets = estimate_offsets(traces)
    rounding = 1e-8
    assert offsets.worker_s is not None
    assert offsets.worker_uncertainty_s is not None
    assert abs(offsets.client_s - client) <= offsets.client_uncertainty_s + rounding
    assert abs(offsets.worker_s - worker) <= offsets.worker_uncertainty_s + rounding


def test_an_offset_cancels_in_the_whole() -> None:
    traces = some_traces(20, client=123.456, worker=-0.789)
    result = waterfall(traces, same_host=False)
    for stamps, intervals in zip(traces, result.intervals_ns, strict=True):
        assert stamps.client_send is not None
        assert stamps.client_receive is not None
        whole_ns = round(stamps.client_receive * 1e9) - round(stamps.client_send * 1e9)
        assert sum(intervals) == whole_ns


def test_each_worker_has_a_clock_of_its_own() -> None:
    stages = [2e-4, 0.0, 1e-4, 0.01, 3e-4, 2e-4]
    traces = [
        trace(stages, client=1.0, worker=8.0, name="a"),
        trace(stages, client=1.0, worker=-8.0, name="b"),
    ]
    offsets = estimate_offsets(traces)

    assert (offsets.worker_s, offsets.worker_uncertainty_s) == (None, None)
    assert offsets.by_worker["a"].offset_s == pytest.approx(8.0001)
    assert offsets.by_worker["b"].offset_s == pytest.approx(-7.9999)
    assert offsets.by_worker["a"].uncertainty_s == pytest.approx(2e-4)
    text = offsets.describe()
    assert "from 2 traces: client +1000.000 ± 0.200 ms" in text
    assert "worker a +8000.100 ± 0.200 ms" in text
    result = waterfall([*traces, trace(stages, name="c")], same_host=False, offsets=offsets)
    assert result.left_out == {"no clock offset is known for its worker": 1}


def test_unknown_offsets_are_estimated_when_the_hosts_differ() -> None:
    traces = some_traces(100, client=30.0, worker=2.0)
    result = waterfall(traces, same_host=False)
    assert result.traces == 100
    assert result.offsets is not None
    assert "client +30000" in result.clock_note
    assert "workers +2" in result.clock_note
    assert result.stages[3].p50_ms.value == pytest.approx(10)
    assert waterfall(traces).traces == 0, "taken for one host's, such traces are impossible"


def test_a_hop_may_be_negative_by_the_uncertainty_and_no_more() -> None:
    offsets = Offsets(0.0, 0.0, client_uncertainty_s=0.001, worker_uncertainty_s=0.001)
    late = trace([-0.0009, 0.0, 0.0, 0.01, 0.0, 0.002])
    too_late = trace([-0.0011, 0.0, 0.0, 0.01, 0.0, 0.002])
    result = waterfall([late, too_late], offsets)
    assert result.traces == 1
    assert result.intervals_ns[0][0] == pytest.approx(-900_000, abs=2)
    assert result.left_out == {"submit hop is negative beyond the clocks' uncertainty": 1}


def test_a_clock_that_drifted_too_far_is_an_error() -> None:
    early = trace([1e-4, 0, 1e-4, 0.01, 1e-4, 1e-4], client=0.0)
    late = trace([1e-4, 0, 1e-4, 0.01, 1e-4, 1e-4], client=1.0)
    with pytest.raises(ValueError, match=r"clock of the client moved by at least 999\.8"):
        estimate_offsets([early, late])
    named = [trace([1e-4, 0, 1e-4, 0.01, 1e-4, 1e-4], worker=w, name="w7") for w in (0.0, 1.0)]
    with pytest.raises(ValueError, match="clock of w7 moved"):
        estimate_offsets(named)


def test_offsets_need_a_trace() -> None:
    with pytest.raises(ValueError, match="No trace has all its stamps"):
        estimate_offsets([(1.0, None, 2.0, 3.0, 4.0, 5.0, 6.0)])


@given(st.integers(1, 200), st.integers(0, 2**63), st.integers(0, 1000))
def test_one_task_in_each_row_is_traced(every: int, seed: int, row: int) -> None:
    sampler = LatencySampler(every=every, seed=seed)
    positions = range(row * every, (row + 1) * every)
    chosen = [position for position in positions if sampler.wants(position)]
    assert len(chosen) == 1
    assert chosen == [p for p in positions if LatencySampler(every, seed=seed).wants(p)]


def test_the_traced_task_is_not_always_at_the_same_place() -> None:
    sampler = LatencySampler(every=100)
    places = {position % 100 for position in range(20_000) if sampler.wants(position)}
    assert len(places) > 50


def test_the_store_is_bounded_and_fair() -> None:
    sampler = LatencySampler(limit=100, seed=3)
    for i in range(10_000):
        sampler.add(trace([0.0] * 6, start=float(i)))
    starts = [kept.client_send or 0.0 for kept in sampler.traces]
    assert (len(starts), len(set(starts)), sampler.seen) == (100, 100, 10_000)
    assert 3500 < sum(starts) / 100 < 6500
    again = LatencySampler(limit=100, seed=3)
    for i in range(10_000):
        again.add(trace([0.0] * 6, start=float(i)))
    assert again.traces == sampler.traces


def test_stamps_from_the_wire_become_traces() -> None:
    sampler = LatencySampler()
    sampler.add([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    sampler.add([1.0, 2.0, None, None, None, None, None])
    assert sampler.traces[0] == Trace(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    assert waterfall(sampler.traces).left_out == {"incomplete: a stamp is missing": 1}
    with pytest.raises(ValueError, match="A trace has 7 stamps, not 6"):
        sampler.add([1.0] * 6)


@pytest.mark.parametrize(("every", "limit"), [(0, 1), (1, 0)])
def test_a_sampler_needs_room_and_a_rate(every: int, limit: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        LatencySampler(every, limit)


@pytest.mark.parametrize(
    ("value", "on"), [("0", False), (" OFF ", False), ("no", False), ("1", True), ("", True)]
)
def test_the_environment_switches_the_instruments_off(value: str, on: bool) -> None:
    assert Switch({"PERFKIT_PROFILE": value}).on is on
    assert Switch({}).on is True


def test_every_public_name_is_found_and_no_other() -> None:
    for name in perfkit.profile.__all__:
        assert getattr(perfkit.profile, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'profile_gpu'"):
        perfkit.profile.profile_gpu  # noqa: B018


def test_stamping_tasks_loads_no_profiler_and_no_numbers_library() -> None:
    code = (
        "import sys; from perfkit.profile import LatencySampler;"
        "print([m for m in ('cProfile', 'psutil', 'numpy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.stdout.strip() == "[]", done.stderr
