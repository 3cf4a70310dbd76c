"""The unit in which the coordinator's processor time is told: a fixed load of the same kind.

It decodes, files, queues and encodes messages, in about the coordinator's mix of Python and C, but
shares no code with the cluster. So a change of the cluster leaves it alone, while a slower machine,
clock or interpreter slows both, and the ratio stays. An edit of this file changes the unit: raise
VERSION then, and save every baseline anew.
"""

from __future__ import annotations

import random
from collections import deque

import msgpack
import msgspec

#: Figures in different versions of the unit are not comparable.
VERSION = 1
PAYLOAD_BYTES = 200
#: Messages of each codec in a piece, and pieces in the load: short, so that some run undisturbed.
PIECE_MESSAGES = 8
PIECES = 24


class _Note(msgspec.Struct, array_like=True, tag=True):
    number: int
    name: str
    payloads: list[bytes]


class _Held:
    __slots__ = ("key", "payloads", "touched")

    def __init__(self, key: tuple[str, int], payloads: list[bytes]) -> None:
        self.key = key
        self.payloads = payloads
        self.touched = 0


class ReferenceLoad:
    """The load in PIECES pieces, all of the same size; every call of `run` does the same."""

    def __init__(self) -> None:
        rng = random.Random(VERSION)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(_Note)
        notes = [
            _Note(number, f"client-{number % 7}", [rng.randbytes(PAYLOAD_BYTES)])
            for number in range(PIECES * PIECE_MESSAGES)
        ]
        self._typed = [self._encoder.encode(note) for note in notes]
        self._plain = [
            msgpack.packb({"number": it.number, "name": f"w{it.name}", "payloads": it.payloads})
            for it in notes
        ]

    def run(self, piece: int) -> int:
        """Do a piece, from 0 up to PIECES; returns the bytes that it encoded."""
        here = slice(piece * PIECE_MESSAGES, (piece + 1) * PIECE_MESSAGES)
        table: dict[tuple[str, int], _Held] = {}
        queue: deque[_Held] = deque()
        for frame in self._typed[here]:
            note = self._decoder.decode(frame)
            held = table[note.name, note.number] = _Held((note.name, note.number), note.payloads)
            queue.append(held)
        for frame in self._plain[here]:
            fields = msgpack.unpackb(frame)
            key = fields["name"], fields["number"]
            held = table[key] = _Held(key, fields["payloads"])
            queue.append(held)
        encoded = 0
        while queue:
            held = queue.popleft()
            held.touched += 1
            for answer in _answers(table.pop(held.key)):
                if isinstance(answer, _Note):
                    encoded += len(self._encoder.encode(answer))
                else:
                    encoded += len(msgpack.packb(answer))
        return encoded


def _answers(held: _Held) -> list[_Note | dict[str, object]]:
    name, number = held.key
    if number % 2:
        return [_Note(number, name, held.payloads)]
    return [{"number": number, "name": name, "payloads": held.payloads}]
