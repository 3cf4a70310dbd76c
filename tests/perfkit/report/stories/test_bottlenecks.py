"""The busiest functions of a coordinator: waiting is left out, intervals are over the runs."""

import pytest

from perfkit.profile.cpu import CpuProfile
from perfkit.report.stories.bottlenecks import bottlenecks


def profile(*rows: tuple[str, str, float]) -> CpuProfile:
    table = {(file, 1, name): (4, 4, own_s, own_s, {}) for file, name, own_s in rows}
    return CpuProfile("coordinator", table)


RUNS = [
    profile(
        ("zmq/sugar/poll.py", "poll", 8.0 * speed),
        ("~", "<method 'poll' of 'select.poll' objects>", 1.0 * speed),
        ("cluster/protocol/codec.py", "_pack", 1.0 * speed),
        ("cluster/core/run.py", "poll", 2.0 * speed),
        ("~", "<built-in method len>", 1.0 * speed),
    )
    for speed in (1.0, 2.0, 3.0)
]


def test_waiting_is_no_bottleneck() -> None:
    hot = bottlenecks(RUNS, tasks=2, limit=2)
    assert next(function.place for function in hot.functions) == "cluster.core.run: poll"
    assert (len(hot.functions), hot.runs) == (2, 3)
    assert (hot.busy_us.value, hot.waiting_us.value) == (4e6, 9e6)
    shown = hot._repr_html_()
    assert "zmq/sugar" not in shown
    assert "<td>poll</td><td>cluster/core/run.py:1</td><td>2</td>" in shown


def test_a_hot_function_has_intervals_over_the_runs() -> None:
    (first,) = bottlenecks(RUNS, tasks=2, limit=1).functions
    assert first.own_us.value == 2e6
    assert (first.own_us.low, first.own_us.high) == (1e6, 3e6)
    assert first.share.value == 0.5
    (bar,) = bottlenecks(RUNS, tasks=2, limit=1).bars()
    assert (bar.value, bar.low, bar.high) == (2e6, 1e6, 3e6)


def test_a_function_that_one_run_never_called_took_no_time_there() -> None:
    rare = profile(("cluster/rare.py", "f", 3.0))
    found = {f.function: f for f in bottlenecks([*RUNS, rare], tasks=1).functions}
    assert found["f"].own_us.value == 0.0
    assert found["f"].calls_per_task == 1.0


def test_one_profile_gives_no_interval_and_none_is_refused() -> None:
    (first, *_) = bottlenecks(RUNS[:1], tasks=2).functions
    assert (first.own_us.low, first.own_us.high) == (None, None)
    idle = bottlenecks([profile(("cluster/core/run.py", "f", 0.0))], tasks=1)
    assert idle.functions[0].share.value is None
    assert "unknown" in idle._repr_html_()
    with pytest.raises(ValueError, match="at least one profile"):
        bottlenecks([], tasks=1)
