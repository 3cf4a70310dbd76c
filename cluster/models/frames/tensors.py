"""Named tensors on the wire: the inputs of any model, and its outputs.

Every model takes such a frame beside the payloads of its own kind, and answers it with one. The
names of types and the bytes of each tensor are those of the Open Inference Protocol's binary
extension (https://github.com/kserve/open-inference-protocol), so that a server passes them on
uncopied and needs no numpy. A frame is

=================  =============================================================================
bytes              content
=================  =============================================================================
0–1                ``b"T2"``: the format and its version
2–5                length of the header, unsigned 32 bit, little-endian
6 …                the header: a MessagePack array, see `Header`
… multiple of 16   zeros; then each tensor's bytes, each followed by zeros to a multiple of 16
=================  =============================================================================

Numbers are little-endian, rows first. A BYTES tensor holds its elements one after another, each
behind its length, unsigned 32 bit, little-endian.

`DESCRIBE` is a payload too: any model answers it with its `cluster.models.inference.ModelInfo` as
JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import repeat
from math import prod
from typing import Annotated, Literal, NamedTuple, TypeAlias, get_args

import msgspec
from msgspec import Meta

from cluster.models.frames.tensor import (
    ALIGNMENT,
    DIMENSIONS_MAX,
    TENSOR_BYTES_MAX,
    Extent,
    TensorError,
    open_frame,
)

TENSORS_MAX = 256
NAME_LENGTH_MAX = 1_024

Datatype: TypeAlias = (
    Literal["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
    | Literal["FP16", "FP32", "FP64", "BYTES"]
)
#: The bytes of an element; an element of BYTES has a length of its own.
ITEM_BYTES: dict[str, int] = {
    **dict.fromkeys(("BOOL", "UINT8", "INT8"), 1),
    **dict.fromkeys(("UINT16", "INT16", "FP16"), 2),
    **dict.fromkeys(("UINT32", "INT32", "FP32"), 4),
    **dict.fromkeys(("UINT64", "INT64", "FP64"), 8),
}
DATATYPES: tuple[str, ...] = tuple(t for part in get_args(Datatype) for t in get_args(part))

MAGIC, WHAT = b"T2", "frame of tensors"
DESCRIBE = b"T2?"
#: Before a text it asks for the number of tokens too. No text in UTF-8 begins so.
COUNTED = b"\xff"

#: headers with more names, or more bytes, are not remembered
KNOWN_NAMES_MAX, KNOWN_BYTES_MAX = 8, 1_024

_PADDINGS = [bytes(length) for length in range(ALIGNMENT)]
_PREFIX = struct.Struct("<2sI")
_LENGTH = struct.Struct("<I")

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
Shape: TypeAlias = Annotated[tuple[Extent, ...], Meta(max_length=DIMENSIONS_MAX)]


class Port(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A tensor without its numbers: name, type and shape."""

    name: Name
    datatype: Datatype
    shape: Shape

    def __str__(self) -> str:
        """The tensor as an error message names it: ``FP32[1, 64] 'input'``."""
        return f"{self.datatype}{list(self.shape)} {self.name!r}"


class Header(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, eq=False):
    """The tensors that follow, in order, and the names of the outputs wanted; none means all.

    Two are equal only if they are the same: small frames with the same header share one.
    """

    tensors: Annotated[tuple[Port, ...], Meta(max_length=TENSORS_MAX)]
    outputs: Annotated[tuple[Name, ...], Meta(max_length=TENSORS_MAX)] = ()


class Tensor(NamedTuple):
    """A named tensor: its data are the numbers as bytes, see the top of this file."""

    port: Port
    data: bytes | memoryview


class Tensors(NamedTuple):
    """What a frame holds: tensors, whose data are views of it, and its header."""

    tensors: tuple[Tensor, ...]
    header: Header


class Layout(msgspec.Struct, frozen=True, eq=False):
    """What a header tells: where the data of each tensor begin and end, and where the frame ends.
    The last is None if that depends on the data. As with headers, equal small ones are the same.
    """

    header: Header
    spans: tuple[tuple[Port, int, int], ...]
    end: int | None


#: as calling `Tensor`, without a call into Python
_tensor = partial(tuple.__new__, Tensor)
_DECODER = msgspec.msgpack.Decoder(Header)


def encode_tensors(tensors: Sequence[Tensor], outputs: Iterable[str] = ()) -> bytes:
    """The frame of some tensors, whose data are copied once.

    Raises:
        TensorError: the data do not fit shape and type, or a bound is exceeded.
    """
    ports, names = tuple([tensor.port for tensor in tensors]), tuple(outputs)
    head = _known_head if len(ports) + len(names) <= KNOWN_NAMES_MAX else _head
    parts: list[bytes | memoryview] = [head(ports, names)]
    for port, data in tensors:
        check_data(port, data)
        parts += (data, _PADDINGS[-len(data) % ALIGNMENT])
    return b"".join(parts)


def encode_alike(ports: Sequence[Port], columns: Sequence[bytes], count: int) -> list[bytes]:
    """As `encode_tensors`, ``count`` frames with these ports, none of which is empty or BYTES. A
    column holds the data of one tensor of all frames, one after another.
    """
    parts: list[Iterable[bytes]] = [repeat(_known_head(tuple(ports), ()), count)]
    for port, column in zip(ports, columns, strict=True):
        size_bytes = _size_bytes(port) or 0
        if len(column) != count * size_bytes:
            raise TensorError(f"{count} of {port} take other than {len(column)} bytes")
        parts.append([column[at : at + size_bytes] for at in range(0, len(column), size_bytes)])
        parts.append(repeat(_PADDINGS[-size_bytes % ALIGNMENT], count))
    return list(map(b"".join, zip(*parts, strict=True)))


def decode_tensors(buffer: bytes | bytearray | memoryview) -> Tensors:
    """What is in a frame; the data are views that keep ``buffer`` alive.

    Raises:
        TensorError: anything but exactly one frame as `encode_tensors` makes it.
    """
    return split_frame(*open_tensors(buffer))


def open_tensors(
    buffer: bytes | bytearray | memoryview,
) -> tuple[bytes | memoryview, Layout, int]:
    """A frame's bytes, what its header tells, and where that ends; TensorError if it is none."""
    if type(buffer) is bytes:
        at = _PREFIX.size + int.from_bytes(buffer[2:6], "little")
        if at <= KNOWN_BYTES_MAX:
            return buffer, _known_layout(buffer[:at]), at
    return open_frame(buffer, WHAT, _PREFIX, MAGIC, _layout)


def split_frame(frame: bytes | memoryview, layout: Layout, at: int) -> Tensors:
    """What is in an open frame; TensorError if its data are torn."""
    view = memoryview(frame).toreadonly()
    spans = layout.spans if layout.end == len(view) else _spans(view, layout.header, at)
    tensors = tuple([_tensor((port, view[start:stop])) for port, start, stop in spans])
    return Tensors(tensors, layout.header)


def check_data(port: Port, data: bytes | memoryview) -> None:
    """Raise TensorError unless a tensor's data fit its type and shape."""
    size_bytes = _size_bytes(port)
    if size_bytes is None:
        size_bytes = _measure(port, memoryview(data))
    if len(data) != size_bytes:
        raise TensorError(f"{port} takes {size_bytes} bytes, not {len(data)}")


def split_bytes(port: Port, data: bytes | memoryview) -> Iterator[memoryview]:
    """The elements of a BYTES tensor; TensorError if the data end within one."""
    view, at = memoryview(data), 0
    for number in range(prod(port.shape)):
        if at + _LENGTH.size > len(view):
            raise TensorError(f"{port} ends before the length of element {number}")
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size + length
        if at > len(view):
            raise TensorError(f"{port} ends within element {number}, of {length} bytes")
        yield view[at - length : at]


def join_bytes(elements: Iterable[bytes | memoryview]) -> bytes:
    """The data of a BYTES tensor with these elements."""
    return b"".join(part for one in elements for part in (_LENGTH.pack(len(one)), one))


def _layout(encoded: bytes | memoryview) -> Layout:
    header = _DECODER.decode(encoded)
    spans, at = [], _PREFIX.size + len(encoded)
    at += -at % ALIGNMENT
    for port in header.tensors:
        size_bytes = _size_bytes(port)
        if size_bytes is None:
            return Layout(header, (), None)
        spans.append((port, at, at + size_bytes))
        at += size_bytes + -size_bytes % ALIGNMENT
    return Layout(header, tuple(spans), at)


def _spans(view: memoryview, header: Header, at: int) -> tuple[tuple[Port, int, int], ...]:
    """Each tensor with the place of its data, as the data tell; TensorError if they are torn."""
    spans = []
    at += -at % ALIGNMENT
    for number, port in enumerate(header.tensors):
        size_bytes = _size_bytes(port)
        if size_bytes is None:
            size_bytes = _measure(port, view[at:])
        if (found_bytes := len(view[at : at + size_bytes])) != size_bytes:
            raise TensorError(
                f"the frame ends within tensor {number}, {port}: {found_bytes} of {size_bytes} "
                "bytes"
            )
        spans.append((port, at, at + size_bytes))
        at += size_bytes + -size_bytes % ALIGNMENT
    if at != len(view):
        raise TensorError(f"a frame of tensors with {len(view)} bytes; its header tells of {at}")
    return tuple(spans)


def _measure(port: Port, data: memoryview) -> int:
    return sum(_LENGTH.size + len(one) for one in split_bytes(port, data))


@lru_cache(maxsize=256)
def _size_bytes(port: Port) -> int | None:
    """The bytes that a tensor's numbers take; None for BYTES. TensorError over the bound."""
    item_bytes = ITEM_BYTES.get(port.datatype, _LENGTH.size)
    # An axis of length 0 must not hide absurd lengths along the others, which numpy refuses.
    if prod(max(1, extent) for extent in port.shape) * item_bytes > TENSOR_BYTES_MAX:
        raise TensorError(f"{port} is over the bound of {TENSOR_BYTES_MAX} bytes")
    return prod(port.shape) * item_bytes if port.datatype in ITEM_BYTES else None


def _head(ports: tuple[Port, ...], outputs: tuple[str, ...]) -> bytes:
    """A frame up to its first tensor's bytes."""
    header = msgspec.msgpack.encode(Header(ports, outputs))
    size_bytes = _PREFIX.size + len(header)
    return _PREFIX.pack(MAGIC, len(header)) + header + _PADDINGS[-size_bytes % ALIGNMENT]


#: A model's frames are alike, and a cache must stay small whatever names a stranger makes up.
_known_head = lru_cache(maxsize=64)(_head)


@lru_cache(maxsize=64)
def _known_layout(head: bytes) -> Layout:
    """What the beginning of a frame tells, up to the end of its header."""
    return open_frame(head, WHAT, _PREFIX, MAGIC, _layout)[1]
