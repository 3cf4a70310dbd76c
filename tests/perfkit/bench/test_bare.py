"""The bare brokers: right results from real processes, none of which is left afterwards."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.spec import BASELINE
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.bare import Forwarder, Messenger, PackedBroker, RawLink, brokers
from perfkit.bench.bare.brokers import Bare
from perfkit.bench.bare.processes import (
    PRIORITIES,
    TASKS_PER_FRAME,
    next_jobs,
    pack,
    unpack_jobs,
    unpack_outcomes,
    unpack_tasks,
)
from perfkit.bench.workloads.load import ExperimentError, Work, WrongResult, echo_work
from perfkit.optimized.specs import OPTIMIZED

WORK = echo_work(1_050, seed=3)
BIG = echo_work(5, seed=3, payload_bytes=100_000)


def drives(bare: Any) -> Sequence[Callable[[Work], object]]:
    """Each way to load a bare broker."""
    if isinstance(bare, PackedBroker):
        return [bare.map_s]
    if isinstance(bare, RawLink):
        return [bare.send_s]
    if isinstance(bare, Messenger):
        return [bare.one_by_one_ms]
    return [lambda work: bare.stream_s(work, 100), bare.one_by_one_ms]


@pytest.mark.parametrize(
    ("make", "processes"),
    [
        (lambda: PackedBroker(2), 3),
        (lambda: Forwarder(2), 3),
        (lambda: Forwarder(1, uncopied=True), 2),
        (RawLink, 1),
        (lambda: Messenger(BASELINE.codec), 2),
        (lambda: Messenger(OPTIMIZED.codec), 2),
    ],
    ids=["packed", "forwarder", "uncopied", "raw", "messages", "packed messages"],
)
def test_results_are_right_and_no_process_is_left(make: Callable[[], Bare], processes: int) -> None:
    with make() as bare:
        running = [psutil.Process(pid) for pid in bare.pids]
        assert len(running) == processes
        for drive in drives(bare):
            for work in (WORK, BIG, WORK.part(0, 1)):
                assert drive(work)
                with pytest.raises((WrongResult, ExperimentError)):
                    drive(replace(work, expected=[*work.expected[:-1], b"another"]))
                assert drive(work)  # and goes on as if nothing had been
    assert not any(process.is_running() for process in running)


def test_a_dead_broker_is_an_error_and_its_workers_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "ANSWER_TIMEOUT_MS", 50)
    with Forwarder(1) as bare:
        running = [psutil.Process(pid) for pid in bare.pids]
        bare.processes[0].kill()
        with pytest.raises(ExperimentError, match="a bare forwarder gave no answer"):
            bare.one_by_one_ms(WORK)
    assert not any(process.is_running() for process in running)


def test_a_role_that_fails_to_start_shows_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_a_wrong_option(self: Bare, role: str) -> None:
        truly(self, role, "--wrong")

    truly = Bare.__init__
    monkeypatch.setattr(Bare, "__init__", with_a_wrong_option)
    said = r"forwarder-0 ended with code 2 (.|\n)*unrecognized arguments: --wrong"
    with pytest.raises(ClusterError, match=said):
        Forwarder(1).__enter__()


@given(st.lists(st.lists(st.integers(0, 9), max_size=2 * TASKS_PER_FRAME), max_size=PRIORITIES))
def test_the_most_urgent_go_first_and_in_order(numbers: list[list[int]]) -> None:
    buckets = [deque((number, "echo", b"") for number in bucket) for bucket in numbers]
    every = [job for bucket in buckets for job in bucket]
    taken = next_jobs(buckets)
    assert taken == every[:TASKS_PER_FRAME]
    assert [job for bucket in buckets for job in bucket] == every[len(taken) :]


def test_packed_messages_are_read_back() -> None:
    tasks, jobs, outcomes = [(1, 2, "echo", b"x")], [(7, "echo", b"x")], [(7, b"x")]
    assert unpack_tasks(pack(tasks)) == tasks
    assert unpack_jobs(pack(jobs)) == jobs
    assert unpack_outcomes(pack(outcomes)) == outcomes
