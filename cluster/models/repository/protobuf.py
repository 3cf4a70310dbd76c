"""Reads the little of an ONNX graph that the runtime does not tell, from its protobuf's bytes:
reading the message would take the package onnx into every worker.

The encoding is that of https://protobuf.dev/programming-guides/encoding/, the numbers of fields
those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

#: Fields on the way to a tensor's shape: of ModelProto, GraphProto, ValueInfoProto, TypeProto and
#: its Tensor.
GRAPH, INPUT, NAME, TYPE, TENSOR, SHAPE = 7, 11, 1, 2, 1, 2


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


def _found(
    content: mmap.mmap, span: tuple[int, int], field: int, *inner: int
) -> Iterator[tuple[int, int]]:
    """Where the values of a field are in a message, or those of fields further in."""
    at, stop = span
    while at < stop:
        key, at = varint(content, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, at = varint(content, at)
            continue
        length, at = varint(content, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, stop), at)
        if number == field and kind == 2:
            value = at, min(stop, at + length)
            yield from _found(content, value, *inner) if inner else [value]
        at += length
