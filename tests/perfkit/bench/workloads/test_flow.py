"""A steady flow checks each of its tasks, and counts latencies from the intended send time."""

from concurrent.futures import Future

import pytest

from perfkit.bench.workloads.arrivals import waiting_payload
from perfkit.bench.workloads.flow import Flow
from perfkit.bench.workloads.load import WrongResult


class Echoes:
    """Answers at once, with what `alter` makes of a payload."""

    def __init__(self, alter):
        self.alter = alter

    def submit(self, kind, payload, *, idempotent):
        future = Future()
        future.set_result(self.alter(payload))
        return future


def test_a_flow_returns_when_each_task_was_sent_and_ended() -> None:
    with Flow(Echoes(bytes), 2_000.0, 0.0, seed=1) as flow:
        flow.await_results(20)
        passages = flow.end()
    assert len(passages) == flow.sent >= 20
    sent = [passage.sent_s for passage in passages]
    assert sent == sorted(sent)
    assert all(passage.latency_s >= 0 for passage in passages)


def test_a_wrong_result_counts_for_nothing() -> None:
    with Flow(Echoes(lambda payload: payload[:-1] + b"0"), 2_000.0, 0.0, seed=1) as flow:
        flow.await_results(5)
        with pytest.raises(WrongResult, match="task 1 of"):
            flow.end()


def test_payloads_differ_and_say_the_time() -> None:
    payloads = [waiting_payload(0.005, number) for number in (0, 1, 10**9)]
    assert len({*payloads}) == 3
    assert all(abs(float(payload) - 0.005) < 1e-9 for payload in payloads)
