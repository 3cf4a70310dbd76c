"""Arrivals of an open loop: their rate, their randomness, and the tasks they bring."""

import random
from itertools import pairwise
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.bench.workloads.arrivals import PROCESSES, waiting_work
from perfkit.bench.workloads.load import ExperimentError


@given(
    name=st.sampled_from(sorted(PROCESSES)),
    tasks=st.integers(1, 300),
    rate=st.floats(0.1, 1e5),
    seed=st.integers(0, 9),
)
def test_arrivals_are_in_order_at_their_rate_and_follow_from_the_seed(
    name: str, tasks: int, rate: float, seed: int
) -> None:
    at_s = PROCESSES[name](tasks, rate, random.Random(seed))
    assert len(at_s) == tasks
    assert at_s == sorted(at_s)
    assert at_s[0] >= 0
    assert at_s[-1] == pytest.approx(tasks / rate)
    assert at_s == PROCESSES[name](tasks, rate, random.Random(seed))


def test_poisson_gaps_vary_as_exponential_ones_and_bursts_more() -> None:
    spread = {}
    for name, arrivals in PROCESSES.items():
        at_s = arrivals(20_000, 1_000.0, random.Random(1))
        gaps = [after - before for before, after in pairwise(at_s)]
        spread[name] = pvariance(gaps) / fmean(gaps) ** 2  # 1 for exponential gaps
    assert spread["poisson"] == pytest.approx(1.0, rel=0.05)
    assert spread["bursty"] > 3


def test_waiting_tasks_differ_and_ask_for_the_same_time() -> None:
    work = waiting_work(100, 0.002)
    assert len(set(work.payloads)) == 100
    assert all(float(payload) == pytest.approx(0.002, abs=1e-6) for payload in work.payloads)
    assert work.expected == work.payloads
    with pytest.raises(ExperimentError, match=r"a service time of 0 s is none"):
        waiting_work(1, 0.0)
