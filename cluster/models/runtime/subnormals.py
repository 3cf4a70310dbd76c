"""Keeps subnormal numbers among a graph's weights away from the processor.

Weight decay leaves weights that are smaller than the smallest normal number (float32: 1.2e-38).
They are too small to change an answer, but a processor takes many cycles for a product with one:
the model ``digits``, of whose weights 8 % are such, took 18 × as long for 32 rows. The runtime
could flush them (``session.set_denormal_as_zero``), by a register of the thread that opens the
session. Whatever that thread and those that it starts compute later would be flushed too.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from cluster.models.repository.protobuf import weights
from cluster.models.repository.weights import weight_files

#: By ONNX's number of a type: unsigned integers of its size, and the bits of its fraction. See
#: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto and IEEE 754.
TYPES = {1: ("<u4", 23), 11: ("<u8", 52)}

BLOCK_BYTES = 4 << 20


def readable(graph: Path) -> str | bytes:
    """What a session is to open: the path of an ONNX graph, or its bytes with each subnormal weight
    set to 0 if it has any. A graph with weights beside it, or that can't be read, is left to the
    runtime.
    """
    try:
        if not graph.stat().st_size or weight_files(graph):
            return str(graph)
        with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as copy:
            changed = [
                _flush(copy, *TYPES[kind], *at) for kind, at in weights(copy) if kind in TYPES
            ]
            return bytes(copy) if any(changed) else str(graph)
    except OSError:
        return str(graph)


def _flush(content: mmap.mmap, type_name: str, fraction_bits: int, start: int, stop: int) -> bool:
    """Set subnormal numbers in a part of ``content`` to 0; whether there were any."""
    import numpy as np

    number, found = np.dtype(type_name), False
    for at in range(start, stop, BLOCK_BYTES):
        count = min(BLOCK_BYTES, stop - at) // number.itemsize
        bits: Any = np.frombuffer(content, number, count, at)
        # Without its sign, a subnormal is above 0 and has no bit above the fraction.
        subnormal = ((bits << 1) - 1) < (2 << fraction_bits) - 1
        if subnormal.any():
            bits[subnormal], found = 0, True
        del bits  # the map can't be closed while it is looked at
    return found
