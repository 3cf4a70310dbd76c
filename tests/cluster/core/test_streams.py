"""Large results go past the coordinator, and each task still has one end under one lease at a
time: first with a scheduler on the bench, then in real processes.
"""

from pathlib import Path

import pytest

from cluster import LocalCluster
from cluster.protocol.reassembly import MAX_STREAMS, WINDOW_CHUNKS
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import State, TaskId
from cluster.work.handlers import Handlers
from cluster.work.workloads import PATTERN
from tests.cluster.core.scheduling import Bench, delivered, holding

TIMEOUT_S = 20.0
MIB = 1 << 20

SIZE = 10
COUNTED = {"streams": 1, "streamed_bytes": 4}


def kept(bench: Bench, position: int = 0, lease: int = 1, worker: str = "w") -> on.ResultStored:
    return on.ResultStored(worker, bench.epochs[worker], lease, position, SIZE, 1.0, 1.5)


def chunk(bench: Bench, lease: int = 1, position: int = 0, worker: str = "w") -> on.ChunkRead:
    return on.ChunkRead(worker, bench.epochs[worker], lease, position, 4, [b"data"])


def wanted(offset: int = 4, size: int = 4, lease: int = 1, position: int = 0) -> on.ChunkRequested:
    return on.ChunkRequested("c", 0, position, lease, offset, size)


RECEIVED = on.StreamReceived("c", 0, 0, 1)
OFFER = do.Offer("c", 0, 0, 1, SIZE)
CONFIRM = do.Confirm("c", 0, 0, 1)
WITHDRAW = do.Withdraw("c", 0, 0, 1)
LET_GO = do.Cancel("w", 1, 1, [0])


@pytest.fixture
def bench() -> Bench:
    """A worker without more credit keeps the result of the one task there is."""
    one = Bench(chunk_bytes=4)
    one.join()
    one.submit(b"a")
    assert one.tell(kept(one)) == [OFFER]
    return one


# The straight way


def test_a_result_is_offered_fetched_and_confirmed_and_not_retained(
    bench: Bench,
) -> None:
    assert bench.tell(wanted()) == [do.Read("w", 1, 1, 0, 4, 4)]
    assert bench.tell(chunk(bench)) == [do.DeliverChunk("c", 0, 0, 1, 4, [b"data"])]
    ledger = bench.scheduler.ledger
    assert (ledger.open_tasks, ledger.retained_bytes) == (1, 0), "it is not over before it is there"
    assert bench.tell(RECEIVED) == [CONFIRM, LET_GO]
    assert (ledger.open_tasks, ledger.retained_bytes) == (0, 0)
    assert [entry.state for entry in bench.scheduler.story(TaskId(1, 0))][-1] is State.DONE
    bench.counted(**COUNTED)


def test_a_worker_has_its_credit_back_while_it_keeps_a_result(bench: Bench) -> None:
    assert bench.submit(b"b", submission=1) == [bench.assign("w", 2, 0, b"b")]
    assert bench.submit(b"c", submission=2) == []
    bench.tell(RECEIVED)
    assert bench.finish("w", 1, 0, b"") == []
    assert bench.finish("w", 2, 0, b"B") == [
        delivered(b"B", submission=1),
        bench.assign("w", 3, 0, b"c"),
    ]
    bench.counted(streams=1)


def test_results_behind_a_large_one_in_its_lease_follow_it() -> None:
    bench = holding(b"a", b"b", b"c")
    assert bench.finish("w", 1, 0, b"A") == [delivered(b"A")]
    assert bench.tell(kept(bench, 1)) == [do.Offer("c", 0, 1, 1, SIZE)]
    bench.tell(on.StreamReceived("c", 0, 1, 1))
    assert bench.finish("w", 1, 1, b"", b"C") == [delivered(b"C", start=2)]
    bench.counted(streams=1)


def test_a_traced_task_has_its_times_with_the_confirmation() -> None:
    bench = Bench()
    bench.join()
    bench.submit(b"a", sent_at=0.5)
    bench.now = 2.0
    bench.tell(kept(bench))
    assert bench.tell(RECEIVED)[0] == do.Confirm("c", 0, 0, 1, [0.0, 0.0, 1.0, 1.5, 2.0])


# Messages lost, late and repeated


def test_an_offer_is_repeated_with_the_news_until_its_client_begins(bench: Bench) -> None:
    assert bench.tell(kept(bench)) == [OFFER]
    bench.tell(wanted())
    assert bench.tell(kept(bench)) == []
    bench.counted(streams=1)


def test_a_confirmation_is_repeated_on_request_and_reminder(bench: Bench) -> None:
    bench.tell(RECEIVED)
    assert bench.tell(RECEIVED) == [CONFIRM]
    assert bench.tell(wanted()) == [CONFIRM]
    assert bench.heard(waiting=[(0, 0)]) == [do.Accept("c", 0, 1), CONFIRM]


def test_a_worker_that_announces_a_fetched_result_is_told_again_to_discard_it(bench: Bench) -> None:
    bench.tell(RECEIVED)
    assert bench.tell(kept(bench)) == [LET_GO]
    bench.finish("w", 1, 0, b"")
    assert bench.beat("w", 1) == [do.Cancel("w", 1, 1)]


def test_results_that_got_lost_before_a_large_one_are_queued_again() -> None:
    bench = holding(b"a", b"b", b"c")
    assert bench.tell(kept(bench, 1)) == [], "they may have been overtaken"
    offer, lease = bench.wait(0.2)
    assert offer == do.Offer("c", 0, 1, 1, SIZE)
    assert lease == bench.assign("w", 2, 0, b"a")
    assert bench.tell(kept(bench, 0)) == [LET_GO], "that one has come too late"
    bench.counted(streams=1, returned=1, early_reports=1)


def test_a_large_result_that_overtakes_the_results_before_it_waits_for_them() -> None:
    bench = holding(b"a", b"b", b"c")
    assert bench.tell(kept(bench, 1)) == bench.tell(kept(bench, 1)) == []
    offer = do.Offer("c", 0, 1, 1, SIZE)
    assert bench.finish("w", 1, 0, b"A") == [delivered(b"A"), offer]
    bench.counted(streams=1, early_reports=2)


def test_a_chunk_that_is_none_of_the_result_or_too_large_is_not_asked_for(bench: Bench) -> None:
    for offset, size in ((8, 3), (11, 1), (0, 5)):
        assert bench.tell(wanted(offset, size)) == []
    bench.counted(streams=1, malformed=3)


@pytest.mark.parametrize(
    "event",
    [
        wanted(lease=2),
        wanted(position=1),
        on.ChunkRequested("c", 7, 0, 1, 0, 4),
        on.ChunkRequested("nobody", 0, 0, 1, 0, 4),
        on.StreamReceived("c", 0, 0, 2),
    ],
)
def test_a_request_for_a_missing_result_is_answered_with_a_withdrawal(
    bench: Bench, event: on.ChunkRequested | on.StreamReceived
) -> None:
    place = event.client, event.submission, event.position, event.lease
    assert bench.tell(event) == [do.Withdraw(*place)]
    bench.counted(streams=1, late_requests=1)


def test_unexpected_results_and_chunks_are_dropped(bench: Bench) -> None:
    assert bench.tell(kept(bench, lease=9)) == []
    assert bench.tell(chunk(bench, lease=9)) == []
    assert bench.tell(chunk(bench, position=3)) == []
    assert bench.tell(kept(bench, 5)) == [do.Cancel("w", 1, 1, [5])]
    bench.counted(streams=1, late_results=1, late_chunks=2)


# Workers and clients lost, tasks given up


def test_a_cancelled_or_overdue_stream_ends_and_its_worker_discards_it() -> None:
    bench = Bench()
    bench.join(credit=2)
    bench.submit(b"a")
    bench.submit(b"b", submission=1, timeout_s=3.0)
    bench.tell(kept(bench, lease=1))
    bench.tell(kept(bench, lease=2))
    cancel, end = bench.cancel()
    assert (cancel, type(end)) == (LET_GO, do.Deliver)
    bench.tell(on.WorkerHeartbeat("w", 1, [1, 2]))
    bench.scheduler.workers["w"].last_seen = 10.0
    cancel, end = bench.wait(4.0)
    assert (cancel, type(end)) == (do.Cancel("w", 1, 2, [0]), do.Deliver)
    assert bench.tell(wanted()) == bench.tell(RECEIVED) == [WITHDRAW]
    assert bench.tell(chunk(bench)) == []
    for lease in (1, 2):
        assert bench.tell(kept(bench, lease=lease)) == [do.Cancel("w", 1, lease, [0])]
        bench.finish("w", lease, 0, b"")
    assert bench.scheduler.workers["w"].held == 0


def test_a_worker_discards_the_result_of_a_client_that_left(bench: Bench) -> None:
    bench.tell(wanted())
    assert bench.tell(on.ClientLeft("c")) == [LET_GO]
    assert bench.tell(chunk(bench)) == []
    bench.counted(streams=1, late_chunks=1, cancelled=1)


def test_a_result_that_is_being_fetched_is_not_recalled() -> None:
    bench = Bench()
    bench.join(credit=2)
    bench.submit(b"a")
    bench.submit(b"b", submission=1)
    bench.submit(b"c", submission=2)
    assert bench.tell(kept(bench, lease=2))[1:] == [bench.assign("w", 3, 0, b"c")]
    bench.finish("w", 3, 0, b"C")
    bench.submit(b"d", submission=3)
    bench.join("idle")
    assert bench.wait(0.1) == [do.Recall("w", 1, 4), do.Recall("w", 1, 1)]
    assert bench.release("w", 4, 0) == [bench.assign("idle", 5, 0, b"d")]


# Through sockets


def test_a_result_is_whole_although_its_worker_is_killed_midway(limited, stranger):
    result = PATTERN * 400
    limits = {"stream_bytes": 10_000, "chunk_bytes": 60_000}
    with LocalCluster(2, limited(**limits)) as local, local.client() as operator:
        peer = stranger(local.endpoint)
        peer.say(on.TasksSubmitted("c", 0, "pattern", [b"%d" % len(result)]))
        offer = peer.hear(do.Offer)
        peer.say(on.ChunkRequested("c", 0, 0, offer.lease, 0, 60_000))
        assert bytes(peer.hear(do.DeliverChunk).chunk[0]) == result[:60_000]
        (keeper,) = [worker.pid for worker in operator.status().workers if worker.leases]
        next(worker for worker in local.workers if worker.pid == keeper).kill()
        again = peer.hear(do.Offer)
        assert (again.lease > offer.lease, again.size_bytes) == (True, len(result))
        peer.say(on.ChunkRequested("c", 0, 0, offer.lease, 60_000, 40_400))
        assert peer.hear(do.Withdraw) == do.Withdraw("c", 0, 0, offer.lease)
        for offset in (60_000, 0):
            size = min(60_000, len(result) - offset)
            peer.say(on.ChunkRequested("c", 0, 0, again.lease, offset, size))
            part = peer.hear(do.DeliverChunk)
            assert bytes(part.chunk[0]) == result[offset : offset + size]
        assert operator.status().counters["done"] == 0
        peer.say(on.StreamReceived("c", 0, 0, again.lease))
        assert peer.hear(do.Confirm).lease == again.lease
        assert operator.status().counters["done"] == 1


def test_a_client_that_requests_and_never_reads_makes_the_coordinator_grow_by_its_requests_only(
    spec, stranger, until
):
    with LocalCluster(2, spec) as local, local.client() as operator:
        assert operator.submit("pattern", b"1").result(TIMEOUT_S) == b"\0"
        highest = highest_rss_bytes(local.coordinator.pid)
        peer = stranger(local.endpoint)
        peer.say(
            *(on.TasksSubmitted("c", n, "pattern", [b"%d" % (16 * MIB)]) for n in range(8)),
        )
        for offer in [peer.hear(do.Offer) for _ in range(MAX_STREAMS)]:
            place = offer.submission, offer.position, offer.lease
            window = range(0, WINDOW_CHUNKS * MIB, MIB)
            peer.say(*(on.ChunkRequested("c", *place, at, MIB) for at in window))
        wanted = MAX_STREAMS * WINDOW_CHUNKS * MIB
        until(lambda: operator.status().counters["streamed_bytes"] == wanted)
        for _ in range(3):
            assert operator.submit("echo", b"x").result(TIMEOUT_S) == b"x"
        counters = operator.status().counters
        assert (counters["done"], counters["streamed_bytes"]) == (4, wanted)
        grown = highest_rss_bytes(local.coordinator.pid) - highest
        # The plain codec has a byte in its message, its payload and the message it goes on in.
        assert grown < 3 * wanted + 8 * MIB < 8 * 16 * MIB


def test_a_worker_that_is_stopped_waits_for_a_result_while_it_is_fetched_and_no_longer(
    serve, limited, stranger, until
):
    running = serve(spec=limited(stream_bytes=100, liveness_s=0.3, client_liveness_s=2.0))
    (member,) = running.crew
    peer = stranger(running.coordinator.endpoint)
    peer.say(on.TasksSubmitted("c", 0, "pattern", [b"101"]))
    offer = peer.hear(do.Offer)
    member.worker.stop()
    member.thread.join(0.5)  # the client has something else to do
    peer.say(on.ChunkRequested("c", 0, 0, offer.lease, 0, 101))
    assert bytes(peer.hear(do.DeliverChunk).chunk[0]) == PATTERN[:101]

    def has_ended():
        peer.say(on.ClientHeartbeat("c", 0))
        return not member.thread.is_alive()

    assert until(has_ended)
    assert until(lambda: running.client.status().counters["workers_left"]) == 1
    assert running.client.status().counters["returned"] == 1


def test_a_cancelled_future_lets_its_worker_go_on(serve, limited, until):
    running = serve(spec=limited(stream_bytes=100, stored_result_bytes=101, chunk_bytes=1))
    (member,) = running.crew
    large = running.client.submit("pattern", b"100000")
    until(lambda: running.client.status().counters["streamed_bytes"])
    assert large.cancel()
    assert running.client.submit("pattern", b"2").result(TIMEOUT_S) == b"\0\1"
    until(lambda: not member.worker._session.leases)


def test_batches_of_large_and_small_results_come_in_order_in_every_size(
    serve, limited, monkeypatch
):
    monkeypatch.setattr("cluster.protocol.reassembly.REPEAT_AFTER_S", 60.0)  # each is sent once
    handlers = Handlers()

    @handlers.register_batch("grow")
    def grow(payloads):
        return [bytes(payload) * 40 for payload in payloads]

    running = serve(handlers, limited(stream_bytes=100, chunk_bytes=64), workers=2, capacity=2)
    payloads = [b"%d" % n for n in (1, 1_000, 20, 3_000_000_000, 5)] * 20
    assert list(running.client.map("grow", payloads)) == [payload * 40 for payload in payloads]
    counters = running.client.status().counters
    assert counters["streamed_bytes"] == sum(len(p) * 40 for p in payloads if len(p) * 40 > 100)


def highest_rss_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(s.split()[1]) * 1024 for s in status.splitlines() if s.startswith("VmHWM"))
