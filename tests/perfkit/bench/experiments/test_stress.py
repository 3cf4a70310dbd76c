"""Overload of a real cluster, small: every task is accounted for, and nothing stays hidden."""

from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from cluster import BASELINE
from cluster.shells.client import Client
from cluster.vocabulary.errors import Busy, TaskFailed
from perfkit.bench.experiments import stress
from perfkit.bench.experiments.catalogue import judged, run
from perfkit.bench.experiments.setting import Setting
from perfkit.bench.experiments.stress import StressSizes, overload, queue_up, reconnect_s, sort_out
from perfkit.bench.workloads.arrivals import waiting_work
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.evidence.results import Result
from perfkit.optimized.specs import OPTIMIZED

BOUND = 40


def silent(_: str) -> None:
    """Drop a line of progress."""


SETTING = Setting("zmq", BASELINE, 2, 100, 0, None, "quick", silent)


@pytest.fixture(scope="module")
def result() -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stress.SIZES, "quick", StressSizes(0.5, BOUND, 4, 1))
        return run("stress", spec=OPTIMIZED, tasks=500, seed=2)


def test_every_task_is_done_or_refused_and_the_sums_agree(result: Result) -> None:
    counters = result.counters
    assert counters["done"] + counters["refused"] == counters["submitted"]
    assert counters["done"] > 0
    assert counters["refused"] > 0
    # The queue's bound is what is refused at: more than it holds was submitted.
    assert counters["submitted"] > BOUND


def test_queues_and_memory_are_followed_over_time(result: Result) -> None:
    series = result.series
    assert len(series["rss_bytes"]) == len(series["rss_at_s"]) > 1
    assert len(series["at_s"]) == len(series["queued_tasks"]) == len(series["done_per_s"]) > 1
    assert max(series["queued_tasks"]) <= BOUND
    assert result.parameters["limits.tasks"] == BOUND
    growth, bound = result.counters["rss_growth_bytes"], result.parameters["rss_growth_bound_bytes"]
    assert result.counters["rss_growth_of_bound"] == growth / bound


def test_goodput_is_judged_against_the_capacity(result: Result) -> None:
    goodput, memory = judged(result)
    assert (goodput.goal.goal, memory.goal.goal) == (0.9, 1.0)
    assert goodput.figure.low <= goodput.figure.value <= goodput.figure.high
    assert len(result.samples) == stress.PARTS


def test_workers_came_back_and_a_queue_was_worked_off(result: Result) -> None:
    assert len(result.series["reconnect_s"]) == 1
    assert result.counters["queued_tasks"] == 500


def test_a_spec_that_sends_tasks_alone_queues_a_tenth_and_says_so() -> None:
    assert queue_up(BASELINE, 50, 0, silent)["queued_tasks"] == 5


def test_workers_that_stay_away_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stress._await_workers
    monkeypatch.setattr(stress, "REJOIN_S", 0.0)
    monkeypatch.setattr(stress, "_await_workers", lambda client, count: whole(client, count + 1))
    with pytest.raises(ExperimentError, match=r"\d of 3 workers joined within 0 s"):
        reconnect_s(BASELINE, 2, silent)


def ended(*outcomes: bytes | Exception) -> list[Future[bytes]]:
    futures = []
    for outcome in outcomes:
        future: Future[bytes] = Future()
        if isinstance(outcome, bytes):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
        futures.append(future)
    return futures


def test_outcomes_are_done_or_refused_with_the_bound_as_the_reason() -> None:
    work = waiting_work(3, 0.001)
    refusal = Busy("open: 40 tasks, of at most 40")
    first, second, third = work.payloads
    assert sort_out(work, ended(first, refusal, third), BOUND) == [0, 2]
    for other in (Busy("of at most 41"), TaskFailed("it raised"), Busy("no reason")):
        with pytest.raises(ExperimentError, match="task 1 of 3 should be done or refused"):
            sort_out(work, ended(first, other, third), BOUND)
    with pytest.raises(WrongResult):
        sort_out(work, ended(first, refusal, second), BOUND)


def test_a_client_that_hides_a_refusal_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    truly = Client.submit

    def hiding(self: Client, kind: str, payload: Any, **options: Any) -> Future[bytes]:
        future = truly(self, kind, payload, **options)
        shown: Future[bytes] = Future()

        def settle(ended: Future[bytes]) -> None:
            error = ended.exception()
            if error is None or isinstance(error, Busy):
                shown.set_result(payload)
            else:
                shown.set_exception(error)

        future.add_done_callback(settle)
        return shown

    monkeypatch.setattr(Client, "submit", hiding)
    with pytest.raises(WrongResult, match=r"done were .* tasks?; the coordinator counted"):
        overload(SETTING, 0.3, BOUND)


def test_a_full_queue_refuses_one_more_with_the_bound_as_the_reason() -> None:
    limits = msgspec.structs.replace(OPTIMIZED.limits, tasks=BOUND)
    spec = msgspec.structs.replace(OPTIMIZED, limits=limits)
    submitted: list[Any] = []
    truly = Client.submit

    def noting(self: Client, *given: Any, **options: Any) -> Any:
        submitted.append(truly(self, *given, **options))
        return submitted[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "submit", noting)
        assert queue_up(spec, BOUND, 0, silent)["queued_tasks"] == BOUND
    (one_more,) = submitted
    with pytest.raises(Busy, match=f"of at most {BOUND}"):
        one_more.result(0)
