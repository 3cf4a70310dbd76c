"""The ledger's totals, and how it cuts deliveries into messages."""

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


def large(bench: Bench) -> list[bytes]:
    """Ten results of 60 bytes, which a client has missed."""
    results = [b"%060d" % position for position in range(10)]
    bench.join("w", credit=10)
    bench.submit(*T)
    for position, result in enumerate(results):
        bench.finish("w", 1, position, result)
    return results


def test_a_redelivery_is_cut_into_messages_within_the_bound() -> None:
    bench = Bench(message_bytes=2_000)  # of which a quarter holds four results and their frames
    results = large(bench)
    _, *again = bench.heard(0, waiting=[(0, 0)])
    pieces = [(0, 4), (4, 8), (8, 10)]
    assert again == [delivered(*results[a:b], start=a) for a, b in pieces]
    assert bench.scheduler.counters["redelivered"] == 1


def test_a_result_larger_than_a_piece_is_delivered_alone() -> None:
    bench = Bench(message_bytes=100)
    results = large(bench)
    _, *again = bench.heard(0, waiting=[(0, 0)])
    assert again == [delivered(result, start=at) for at, result in enumerate(results)]


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


def test_every_way_to_end_is_counted_by_its_state() -> None:
    bench = holding(*T[:4], deaths=1)
    bench.finish("w", 1, 0, b"a", b"", failures=[Failure(1, "E", "m")])
    bench.cancel(2)
    bench.die("w")
    counters = bench.scheduler.counters
    assert {state: counters[state] for state in State} == {
        State.QUEUED: 0,
        State.ASSIGNED: 0,
        State.DONE: 1,
        State.FAILED: 1,
        State.CANCELLED: 1,
        State.DEAD_LETTERED: 1,
    }
    assert bench.scheduler.ledger.open_tasks == 0
