"""A client that does not acknowledge results is held back, and no other client."""

from collections import Counter
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core.backpressure import Backpressure
from cluster.core.queue import RunQueue
from cluster.core.run import Range, Run
from cluster.protocol.client_session import ClientSession, Options, Settled
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import Priority
from perfkit.optimized.queue import SortedQueue
from tests.cluster.core.scheduling import Bench, delivered, holding, run


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


@pytest.mark.parametrize("kind", [RunQueue, SortedQueue])
@settings(max_examples=100)
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(Priority),
            st.sampled_from("abc"),
            st.sampled_from("cde"),
            st.sets(st.sampled_from("cde")),
            st.integers(0, 30),
        ),
        max_size=40,
    )
)
def test_clients_that_may_be_served_are_in_the_order_of_their_coming(
    kind: type[RunQueue], moves: list[tuple[Priority, str, str, set[str], int]]
) -> None:
    queue, runs = kind(1 << 30), list[Run]()
    came: dict[tuple[Priority, str], int] = {}
    for id, (priority, needs, client, late, returned) in enumerate(moves):
        runs.append(run(id, 2, priority=priority, kind=needs))
        runs[-1].client = client
        queue.push(runs[-1])
        came.setdefault((priority, client), id)
        for name in [name for name in queue.held_back if name not in late]:
            queue.resume(name)
        while (head := queue.head(set())) is not None and head[0].client in late:
            queue.hold_back(head[0].client)
        waiting = [each for each in runs if each.waiting[False]]
        free = [each for each in waiting if each.client not in late]
        places = [(each.priority, came[each.priority, each.client], each.id) for each in free]
        first = free[places.index(min(places))] if free else None
        assert head == (first and (first, False))
        assert {each.id for each in queue.runs()} == {each.id for each in waiting}
        if first is not None:
            first.take(2, False)
        if returned < id and not runs[returned].waiting[False]:
            runs[returned].put_back(Range(0, 1))
            queue.push(runs[returned])


def test_a_client_that_stops_reading_stays_within_the_bound_and_gets_everything_once_it_reads(
    serve: Any, limited: Any, stranger: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, tasks, payload, bound = 30, 1_000, b"%0100d", 2_000_000
    kept = [0]
    add = Backpressure.add

    def watched(backpressure: Backpressure, client: str, size_bytes: int) -> None:
        add(backpressure, client, size_bytes)
        kept[0] = max(kept[0], backpressure.total_bytes)

    monkeypatch.setattr(Backpressure, "add", watched)
    spec = limited(retained_bytes=bound, client_liveness_s=60.0)
    served = serve(spec=spec)
    peer, session = stranger(served.coordinator.endpoint), ClientSession("slow")
    for number in range(runs):
        payloads = [payload % (number * tasks + task) for task in range(tasks)]
        peer.say(session.submit("echo", payloads, Options(), None, 0.0))

    def status() -> Status:
        return cast(Status, served.client.status())

    until(lambda: (c := status().counters)["accepted"] == runs * tasks and c.get("held_back"))
    others = [b"%d" % number for number in range(500)]
    assert list(served.client.map("echo", others)) == others
    until(lambda: status().assigned == 0)
    done = status().counters["done"]
    assert list(served.client.map("echo", others)) == others
    assert status().counters["done"] == done + len(others), "no task of the slow client is leased"
    ahead = status().workers[0].credit * len(payload % 0)
    assert bound // 2 <= kept[0] <= bound + ahead < runs * tasks * len(payload % 0)

    got = Counter[bytes]()
    while session.open:
        for event in session.heartbeat(0.0):
            peer.say(event)
        greeted = False
        while not greeted:
            action = peer.hear()
            greeted = isinstance(action, do.Greet)
            news = session.handle(action, 0.0)
            got.update(news.results if isinstance(news, Settled) else ())
    assert got == Counter(payload % number for number in range(runs * tasks))
    peer.say(*session.heartbeat(0.0))
    until(lambda: status().retained_bytes == 0)
    assert kept[0] <= bound + ahead
