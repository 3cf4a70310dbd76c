"""Messages to frames and back.

A codec turns messages into multipart messages, and frames into typed events or actions. Decoding
any input returns a message of this version's types or raises ProtocolError.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, get_args

import msgpack
import msgspec

from cluster.vocabulary.actions import Action
from cluster.vocabulary.errors import ProtocolError
from cluster.vocabulary.events import MAX_TASKS_PER_MESSAGE, Event, FromPeer
from cluster.vocabulary.limits import Limits

VERSION = 2
MAX_TEXT_BYTES = 1 << 20
MAX_FIELDS = 64
#: list items and map entries of a whole message: an empty list is 1 byte on the wire, 60 in memory
MAX_VALUES = 8 * MAX_TASKS_PER_MESSAGE

Frame: TypeAlias = bytes
Message: TypeAlias = Event | Action


class Codec(Protocol):
    """How messages are encoded. One codec serves one thread; it is made with ``message_bytes``, the
    bound of a frame.
    """

    def encode(self, messages: Sequence[Message]) -> list[list[Frame]]:
        """Multipart messages, each a list of frames, that carry ``messages`` to one peer."""

    def events(self, frames: Sequence[Frame]) -> list[Event]:
        """The events in a peer's message to the coordinator; raises ProtocolError."""

    def actions(self, frames: Sequence[Frame]) -> list[Action]:
        """The actions in the coordinator's message to a peer; raises ProtocolError."""


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def in_words(error: msgspec.ValidationError, cls: type[Any]) -> str:
    """A validation error with the name of the field instead of its index in the array."""

    def name(place: re.Match[str]) -> str:
        return f"`{cls.__struct_fields__[int(place[1]) - 1]}"

    return re.sub(r"`\$\[(\d+)\]", name, str(error))


class DictCodec:
    """Each message is one MessagePack map in one frame: its version ``v``, its ``type``, then its
    fields by name.

    Format: https://github.com/msgpack/msgpack/blob/master/spec.md
    """

    _EVENTS: ClassVar[dict[str, type[Any]]] = {
        _snake(cls.__name__): cls for cls in get_args(FromPeer)
    }
    _ACTIONS: ClassVar[dict[str, type[Any]]] = {
        _snake(cls.__name__): cls for cls in get_args(Action)
    }
    _NAMES: ClassVar[dict[type[Any], str]] = {
        cls: name for name, cls in (_EVENTS | _ACTIONS).items()
    }

    def __init__(self, message_bytes: int = Limits().message_bytes) -> None:
        self._message_bytes = message_bytes
        self._packer = msgpack.Packer(default=msgspec.to_builtins)
        self._values = 0

    def encode(self, messages: Sequence[Message]) -> list[list[Frame]]:
        """One frame per message."""
        return [[self._pack(message)] for message in messages]

    def events(self, frames: Sequence[Frame]) -> list[Event]:
        """The one event in the frame; raises ProtocolError."""
        return [self._unpack(frames, self._EVENTS)]

    def actions(self, frames: Sequence[Frame]) -> list[Action]:
        """The one action in the frame; raises ProtocolError."""
        return [self._unpack(frames, self._ACTIONS)]

    def _pack(self, message: Message) -> bytes:
        fields = msgspec.structs.asdict(message)
        packed: bytes = self._packer.pack(
            {"v": VERSION, "type": self._NAMES[type(message)], **fields}
        )
        return packed

    def _unpack(self, frames: Sequence[Frame], types: dict[str, Any]) -> Any:
        if len(frames) != 1:
            raise ProtocolError(f"a message is one frame, this has {len(frames)}")
        self._values = 0
        try:
            fields = msgpack.unpackb(
                frames[0],
                list_hook=self._count,
                object_hook=self._count,
                max_str_len=MAX_TEXT_BYTES,
                max_bin_len=self._message_bytes,
                max_array_len=MAX_TASKS_PER_MESSAGE,
                max_map_len=MAX_FIELDS,
                max_ext_len=0,
            )
        except Exception as error:  # msgpack raises a dozen unrelated types on hostile input
            raise ProtocolError(f"not MessagePack within bounds: {error!r}") from error
        if not isinstance(fields, dict) or fields.get("v") != VERSION:
            raise ProtocolError(f"not a map of protocol version {VERSION}")
        cls = types.get(str(fields.get("type")))
        if cls is None:
            raise ProtocolError(f"no message type {str(fields.get('type'))[:40]!r} goes this way")
        try:
            values = [fields[name] for name in cls.__struct_fields__]
            return msgspec.convert([cls.__struct_config__.tag, *values], cls)
        except KeyError as error:
            raise ProtocolError(f"{fields['type']} lacks the field {error}") from error
        except msgspec.ValidationError as error:
            raise ProtocolError(f"{fields['type']}: {in_words(error, cls)}") from error

    def _count(self, items: Any) -> Any:
        self._values += len(items) + 1
        if self._values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values in one message")
        return items
