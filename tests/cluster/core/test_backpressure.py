"""A client that does not acknowledge results is held back, and no other client."""

from typing import Any, cast

import pytest
from msgspec.structs import replace

from cluster.core.queue import Backpressure
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import Priority
from tests.cluster.core.scheduling import Bench, delivered, holding


def bench_at_its_bound() -> Bench:
    """4 of 7 bytes are retained for the client ``c``; a run of three tasks of it waits."""
    bench = holding(b"0", retained_bytes=7, liveness_s=9.0)
    assert bench.submit(b"1", b"2", b"3", submission=1) == []
    assert bench.finish("w", 1, 0, b"four") == [delivered(b"four")], "and no lease"
    return bench


def test_a_client_whose_retained_bytes_reach_the_room_left_is_held_back_until_it_acknowledges() -> (
    None
):
    bench = bench_at_its_bound()
    bench.counted(held_back=1)
    assert bench.beat("w") == []
    assert bench.scheduler.status(0.0).queued["normal"] == 3
    assert bench.heard(1) == [bench.assign("w", 2, 0, b"1")]


def test_others_are_served_meanwhile_in_their_order() -> None:
    bench = bench_at_its_bound()
    lease = bench.assign("w", 2, 0, b"x")
    assert bench.submit(b"x", client="d", priority=Priority.LOW) == [lease]
    assert bench.submit(b"z", client="e", priority=Priority.LOW) == []
    assert bench.submit(b"y", client="d", submission=1, priority=Priority.HIGH) == []
    high = bench.assign("w", 3, 0, b"y")
    assert bench.finish("w", 2, 0, b"") == [do.Deliver("d", 0, 0, [b""], [], []), high]
    assert bench.heard(1) == []
    again = bench.assign("w", 4, 0, b"1")
    assert bench.finish("w", 3, 0, b"") == [do.Deliver("d", 1, 0, [b""], [], []), again]


def test_a_run_that_is_held_back_can_be_cancelled_and_time_out() -> None:
    bench = bench_at_its_bound()
    bench.submit(b"x", submission=2, timeout_s=1.0)
    bench.cancel(0, 1, submission=1)
    assert [action.failures[0].error for action in bench.wait(1.0)] == ["TimedOut"]
    assert bench.heard(1) == [], "the failures' messages are retained"
    assert bench.heard(1, 2, partly=[(1, 0, 2)]) == [bench.assign("w", 2, 2, b"3")]


def test_acknowledged_results_of_an_open_run_are_not_retained() -> None:
    bench = Bench(retained_bytes=7)
    bench.join()
    bench.submit(b"0", b"1", b"2")
    assert bench.finish("w", 1, 0, b"four") == [delivered(b"four")]
    assert bench.heard(partly=[(0, 0, 3), (0, 2, 9), (5, 0, 1)]) == [bench.assign("w", 2, 1, b"1")]
    assert bench.scheduler.ledger.retained_bytes == 0
    bench.finish("w", 2, 1, b"five!")
    assert bench.heard(waiting=[(0, 1)]) == [
        do.Accept("c", 0, 1),
        delivered(b"five!", start=1),
    ], "acknowledged results are not delivered again"


def test_a_client_that_leaves_holds_nothing_back() -> None:
    bench = bench_at_its_bound()
    bench.tell(on.ClientLeft("c"))
    assert bench.scheduler.ledger.queue.held_back == {}
    assert bench.submit(b"x", client="d") == [bench.assign("w", 2, 0, b"x")]


def test_no_client_is_served_while_all_room_is_taken() -> None:
    bench = holding(b"0", b"1", b"2", retained_bytes=7)
    assert bench.submit(b"x", client="d") == []
    assert bench.finish("w", 1, 0, b"four", b"four", b"four") == [
        delivered(b"four", b"four", b"four")
    ]
    assert bench.heard(1) == [bench.assign("w", 2, 0, b"x")]


def test_a_client_that_stops_reading_stays_within_the_bound_and_delays_no_other(
    serve: Any, limited: Any, stranger: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, tasks, payload, bound = 30, 100, b"%01000d", 2_000_000
    kept = [0]
    add = Backpressure.add

    def watched(backpressure: Backpressure, client: str, size_bytes: int) -> None:
        add(backpressure, client, size_bytes)
        kept[0] = max(kept[0], backpressure.total_bytes)

    monkeypatch.setattr(Backpressure, "add", watched)
    spec = replace(limited(retained_bytes=bound, client_liveness_s=60.0), credit=256)
    served = serve(spec=spec)
    peer = stranger(served.coordinator.endpoint)
    for number in range(runs):
        payloads = [payload % (number * tasks + task) for task in range(tasks)]
        peer.say(on.TasksSubmitted("slow", number, "echo", payloads))

    def status() -> Status:
        return cast(Status, served.client.status())

    until(lambda: (c := status().counters)["accepted"] == runs * tasks and c["held_back"])
    others = [b"%d" % number for number in range(100)]
    assert list(served.client.map("echo", others)) == others
    until(lambda: status().assigned == 0)
    done = status().counters["done"]
    assert list(served.client.map("echo", others)) == others
    assert status().counters["done"] == done + len(others), "no task of the slow client is leased"
    ahead = status().workers[0].credit * len(payload % 0)
    assert bound // 2 <= kept[0] <= bound + ahead < runs * tasks * len(payload % 0)

    peer.say(on.ClientHeartbeat("slow", runs))
    until(lambda: status().retained_bytes == 0)
