"""Reads the little of an ONNX graph that the runtime does not tell, from its protobuf's bytes:
reading the message would take the package onnx into every worker.

The encoding is that of https://protobuf.dev/programming-guides/encoding/, the numbers of fields
those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]

#: Fields on the way to a tensor's shape: of ModelProto, GraphProto, ValueInfoProto, TypeProto and
#: its Tensor.
GRAPH, INPUT, NAME, TYPE, TENSOR, SHAPE = 7, 11, 1, 2, 1, 2
#: Of GraphProto; and of TensorProto, the fields that can hold a weight's numbers.
INITIALIZER, DATA_TYPE, FLOATS, RAW, DOUBLES = 5, 2, 4, 9, 10


def shapeless_inputs(graph: Path) -> set[str]:
    """The inputs that tell no shape, not even how many axes they have.

    Raises:
        OSError: the graph cannot be read.
    """
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return {
            str(content[start:stop], "utf-8", "replace")
            for port in _found(content, (0, len(content)), GRAPH, INPUT)
            if not any(_found(content, port, TYPE, TENSOR, SHAPE))
            for start, stop in _found(content, port, NAME)
        }


def weights(content: mmap.mmap) -> Iterator[tuple[int, Span]]:
    """The type of each weight in a graph, as ONNX numbers it, and where its numbers are. Those of
    integers that are not stored as raw bytes are left out, as are those beside the graph.
    """
    for tensor in _found(content, (0, len(content)), GRAPH, INITIALIZER):
        fields = dict(_fields(content, tensor))
        kind = fields.get(DATA_TYPE)
        for span in map(fields.get, (FLOATS, RAW, DOUBLES)):
            if isinstance(kind, int) and isinstance(span, tuple):
                yield kind, span


def varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while at < len(content) and shift < 64:
        byte, at = content[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at


def _found(content: mmap.mmap, span: Span, field: int, *inner: int) -> Iterator[Span]:
    """Where the values of a field are in a message, or those of fields further in."""
    for number, value in _fields(content, span):
        if number == field and isinstance(value, tuple):
            yield from _found(content, value, *inner) if inner else [value]


def _fields(content: mmap.mmap, span: Span) -> Iterator[tuple[int, int | Span]]:
    """The fields of a message: a number, or where the bytes of a text, list or message are."""
    at, stop = span
    while at < stop:
        key, at = varint(content, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(content, at)
            yield number, value
            continue
        length, at = varint(content, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, stop), at)
        if kind == 2:
            yield number, (at, min(stop, at + length))
        at += length
