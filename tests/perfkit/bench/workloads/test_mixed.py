"""Slow tasks among quick ones: the load from its seed, and free workers meanwhile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import BASELINE, LocalCluster
from perfkit.bench.workloads.mixed import RATE_PER_S, SLOW_S, free_workers, mixed_load, open_loop_ms


@given(st.integers(1, 2_000), st.integers(0, 100))
def test_a_hundredth_are_slow_and_no_two_payloads_are_equal(tasks: int, seed: int) -> None:
    load = mixed_load(tasks, seed)
    assert load == mixed_load(tasks, seed)
    assert len(load.slow) == -(-tasks // 100)
    assert len(set(load.work.payloads)) == tasks
    for position, payload in enumerate(load.work.payloads):
        assert float(payload) == (SLOW_S if position in load.slow else 0.0)
    assert list(load.at_s) == sorted(load.at_s)


def test_arrivals_keep_their_rate() -> None:
    load = mixed_load(20_000, seed=1)
    assert load.at_s[-1] == pytest.approx(20_000 / RATE_PER_S, rel=0.05)


def test_a_schedule_that_never_idles_is_through_by_grahams_bound() -> None:
    load = mixed_load(4_000, seed=1)
    assert load.conserving_s(1) == pytest.approx(40 * SLOW_S)
    assert load.conserving_s(4) == pytest.approx(10 * SLOW_S + 0.75 * SLOW_S)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=8),
    st.floats(0, 15),
    st.integers(1, 4),
)
def test_free_workers_are_those_without_a_slow_task(
    starts: list[tuple[float, float]], at_s: float, workers: int
) -> None:
    taken = [(start, start + length) for start, length in starts]
    busy = [one for one in taken if one[0] <= at_s < one[1]]
    free = free_workers(workers, taken, at_s)
    assert 0 <= free <= workers
    assert free == max(workers - len(busy), 0)
    assert free_workers(workers, [*taken, (at_s, at_s + 1)], at_s) == max(free - 1, 0)


def test_quick_tasks_count_only_while_enough_workers_are_free() -> None:
    load = mixed_load(60, seed=2)
    with LocalCluster(2, BASELINE) as local, local.client() as client:
        every = open_loop_ms(client, load, workers=2, free=0)
        some = open_loop_ms(client, load, workers=2, free=2)
        none = open_loop_ms(client, load, workers=2, free=3)
    assert len(every) == 59
    assert 0 < len(some) < 59  # some arrive during the slow one's 100 ms
    assert none == []
    assert min(every) > 0
