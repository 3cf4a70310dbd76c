"""A message comes back equal; any other input is a ProtocolError and costs little memory."""

import math
import subprocess
import sys

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.protocol.codec import DictCodec
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ProtocolError
from cluster.vocabulary.task import (
    MAX_GPUS,
    Failure,
    GpuLoad,
    Load,
    Priority,
    Requirements,
    Retry,
)
from perfkit.optimized.codec import PackedCodec
from tests.cluster.protocol.wire import ACTIONS, ANYTHING, EVENTS, messages


def frame(message):
    ((packed,),) = DictCodec().encode([message])
    return packed


SUBMITTED = on.TasksSubmitted("client", 1, "echo", [b"x"])
FIELDS = {"v": 2, "type": "client_heartbeat", "client": "c", "floor": 0, "received": []}
FIELDS["waiting"] = FIELDS["partly"] = []


@given(messages(EVENTS))
def test_an_event_comes_back_equal_and_does_not_pass_for_an_action(event):
    assert DictCodec().events([frame(event)]) == [event]
    with pytest.raises(ProtocolError, match="goes this way"):
        DictCodec().actions([frame(event)])


@given(messages(ACTIONS))
def test_an_action_comes_back_equal_and_does_not_pass_for_an_event(action):
    assert DictCodec().actions([frame(action)]) == [action]
    with pytest.raises(ProtocolError, match="goes this way"):
        DictCodec().events([frame(action)])


def test_each_message_is_one_frame_of_its_own():
    left = on.ClientLeft("client")
    codec = DictCodec()
    encoded = codec.encode([SUBMITTED, left])
    assert [len(frames) for frames in encoded] == [1, 1]
    assert [codec.events(frames) for frames in encoded] == [[SUBMITTED], [left]]


def test_a_message_is_a_map_of_named_fields_that_any_language_can_read():
    event = on.TasksSubmitted(
        "client", 7, "echo", [b"a"], Priority.HIGH, Requirements(model="m"), 2.5, Retry(3)
    )
    fields = msgpack.unpackb(frame(event))
    assert fields == {
        "v": 2,
        "type": "tasks_submitted",
        "client": "client",
        "submission": 7,
        "kind": "echo",
        "payloads": [b"a"],
        "priority": 1,
        "requirements": {"model": "m"},
        "timeout_s": 2.5,
        "retry": {"max_attempts": 3},
        "sent_at": None,
        "wait_for_worker": False,
    }


def test_nobody_speaks_for_the_dead():
    fields = {"v": 2, "type": "worker_unreachable", "worker": "w", "leases": []}
    with pytest.raises(ProtocolError, match="worker_unreachable"):
        DictCodec().events([msgpack.packb(fields)])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"v": 1}, "version 2"),
        ({"v": None}, "version 2"),
        ({"v": [1]}, "version 2"),
        ({"type": "client_hearts"}, "'client_hearts'"),
        ({"type": None}, "'None'"),
        ({"type": ["client_left"] * 1000}, "no message type"),
        ({"type": "worker_lost"}, "no message type 'worker_lost'"),
        ({"type": "worker_left"}, "worker_left lacks the field 'worker'"),
        ({"client": b"c"}, "client_heartbeat"),
        ({"client": ""}, "client_heartbeat"),
        ({"client": "c" * 129}, "client_heartbeat"),
        ({"floor": -1}, "client_heartbeat"),
        ({"floor": 1.5}, "client_heartbeat"),
        ({"floor": "0"}, "client_heartbeat"),
        ({"floor": float("nan")}, "client_heartbeat"),
        ({"received": {}}, "client_heartbeat"),
        ({"received": [[]]}, "client_heartbeat"),
        ({"waiting": [[1]]}, "client_heartbeat"),
        ({"waiting": [[1, 2, 3]]}, "client_heartbeat"),
        ({"received": [0] * 65_537}, "exceeds"),
        ({str(n): n for n in range(64)}, "exceeds"),
        ({"client": "c" * (1 << 20) + "c"}, "exceeds"),
        ({"floor": msgpack.ExtType(5, b"code")}, "exceeds"),
    ],
)
def test_a_field_of_the_wrong_kind_or_size_is_refused(change, complaint):
    assert DictCodec().events([msgpack.packb(FIELDS)]) == [on.ClientHeartbeat("c", 0)]
    with pytest.raises(ProtocolError, match=complaint):
        DictCodec().events([msgpack.packb(FIELDS | change)])


@pytest.mark.parametrize("frames", [[], [frame(SUBMITTED)] * 2, [b"", frame(SUBMITTED)]])
def test_a_message_of_another_number_of_frames_is_refused(frames):
    with pytest.raises(ProtocolError, match=f"this has {len(frames)}"):
        DictCodec().events(frames)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e10])
def test_a_time_that_no_clock_shows_is_refused(value):
    with pytest.raises(ProtocolError):
        DictCodec().events([frame(msgspec.structs.replace(SUBMITTED, timeout_s=value))])


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x91" * 100_000,
        b"\x81\xa1v" * 100_000,
        b"\xdc\xff\xff" * 2_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xc1",
        b"\xa2\xff\xfe",
        b"\x81\x90\x90",
        b"\x81\x01\x01",
        b"\x93\x01\x02\x03",
        b"\xc0",
        b"",
        frame(SUBMITTED) + b"\xc0",
    ],
    ids=lambda hostile: hostile[:6].hex() or "empty",
)
def test_hostile_messagepack_is_refused(hostile):
    codec = DictCodec()
    with pytest.raises(ProtocolError):
        codec.events([hostile])
    with pytest.raises(ProtocolError):
        codec.actions([hostile])
    assert codec.events([frame(SUBMITTED)]) == [SUBMITTED]


def decodes_or_refuses(packed):
    """Any input is one typed message or a ProtocolError."""
    codec = DictCodec()
    for decode, classes in ((codec.events, EVENTS), (codec.actions, ACTIONS)):
        try:
            (message,) = decode([packed])
        except ProtocolError:
            continue
        assert type(message) in classes
        assert decode([frame(message)]) == [message]


@given(st.binary(max_size=200))
def test_random_bytes_do_no_harm(packed):
    decodes_or_refuses(packed)


@given(messages(EVENTS + ACTIONS), st.data())
def test_a_mutated_message_does_no_harm(message, data):
    packed = bytearray(frame(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(packed)))
        cut = data.draw(st.integers(0, 3))
        packed[at : at + cut] = data.draw(st.binary(max_size=3))
    decodes_or_refuses(bytes(packed))


@given(messages(EVENTS), st.data())
def test_a_truncated_message_is_refused(event, data):
    packed = frame(event)
    with pytest.raises(ProtocolError):
        DictCodec().events([packed[: data.draw(st.integers(0, len(packed) - 1))]])


@given(messages(EVENTS + ACTIONS), st.data())
def test_a_field_of_any_other_value_does_no_harm(message, data):
    fields = msgpack.unpackb(frame(message))
    name = data.draw(st.sampled_from(sorted(fields)))
    decodes_or_refuses(msgpack.packb(fields | {name: data.draw(ANYTHING)}))


def test_hostile_input_does_not_multiply_in_memory():
    script = """if True:
    import resource
    from cluster.protocol.codec import DictCodec
    from cluster.vocabulary.errors import ProtocolError

    def peak_kib():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    row = b"\\xdc\\xff\\xff"
    hostile = [
        b"\\x81\\xa1v" + b"\\xdc\\x00\\x40" + (row + b"\\x90" * 65_535) * 64,
        b"\\x81\\xa1v" + b"\\xdc\\x00\\x40" + (row + b"\\x80" * 65_535) * 64,
        row * 1_000_000,
        b"\\x91" * 4_000_000,
        b"\\x81\\xa1v" * 1_000_000,
    ]
    before = peak_kib()
    for frame in hostile:
        try:
            DictCodec().events([frame])
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
    assert DictCodec().events([frame(event)]) == [event]


@pytest.mark.parametrize("codec", [DictCodec, PackedCodec])
@pytest.mark.parametrize(
    "gpus",
    [
        (GpuLoad(busy_pct=math.nan),),
        (GpuLoad(busy_pct=100.1),),
        (GpuLoad(busy_pct=-1.0),),
        (GpuLoad(temperature_c=math.inf),),
        (GpuLoad(power_w=-1.0),),
        (GpuLoad(free_bytes=-1),),
        (GpuLoad(own_engine_ns=-1),),
        (GpuLoad(trouble="x" * 513),),
        (GpuLoad(),) * (MAX_GPUS + 1),
    ],
)
def test_a_load_that_no_card_can_have_is_refused(codec, gpus):
    ((*frames,),) = codec().encode([on.WorkerHeartbeat("w", 1, [], Load(gpus=gpus))])
    with pytest.raises(ProtocolError):
        codec().events(frames)


@pytest.mark.parametrize("codec", [DictCodec, PackedCodec])
def test_the_load_of_many_cards_is_a_small_message(codec):
    card = GpuLoad(1 << 33, 50.0, 61.0, 83.4, False, "0000:0a:00.0 is gone", 1 << 33, 1 << 50)
    beat = on.WorkerHeartbeat("w", 1, [], Load(1 << 33, 1 << 33, (card,) * 8))
    ((frame_,),) = codec().encode([beat])
    assert len(frame_) < 1_500
    assert codec().events([frame_]) == [beat]
