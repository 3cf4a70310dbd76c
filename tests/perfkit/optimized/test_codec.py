"""Packed messages come back equal, large ones uncopied; hostile bytes are refused cheaply."""

import subprocess
import sys

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import encode

from cluster.protocol.codec import MAX_VALUES
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ProtocolError
from cluster.vocabulary.task import Failure
from perfkit.optimized.codec import (
    ATTACH_BYTES,
    COLUMNS,
    COUNTED_BYTES,
    MAX_MESSAGES,
    VERSION,
    PackedCodec,
    PooledCodec,
)
from tests.cluster.protocol.wire import ACTIONS, ANYTHING, EVENTS, messages

LARGE = b"l" * ATTACH_BYTES
ALMOST = b"a" * (ATTACH_BYTES - 1)
SUBMITTED = on.TasksSubmitted("client", 1, "echo", [b"x"])
LEFT = on.ClientLeft("client")


def frames_of(*sent):
    """The one multipart message that these messages make."""
    (frames,) = PackedCodec().encode(sent)
    return frames


def envelope(*sent, attached=(), version=VERSION):
    return encode([version, list(sent), list(attached)])


def carriers(payloads):
    """One message of each kind that carries a column."""
    return [
        on.TasksSubmitted("c", 1, "echo", payloads),
        on.TasksFinished("w", 1, 2, 3, payloads, [Failure(3, "Error", "no")], 0.5, 1.5),
        do.Assign("w", 1, 2, "echo", 3, payloads),
        do.Deliver("c", 1, 3, payloads),
    ]


def chunks(chunk):
    """One message of each kind that carries a single chunk."""
    return [on.ChunkRead("w", 1, 2, 3, 4, [chunk]), do.DeliverChunk("c", 1, 2, 3, 4, [chunk])]


def kind(message):
    return type(message).__name__


def decode(message, frames):
    codec = PackedCodec()
    return (codec.events if type(message) in EVENTS else codec.actions)(frames)


# There and back


@given(st.lists(messages(EVENTS), min_size=1, max_size=3))
def test_every_event_comes_back_equal(events):
    assert PackedCodec().events(frames_of(*events)) == events


@given(st.lists(messages(ACTIONS), min_size=1, max_size=3))
def test_every_action_comes_back_equal(actions):
    assert PackedCodec().actions(frames_of(*actions)) == actions


def test_a_kept_buffer_writes_the_same_bytes_and_keeps_nothing_of_the_last_message():
    pooled, plain = PooledCodec(), PackedCodec()
    long = on.TasksSubmitted("c", 1, "echo", [ALMOST] * 40)
    for sent in ([long], [LEFT], [long, SUBMITTED, LEFT], [SUBMITTED]):
        assert pooled.encode(sent) == plain.encode(sent)
    first = pooled.encode([SUBMITTED])
    pooled.encode([long])
    assert pooled.events(first[0]) == [SUBMITTED]


def test_all_messages_to_a_peer_are_one_frame_and_none_are_none():
    (frame,) = frames_of(SUBMITTED, LEFT)
    for received in (frame, memoryview(frame), zmq.Frame(frame)):
        assert PackedCodec().events([received]) == [SUBMITTED, LEFT]
    assert PackedCodec().encode([]) == []


def test_every_message_with_a_column_of_bytes_is_known_to_have_one():
    with_column = {type(message): message for message in [*carriers([b"x"]), *chunks(b"x")]}
    assert COLUMNS.keys() == with_column.keys()
    payload_fields = {
        cls: [f.name for f in msgspec.structs.fields(cls) if f.type in (on.Payloads, on.OneChunk)]
        for cls in EVENTS + ACTIONS
    }
    assert {cls: [name] for cls, name in COLUMNS.items()} == {
        cls: names for cls, names in payload_fields.items() if names
    }


@given(messages(EVENTS), messages(ACTIONS))
def test_events_and_actions_are_not_mistaken_for_each_other(event, action):
    with pytest.raises(ProtocolError, match="not an envelope"):
        PackedCodec().actions(frames_of(event))
    with pytest.raises(ProtocolError, match="not an envelope"):
        PackedCodec().events(frames_of(action))


def test_a_peer_cannot_declare_a_worker_lost():
    with pytest.raises(ProtocolError):
        PackedCodec().events([envelope(on.WorkerUnreachable("w", []))])


# Large payloads


@pytest.mark.parametrize(
    "message",
    carriers([b"", LARGE, b"x", LARGE + b"2", ALMOST]),
    ids=kind,
)
def test_large_payloads_are_frames_of_their_own_and_the_rest_is_inside(message):
    frames = frames_of(LEFT if type(message) in EVENTS else do.Recall("w", 1, 2), message)
    assert frames[1:] == [LARGE, LARGE + b"2"]
    assert frames[1] is LARGE, "what is attached is not copied"
    assert ALMOST in frames[0]
    assert decode(message, frames)[1] == message


@given(
    st.lists(st.lists(st.sampled_from([b"", b"x", ALMOST, LARGE, LARGE + b"2"]), max_size=4)),
    st.data(),
)
def test_columns_keep_their_order_with_any_attachments(columns, data):
    kind = data.draw(st.integers(0, 3))
    sent = [carriers(column)[kind] for column in columns]
    if sent:
        assert decode(sent[0], frames_of(*sent)) == sent


@pytest.mark.parametrize("buffer", [memoryview, zmq.Frame])
def test_a_payload_in_a_buffer_is_forwarded_in_it(buffer):
    arrived = buffer(LARGE)
    header, _ = frames_of(on.TasksSubmitted("c", 1, "echo", [b"x", LARGE]))
    (event,) = PackedCodec().events([header, arrived])
    assert event.payloads[1] is arrived
    frames = frames_of(do.Assign("w", 1, 2, "echo", 0, event.payloads))
    assert frames[1] is arrived
    (lease,) = PackedCodec().actions(frames)
    assert lease.payloads[1] is arrived
    (result,) = PackedCodec().actions(frames_of(do.Deliver("c", 0, 0, [b"x", arrived])))
    assert [type(outcome) for outcome in result.outcomes] == [bytes, bytes]
    assert result.outcomes == [b"x", LARGE]


@pytest.mark.parametrize("message", chunks(LARGE), ids=kind)
def test_a_chunk_is_forwarded_and_taken_out_uncopied(message):
    header, attached = frames_of(message)
    assert attached is LARGE
    arrived = zmq.Frame(LARGE)
    assert decode(message, [header, arrived])[0].chunk[0] is arrived


def test_a_small_payload_in_a_frame_of_its_own_becomes_bytes():
    lease = on.TasksSubmitted("c", 1, "echo", [b"", b"x"])
    (event,) = PackedCodec().events([envelope(lease, attached=[(0, 0)]), zmq.Frame(b"small")])
    assert event.payloads == [b"small", b"x"]
    assert type(event.payloads[0]) is bytes


# Bounds of what is sent


@pytest.mark.parametrize(
    ("codec", "sent"),
    [
        (
            PackedCodec(10_000),
            [on.TasksSubmitted("c", n, "e", [b"x" * 1000] * 3) for n in range(9)],
        ),
        (PackedCodec(), [on.ClientLeft("c")] * (MAX_MESSAGES + 1)),
        (PackedCodec(), [on.TasksSubmitted("c", n, "e", [LARGE] * 30_000) for n in range(3)]),
        (PackedCodec(), [do.Deliver("c", n, 0, [b""] * 65_536) for n in range(20)]),
    ],
    ids=["bytes", "messages", "attached payloads", "values"],
)
def test_more_than_an_envelope_may_hold_is_split_in_order(codec, sent):
    multiparts = codec.encode(sent)
    assert len(multiparts) > 1
    assert all(len(frames[0]) <= codec._message_bytes for frames in multiparts)
    assert [message for frames in multiparts for message in decode(sent[0], frames)] == sent


@pytest.mark.parametrize("message", carriers([b"x" * 400, b"", b"y" * 700, b"z"]), ids=kind)
def test_a_message_over_the_bound_has_all_its_payloads_attached(message):
    (frames,) = PackedCodec(1_000).encode([message])
    assert frames[1:] == [b"x" * 400, b"y" * 700, b"z"]
    assert len(frames[0]) < 100
    assert decode(message, frames) == [message]


def test_a_message_over_the_bound_without_payloads_is_sent_as_it_is():
    beat = on.WorkerHeartbeat("w", 1, [2**40] * 500)
    ((frame,),) = PackedCodec(1_000).encode([beat])
    assert PackedCodec().events([frame]) == [beat]


def test_attached_payloads_count_for_the_message_but_not_for_its_envelope():
    sent = [on.TasksSubmitted("c", n, "echo", [LARGE]) for n in range(4)]
    assert [len(frames) for frames in PackedCodec(2 * len(LARGE)).encode(sent)] == [3, 3]


def test_one_message_may_have_all_its_payloads_attached():
    sent = on.TasksSubmitted("c", 1, "echo", [LARGE] * (on.MAX_TASKS_PER_MESSAGE))
    assert PackedCodec().events(frames_of(sent)) == [sent]


# Hostile input


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"\xc0"],
        [b"\x91\x02"],
        [b"\x80"],
        [b"\x91" * 100_000],
        [b"\x92\x03\x91" + b"\x91" * 100_000],
        [b"\x92\x03\x91\x93\x04\xa1c" + b"\x91" * 100_000],
        [b"\x94\x02\x90\x90" + b"\x91" * 100_000],
        [b"\xdc\xff\xff" * 2_000],
        [b"\xdd\xff\xff\xff\xff"],
        [b"\x93\x02\x90\xdd\xff\xff\xff\xff"],
        [b"\x92\x03\x91\x92\x04\xdb\xff\xff\xff\xff"],
        [b"\x92\x03\x91\x92\x04\xa2\xff\xfe"],
        [envelope(LEFT) + b"\xc0"],
        [envelope(LEFT, version=1)],
        [encode([VERSION, [LEFT] * (MAX_MESSAGES + 1)])],
        [encode([VERSION, {"messages": [LEFT]}])],
        [encode({"version": VERSION, "messages": [LEFT]})],
        [envelope(LEFT), b""],
        [envelope(SUBMITTED, attached=[(0, 0)])],
        [envelope(SUBMITTED, attached=[(0, 0)]), b"x", b"y"],
        [envelope(SUBMITTED, attached=[(0, 1)]), LARGE],
        [envelope(SUBMITTED, attached=[(1, 0)]), LARGE],
        [envelope(SUBMITTED, attached=[(-1, 0)]), LARGE],
        [envelope(SUBMITTED, attached=[(0, 2**64 - 1)]), LARGE],
        [envelope(SUBMITTED, attached=[(0,)]), LARGE],
        [envelope(LEFT, attached=[(0, 0)]), LARGE],
        [envelope(on.TasksCancelled("c", 1, [7]), attached=[(0, 0)]), LARGE],
        [envelope(do.Recall("w", 1, 2), attached=[(0, 0)]), LARGE],
        [envelope(attached=[(0, 0)] * (on.MAX_TASKS_PER_MESSAGE + 1))],
    ],
)
def test_hostile_input_is_refused(frames):
    codec = PackedCodec()
    with pytest.raises(ProtocolError):
        codec.events(frames)
    with pytest.raises(ProtocolError):
        codec.actions(frames)
    assert codec.events(frames_of(SUBMITTED)) == [SUBMITTED]


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([], "at least one frame"),
        ([envelope(LEFT, version=7)], "version 3 is spoken here, not 7"),
        ([envelope(LEFT), b"x", b"y"], "0 payloads were announced, 2 frames follow"),
        ([envelope(SUBMITTED, attached=[(0, 5)]), LARGE], "message 0 has no place 5"),
        ([envelope([4, ""])], "length >= 1"),
    ],
)
def test_a_refusal_says_what_is_wrong(frames, complaint):
    with pytest.raises(ProtocolError, match=complaint):
        PackedCodec().events(frames)


def test_two_payloads_for_one_place_leave_the_last():
    frames = [envelope(SUBMITTED, attached=[(0, 0), (0, 0)]), b"first", b"last"]
    assert PackedCodec().events(frames)[0].payloads == [b"last"]


def decodes_or_refuses(frames):
    """The frames decode to typed messages, or raise ProtocolError."""
    codec = PackedCodec()
    for way, classes in ((codec.events, EVENTS), (codec.actions, ACTIONS)):
        try:
            found = way(frames)
        except ProtocolError:
            continue
        assert {type(message) for message in found} <= set(classes)
        if found:
            assert way(frames_of(*found)) == found


@given(messages(EVENTS + ACTIONS), st.data())
def test_a_mutated_message_does_no_harm(message, data):
    packed = bytearray(frames_of(message)[0])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(packed)))
        cut = data.draw(st.integers(0, 3))
        packed[at : at + cut] = data.draw(st.binary(max_size=3))
    decodes_or_refuses([bytes(packed)])


@given(messages(EVENTS), st.data())
def test_a_truncated_message_is_refused(event, data):
    (packed,) = frames_of(event)
    with pytest.raises(ProtocolError):
        PackedCodec().events([packed[: data.draw(st.integers(0, len(packed) - 1))]])


@given(messages(EVENTS + ACTIONS), st.data())
def test_a_field_of_any_value_does_no_harm(message, data):
    fields = msgspec.msgpack.decode(encode(message))
    at = data.draw(st.integers(0, len(fields) - 1))
    fields[at] = data.draw(ANYTHING)
    decodes_or_refuses([envelope(fields)])


@given(
    st.lists(st.tuples(st.integers(-2, 2**64 - 1), st.integers(-2, 2**64 - 1)), max_size=3)
    | st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=3),
    st.lists(st.sampled_from([b"", b"x", LARGE]), max_size=3),
)
def test_attachments_for_any_place_do_no_harm(places, attached):
    sent = [LEFT, on.TasksSubmitted("c", 1, "echo", [b"", b"x"]), SUBMITTED]
    decodes_or_refuses([envelope(*sent, attached=places), *attached])


def test_a_large_frame_is_checked_as_a_small_one():
    padding = on.TasksSubmitted("c", 1, "echo", [ALMOST] * (COUNTED_BYTES // len(ALMOST) + 1))
    codec = PackedCodec()
    assert codec.events(frames_of(padding, LEFT)) == [padding, LEFT]
    for hostile in (
        envelope(padding, LEFT)[:-3],
        envelope(padding, [4, ""]),
        envelope(padding, [4, b"\xff"]),
        envelope(padding, do.Recall("w", 1, 2)),
        envelope(padding, version=1),
        envelope(padding) + b"\xc0",
        b"\x92\x03\x91\x93\x04\xa1c" + b"\x91" * COUNTED_BYTES,
        b"\x92\x03\x92" + encode(padding) + b"\x92\x04\xa2\xff\xfe",
    ):
        with pytest.raises(ProtocolError, match="version"):
            codec.events([hostile])


def test_hostile_input_does_not_multiply_in_memory():
    script = """if True:
    import resource
    from msgspec.msgpack import encode
    from cluster.vocabulary import events as on
    from cluster.vocabulary.errors import ProtocolError
    from cluster.vocabulary.task import Failure
    from perfkit.optimized.codec import PackedCodec

    def peak_kib():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    pairs = encode(on.ClientHeartbeat("c", 0, [], [(0, 0)] * 65_536))
    failures = encode(on.TasksFinished("w", 1, 1, 0, [], [Failure(0, "", "")] * 65_536))
    odd = encode(on.TasksSubmitted("c", 1, "k", [b"x"] * 65_536))
    row = b"\\xdc\\xff\\xff"
    hostile = [
        b"\\x92\\x02" + b"\\xdc\\x01\\x00" + pairs * 256,
        b"\\x92\\x02" + b"\\xdc\\x01\\x00" + failures * 256,
        b"\\x92\\x02" + b"\\xdc\\x01\\x00" + odd * 256,
        b"\\x92\\x02" + row * 10_000_000,
        b"\\x92\\x02" + b"\\x91" * 10_000_000,
    ]
    before = peak_kib()
    for frame in hostile:
        try:
            PackedCodec().events([frame])
        except ProtocolError:
            print("refused")
    print(peak_kib() - before)
    """
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    *refused, grown_kib = run.stdout.split()
    assert refused == ["refused"] * 5, run.stderr
    assert int(grown_kib) < 100 << 10


def test_a_large_but_honest_message_passes():
    failures = [Failure(n, "ValueError", "no") for n in range(65_536)]
    event = on.TasksFinished("w", 1, 1, 0, [b""] * 65_536, failures)
    assert PackedCodec().events(frames_of(event)) == [event]
    assert MAX_VALUES > 2 * 65_536
