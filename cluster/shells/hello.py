"""What peers say in any codec: hello, a sign of life, and the coordinator's announcement.

Both codecs refuse these frames, MessagePack having no value that begins with the byte 0xc1. So they
cost other messages nothing: a receiver looks for them only when its codec has failed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ProtocolError

#: ZeroMQ sends this when a connection opens (ZMQ_PROBE_ROUTER).
HELLO = b""
PING = b"\xc1ping"
PONG = b"\xc1pong"
ANNOUNCED = b"\xc1spec"
MAX_COMPLAINT = 1_000


class Announcement(msgspec.Struct):
    """The coordinator's spec, and why it refuses the peer or the peer's last message, if so."""

    spec: ClusterSpec
    complaint: str = ""


def announce(spec: ClusterSpec, complaint: str = "") -> bytes:
    """The frame that announces a coordinator's spec."""
    return ANNOUNCED + msgspec.json.encode(Announcement(spec, complaint[:MAX_COMPLAINT]))


def heard(frames: Sequence[bytes]) -> Announcement | None:
    """The announcement in a message that is in no codec; raises ProtocolError if this version can't
    read it.
    """
    if len(frames) != 1 or not bytes(frames[0]).startswith(ANNOUNCED):
        return None
    try:
        return msgspec.json.decode(frames[0][len(ANNOUNCED) :], type=Announcement)
    except msgspec.DecodeError as error:
        raise ProtocolError(
            f"the coordinator announces a spec of another version: {error}"
        ) from error
