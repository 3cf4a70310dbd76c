"""The packed codec: everything for one peer in one frame, decoded straight into typed structs.

Frames and sends cost much, bytes little. So a message is an array without field names, many
messages share a frame, and payloads travel inside it as a column.
A payload whose copy would cost more than a frame follows in a frame of its own, which the
coordinator forwards uncopied.

The schema is compiled once, at import: msgspec's decoder knows every type and bound, so hostile
bytes are refused at the first value that does not fit. A frame large enough to hide very many tiny
values is decoded message by message, and refused at too many values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from cluster.protocol.codec import MAX_VALUES, Frame, Message
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ProtocolError
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import Count

VERSION: Final = 3
#: from this size on a payload is a frame of its own
ATTACH_BYTES: Final = 32_768
MAX_MESSAGES: Final = 4_096
MAX_FRAMES: Final = Limits().message_frames
#: from this size on the values of a frame are counted: a byte can become thirty in memory
COUNTED_BYTES: Final = 1 << 20
#: the messages with a column of bytes, and its name
COLUMNS: Final[dict[type[Any], str]] = {
    on.TasksSubmitted: "payloads",
    on.TasksFinished: "outcomes",
    do.Assign: "payloads",
    do.Deliver: "outcomes",
    on.ChunkRead: "chunk",
    do.DeliverChunk: "chunk",
}

Places: TypeAlias = Annotated[list[tuple[Count, Count]], Meta(max_length=on.MAX_TASKS_PER_MESSAGE)]


class Events(msgspec.Struct, array_like=True):
    """Messages to the coordinator in an envelope: the protocol's version, the messages, and for
    each attached frame its (message, position in that message's column).
    """

    version: int
    messages: Annotated[list[on.FromPeer], Meta(max_length=MAX_MESSAGES)]
    attached: Places = []


class Actions(msgspec.Struct, array_like=True):
    """Messages from the coordinator in an envelope."""

    version: int
    messages: Annotated[list[do.Action], Meta(max_length=MAX_MESSAGES)]
    attached: Places = []


class Sealed(msgspec.Struct, array_like=True):
    """An envelope with messages that are not decoded yet."""

    version: int
    messages: Annotated[list[msgspec.Raw], Meta(max_length=MAX_MESSAGES)]
    attached: Places = []


class Direction:
    """The decoders for messages of one direction."""

    def __init__(self, envelope: Any, message: Any) -> None:
        self._envelope = msgspec.msgpack.Decoder(envelope)
        self._sealed = msgspec.msgpack.Decoder(Sealed)
        self._message = msgspec.msgpack.Decoder(message)

    def unpack(self, frames: Sequence[Frame]) -> Any:
        """The messages in the frames; raises ProtocolError."""
        if not frames:
            raise ProtocolError("a message is at least one frame, this has none")
        first = frames[0]
        small = len(first) < COUNTED_BYTES
        try:
            envelope = self._envelope.decode(first) if small else self._count(first)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            words = f"not an envelope of protocol version {VERSION}: {error}"
            raise ProtocolError(words) from error
        version, told, follow = envelope.version, len(envelope.attached), len(frames) - 1
        if version != VERSION:
            raise ProtocolError(f"protocol version {VERSION} is spoken here, not {version}")
        if told != follow:
            raise ProtocolError(f"{told} payloads were announced, {follow} frames follow")
        if told:
            _attach(envelope, frames)
        return envelope.messages

    def _count(self, frame: Frame) -> Any:
        envelope: Any = self._sealed.decode(frame)
        messages, values = envelope.messages, 0
        for number, sealed in enumerate(messages):
            messages[number] = self._message.decode(sealed)
            values += _values(messages[number])
            if values > MAX_VALUES:
                raise ProtocolError(f"more than {MAX_VALUES} values in one envelope")
        return envelope


_EVENTS: Final = Direction(Events, on.FromPeer)
_ACTIONS: Final = Direction(Actions, do.Action)


class PackedCodec:
    """Encodes all messages to a peer as one multipart message: an envelope, then large payloads.

    Format: MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md), structs as arrays
    that begin with their tag.
    """

    def __init__(self, message_bytes: int = Limits().message_bytes) -> None:
        self._message_bytes = message_bytes
        self._encoder = msgspec.msgpack.Encoder()
        self._encode: Callable[[Sequence[Any]], bytes] = self._encoder.encode

    def encode(self, messages: Sequence[Message]) -> list[list[Frame]]:
        """One multipart message, or several where one would exceed a bound."""
        if not messages:
            return []
        frames = self._pack(messages)
        if len(messages) > 1 and not self._fits(messages, frames):
            half = len(messages) // 2
            return [*self.encode(messages[:half]), *self.encode(messages[half:])]
        if len(frames[0]) > self._message_bytes:
            frames = self._detached(messages, 1)
        return [frames]

    def events(self, frames: Sequence[Frame]) -> list[on.Event]:
        """The messages to the coordinator; attached payloads stay frames."""
        messages: list[on.Event] = _EVENTS.unpack(frames)
        return messages

    def actions(self, frames: Sequence[Frame]) -> list[do.Action]:
        """The messages from the coordinator; attached results become bytes, attached payloads and
        chunks stay frames.
        """
        messages: list[do.Action] = _ACTIONS.unpack(frames)
        return messages

    def _fits(self, messages: Sequence[Message], frames: Sequence[Frame]) -> bool:
        """Whether the receiver will accept these frames."""
        size = len(frames[0])
        return (
            size <= self._message_bytes
            and (len(frames) == 1 or sum(map(len, frames)) <= 2 * self._message_bytes)
            and len(messages) <= MAX_MESSAGES
            and len(frames) <= MAX_FRAMES
            and (size < COUNTED_BYTES or sum(map(_values, messages)) <= MAX_VALUES)
        )

    def _pack(self, messages: Sequence[Message]) -> list[Frame]:
        for message in messages:
            name = COLUMNS.get(type(message))
            column = getattr(message, name) if name else None
            if column and max(map(len, column)) >= ATTACH_BYTES:
                return self._detached(messages)
        return [self._encode((VERSION, messages, ()))]

    def _detached(self, messages: Sequence[Message], from_bytes: int = ATTACH_BYTES) -> list[Frame]:
        """As `_pack`, with payloads of ``from_bytes`` or more in frames of their own."""
        emptied: list[Message] = []
        attached: list[tuple[int, int]] = []
        frames: list[Frame] = []
        for number, message in enumerate(messages):
            name = COLUMNS.get(type(message))
            column = [*getattr(message, name)] if name else []
            large = [at for at, payload in enumerate(column) if len(payload) >= from_bytes]
            for at in large:
                attached.append((number, at))
                frames.append(column[at])
                column[at] = b""
            if large and name:
                message = msgspec.structs.replace(message, **{name: column})
            emptied.append(message)
        return [self._encode((VERSION, emptied, attached)), *frames]


class PooledCodec(PackedCodec):
    """The packed codec with one kept buffer, where its encoder makes one for each message.

    One owner writes one message at a time, and the encoder cuts the buffer to the message's length.
    A BufferPool would not fit: its buffers keep their size.
    """

    def __init__(self, message_bytes: int = Limits().message_bytes) -> None:
        super().__init__(message_bytes)
        self._buffer = bytearray(1 << 20)
        self._encode = self._encode_pooled

    def _encode_pooled(self, envelope: Sequence[Any]) -> bytes:
        self._encoder.encode_into(envelope, self._buffer)
        return bytes(self._buffer)


def _values(message: Message) -> int:
    """The number of items in its lists."""
    return sum(len(f) for f in msgspec.structs.astuple(message) if isinstance(f, list))


def _attach(envelope: Any, frames: Sequence[Frame]) -> None:
    """Put the attached frames into their columns."""
    for (number, at), frame in zip(envelope.attached, islice(frames, 1, None), strict=True):
        try:
            message = envelope.messages[number]
            column = getattr(message, COLUMNS[type(message)])
            copied = type(message) is do.Deliver
            column[at] = bytes(frame) if copied or len(frame) < ATTACH_BYTES else frame
        except (IndexError, KeyError) as error:
            raise ProtocolError(f"message {number} has no place {at} for a payload") from error
