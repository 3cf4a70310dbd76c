"""What peers say in any codec: hello, a sign of life, and the coordinator's announcement.

Both codecs refuse these frames, MessagePack having no value that begins with the byte 0xc1. So they
cost other messages nothing: a receiver looks for them only when its codec has failed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec

from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError, ProtocolError
from cluster.vocabulary.limits import Limits

#: ZeroMQ sends this when a connection opens (ZMQ_PROBE_ROUTER).
HELLO = b""
PING = b"\xc1ping"
PONG = b"\xc1pong"
#: what asks whether all that was sent before it has been handled, and the answer
IS_READ, READ = b"\xc1read?", b"\xc1read"
ANSWERS = {PING: PONG, IS_READ: READ}
ANNOUNCED = b"\xc1spec"
MAX_COMPLAINT = 1_000


class Announcement(msgspec.Struct):
    """The coordinator's spec, and why it refused the peer's last message, or the peer itself."""

    spec: ClusterSpec
    complaint: str = ""
    is_final: bool = False


#: made once, since threads that make one of a type at the same time may crash the interpreter
_DECODER = msgspec.json.Decoder(Announcement)


def announce(spec: ClusterSpec, complaint: str = "", *, is_final: bool = False) -> bytes:
    """The frame that announces a coordinator's spec, with a CRC-32 of its text."""
    text = msgspec.json.encode(Announcement(spec, complaint[:MAX_COMPLAINT], is_final))
    return b"".join((ANNOUNCED, zlib.crc32(text).to_bytes(4, "little"), text))


def heard(frames: Sequence[bytes]) -> Announcement | None:
    """The announcement in a message that is in no codec, unless it was changed on its way; raises
    ProtocolError if this version can't read it.
    """
    if len(frames) != 1 or not (frame := bytes(frames[0])).startswith(ANNOUNCED):
        return None
    text = frame[len(ANNOUNCED) + 4 :]
    if frame[len(ANNOUNCED) : len(ANNOUNCED) + 4] != zlib.crc32(text).to_bytes(4, "little"):
        return None
    try:
        return _DECODER.decode(text)
    except msgspec.DecodeError as error:
        raise ProtocolError(
            f"the coordinator announces a spec of another version: {error}"
        ) from error


def check_heard(frames: Sequence[bytes], own: ClusterSpec, endpoint: str) -> bool:
    """Whether a message is an announcement; raises ClusterError if the coordinator refuses this
    peer, or differs from it in what both have to share: the codec and the limits.
    """
    announced = heard(frames)
    if announced is None:
        return False
    there = announced.spec
    if announced.is_final:
        raise ClusterError(f"the coordinator at {endpoint} {announced.complaint}")
    if (own.codec, own.limits) != (there.codec, there.limits):
        raise ProtocolError(
            f"the coordinator at {endpoint} runs spec {there.name!r}, and spec {own.name!r} was "
            f"given here: {_difference(there, own)}; leave the spec out to adopt the coordinator's"
        )
    return True


def _difference(there: ClusterSpec, here: ClusterSpec) -> str:
    if there.codec != here.codec:
        return f"codec {there.codec} there, {here.codec} here"
    name = next(n for n in Limits.__struct_fields__ if _limit(there, n) != _limit(here, n))
    return f"limits.{name} is {_limit(there, name)} there, {_limit(here, name)} here"


def _limit(spec: ClusterSpec, name: str) -> object:
    return getattr(spec.limits, name)
