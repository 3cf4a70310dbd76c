"""The ledger's totals, and how it cuts deliveries into messages."""

import pytest

from cluster.vocabulary import actions as do
from cluster.vocabulary.task import Failure, State
from tests.cluster.core.scheduling import Bench, T, delivered, ended, holding


def test_payloads_are_let_go_when_the_last_task_of_a_run_has_ended() -> None:
    bench = holding(b"abc", b"de")
    held = [bench.scheduler.ledger.payload_bytes]
    bench.finish("w", 1, 0, b"a")
    held.append(bench.scheduler.ledger.payload_bytes)
    bench.finish("w", 1, 1, b"b")
    held.append(bench.scheduler.ledger.payload_bytes)
    assert held == [5, 5, 0]
    assert bench.scheduler.ledger.runs[1].payloads == []


def test_failures_are_retained_by_the_size_of_their_message() -> None:
    bench = holding(b"x", b"y")
    bench.finish("w", 1, 0, b"", b"four", failures=[Failure(0, "E", "why not")])
    assert bench.scheduler.ledger.retained_bytes == len("why not") + len("four")


@pytest.mark.parametrize(
    ("message_bytes", "each"),
    [(2_000, 4), (100, 1)],  # a quarter holds four results and their frames; or less than one
)
def test_a_redelivery_is_cut_into_messages_within_the_bound(message_bytes: int, each: int) -> None:
    bench = Bench(message_bytes=message_bytes)
    results = [b"%060d" % position for position in range(10)]
    bench.join("w", credit=10)
    bench.submit(*T)
    for position, result in enumerate(results):
        bench.finish("w", 1, position, result)
    _, *again = bench.heard(0, waiting=[(0, 0)])
    assert again == [delivered(*results[a : a + each], start=a) for a in range(0, 10, each)]
    assert bench.scheduler.counters["redelivered"] == 1


def test_results_that_came_in_one_large_message_leave_in_several() -> None:
    bench = holding(*T[:4], message_bytes=1_000)
    results = [b"r" * 60] * 4
    assert bench.finish("w", 1, 0, *results) == [
        delivered(*results[:2]),
        delivered(*results[2:], start=2),
    ]


def test_failures_are_cut_into_pieces_too_and_stay_in_their_places() -> None:
    bench = Bench(message_bytes=1_000)
    bench.submit(*T[:5])
    gone = [Failure(p, "Cancelled", "cancelled", State.CANCELLED) for p in range(5)]
    pieces = [ended(gone[0], 3), ended(gone[3], 2)]
    assert bench.cancel() == pieces
    assert bench.heard(0, waiting=[(0, 0)]) == [do.Accept("c", 0, 1), *pieces]


def test_a_lease_tells_the_time_that_its_tasks_have_left() -> None:
    bench = Bench()
    bench.submit(b"a", timeout_s=5.0)
    bench.submit(b"b", submission=1)
    bench.now += 2.0
    first, second = bench.join(credit=2)
    assert isinstance(first, do.Assign)
    assert isinstance(second, do.Assign)
    assert (first.left_s, second.left_s) == (pytest.approx(3.0), None)
