"""The files that a model consists of: weights over 2 GB, or on request, lie beside the graph.

A tensor's place is a pair of texts in the graph's protobuf, ``location`` and the file's path from
the graph's folder (``external_data`` in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). It
is found here by its bytes: reading the message would take the package onnx into every worker.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from cluster.models.repository.protobuf import varint

#: StringStringEntryProto with the key ``location``, up to the length of its value.
_LOCATION = b"\x0a\x08location\x12"
_LENGTH_MAX = 4_096


def weight_files(graph: Path) -> list[Path]:
    """The files that an ONNX graph keeps weights in, sorted, whether or not they are there.

    Raises:
        OSError: the graph cannot be read.
    """
    if not graph.stat().st_size:
        return []
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return [graph.parent / name for name in sorted({*_names(content)})]


def leaves_folder(graph: Path, weights: Path) -> bool:
    """Whether a file of weights lies outside the graph's folder, where the runtime takes none."""
    inside = weights.parts[len(graph.parent.parts) :]
    return not weights.is_relative_to(graph.parent) or ".." in inside


def size_bytes(graph: Path) -> int:
    """The bytes of a graph and its weights; raises OSError if one is missing."""
    return sum(path.stat().st_size for path in (graph, *weight_files(graph)))


def _names(content: mmap.mmap) -> Iterator[str]:
    at = content.find(_LOCATION)
    while at >= 0:
        length, at = varint(content, at + len(_LOCATION))
        name = content[at : at + length] if 0 < length <= _LENGTH_MAX else b""
        text = name.decode("utf-8", "replace")
        if text and text.isprintable() and "\ufffd" not in text:
            yield text
        at = content.find(_LOCATION, at)
