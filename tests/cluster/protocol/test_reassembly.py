"""A large result is put together from chunks in any order, requested a few at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.protocol import reassembly
from cluster.protocol.reassembly import MAX_STREAMS, REPEAT_AFTER_S, WINDOW_CHUNKS, Reassemblies
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import Failure, State

RESULT = bytes(range(100))


def offer(position: int = 0, lease: int = 1, size: int = len(RESULT)) -> do.Offer:
    return do.Offer("c", 0, position, lease, size)


def answer(request: on.ChunkRequested) -> do.DeliverChunk:
    part = RESULT[request.offset : request.offset + request.size_bytes]
    place = request.submission, request.position, request.lease
    return do.DeliverChunk("c", *place, request.offset, [part])


def said(streams: Reassemblies) -> list[on.Event]:
    events, streams.outbox = streams.outbox, []
    return events


def asked(streams: Reassemblies) -> list[on.ChunkRequested]:
    events = said(streams)
    assert all(isinstance(event, on.ChunkRequested) for event in events)
    return [event for event in events if isinstance(event, on.ChunkRequested)]


def confirm(lease: int = 1, position: int = 0) -> do.Confirm:
    return do.Confirm("c", 0, position, lease)


@given(st.integers(1, 120), st.data())
def test_every_order_of_chunks_and_repeats_gives_the_result(
    chunk_bytes: int, data: st.DataObject
) -> None:
    streams = Reassemblies("c", chunk_bytes)
    streams.offered(offer(), 0.0)
    waiting, answered = asked(streams), 0
    while waiting:
        assert len(waiting) <= WINDOW_CHUNKS, "no more is on its way than was agreed"
        request = data.draw(st.sampled_from(waiting))
        waiting.remove(request)
        for _ in range(data.draw(st.integers(1, 2))):
            streams.arrived(answer(request), 0.0)
        answered += 1
        more = said(streams)
        waiting += [event for event in more if isinstance(event, on.ChunkRequested)]
    assert more == [on.StreamReceived("c", 0, 0, 1)]
    assert answered == -(-len(RESULT) // chunk_bytes)
    assert streams.confirmed(confirm()) == RESULT


def test_a_result_is_bytes_and_only_there_when_all_is_and_it_is_confirmed() -> None:
    streams = Reassemblies("c", 60)
    streams.offered(offer(), 0.0)
    first, second = asked(streams)
    streams.arrived(answer(first), 0.0)
    assert streams.confirmed(confirm()) is None
    streams.arrived(answer(second), 0.0)
    assert streams.confirmed(confirm(lease=2)) is None
    assert streams.confirmed(confirm(position=1)) is None
    assert type(streams.confirmed(confirm())) is bytes


def test_under_another_lease_it_starts_over_and_the_old_ones_chunks_are_dropped() -> None:
    streams = Reassemblies("c", 60)
    streams.offered(offer(lease=2), 0.0)
    old = asked(streams)
    streams.arrived(answer(old[0]), 0.0)
    streams.offered(offer(lease=1), 0.0)
    assert said(streams) == [], "that offer has been overtaken"
    streams.offered(offer(lease=3), 0.0)
    new = asked(streams)
    assert [(r.offset, r.lease) for r in new] == [(0, 3), (60, 3)]
    streams.arrived(answer(old[1]), 0.0)
    assert streams.late_chunks == 1
    streams.withdrawn(do.Withdraw("c", 0, 0, 2))
    assert len(streams.open) == 1


@pytest.mark.parametrize(
    ("offset", "chunk"),
    [(0, b"x" * 59), (1, b"x" * 60), (120, b"x"), (60, b"x" * 41), (60, b"")],
)
def test_what_was_not_asked_for_is_dropped(offset: int, chunk: bytes) -> None:
    streams = Reassemblies("c", 60)
    streams.arrived(do.DeliverChunk("c", 0, 0, 1, offset, [chunk]), 0.0)
    streams.offered(offer(), 0.0)
    streams.arrived(do.DeliverChunk("c", 0, 0, 1, offset, [chunk]), 0.0)
    assert streams.late_chunks == 2


def test_few_results_are_fetched_at_once_and_the_next_when_one_is_over() -> None:
    streams = Reassemblies("c", 100)
    for position in range(MAX_STREAMS + 2):
        streams.offered(offer(position), 0.0)
    assert [request.position for request in asked(streams)] == [*range(MAX_STREAMS)]
    streams.withdrawn(do.Withdraw("c", 0, 0, 1))
    assert [request.position for request in asked(streams)] == [MAX_STREAMS]
    streams.settled(0, 1, 2)
    assert [request.position for request in asked(streams)] == [MAX_STREAMS + 1]
    assert len(streams.open) == 2


def test_what_has_no_answer_is_said_again_after_a_while_and_not_before() -> None:
    streams = Reassemblies("c", 30)
    streams.offered(offer(), 0.0)
    requests = asked(streams)
    streams.arrived(answer(requests.pop(1)), 0.5)
    streams.repeat(0.5 + REPEAT_AFTER_S - 0.1)
    assert said(streams) == []
    later = 0.5 + REPEAT_AFTER_S
    streams.repeat(later)
    assert said(streams) == requests
    for request in requests:
        streams.arrived(answer(request), later)
    (received,) = said(streams)
    streams.repeat(later + REPEAT_AFTER_S)
    assert said(streams) == [received] == [on.StreamReceived("c", 0, 0, 1)]


def test_a_result_there_is_no_memory_for_is_given_up_and_its_task_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise MemoryError

    monkeypatch.setattr(reassembly, "BytesIO", refuse)
    streams = Reassemblies("c", 60)
    streams.offered(offer(), 0.0)
    assert said(streams) == [on.TasksCancelled("c", 0, [0])]
    cancelled = Failure(0, "Cancelled", "cancelled", State.CANCELLED)
    words = "no memory for a result of 100 bytes"
    assert streams.failure(0, cancelled) == Failure(0, "MemoryError", words)
    assert streams.failure(1, cancelled) == cancelled
