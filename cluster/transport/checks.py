"""A CRC-32 (zlib's) behind the frames of each message. A message that was changed on its way is
lost then instead of wrong, and the protocol mends what is lost.

TCP's own sum misses one change in 65,536. Nothing changes bytes on loopback, where the sums would
cost a quarter of the throughput of small tasks and half of that of payloads of 1 MiB. So they are
added where other machines are reached, and where the spec says ``checks``. A coordinator announces
what it does, and its peers follow.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

CHECK_BYTES = 4
#: how frames begin that are in no codec, and carry no sum (hello.py)
PLAIN = b"\xc1"


def add_check(frames: Sequence[Any], start: int) -> Sequence[Any]:
    """A message with its sum; the frames before ``start`` are its route."""
    return frames if _is_plain(frames[start]) else [*frames, _check(frames[start:])]


def take_check(frames: list[Any], start: int) -> bool:
    """Remove a message's sum; returns whether the message is as it was sent."""
    if len(frames) == start + 1:
        return _is_plain(frames[start])
    return bytes(frames.pop()) == _check(frames[start:])


def _is_plain(frame: Any) -> bool:
    head = bytes(memoryview(frame)[:1])
    return not head or head == PLAIN


def _check(frames: Sequence[Any]) -> bytes:
    check = len(frames)
    for frame in frames:
        check = zlib.crc32(frame, check)
    return check.to_bytes(CHECK_BYTES, "little")
