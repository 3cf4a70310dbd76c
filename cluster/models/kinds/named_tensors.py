"""Frames of named tensors, which every model takes beside the payloads of its own kind.

The format is `cluster.models.frames.tensors`. Names, types and shapes are checked here, before the
runtime sees them, each with an error of its own. The answer is a frame of the outputs that the
question names, in its order, or of all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import lru_cache, partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from cluster.models.frames.arrays import array_type, to_array, to_tensor
from cluster.models.frames.metadata import TensorMetadata, mismatch, unknown
from cluster.models.frames.tensor import TensorError
from cluster.models.frames.tensors import (
    ITEM_BYTES,
    Layout,
    Port,
    encode_alike,
    encode_tensors,
    open_tensors,
    split_frame,
)
from cluster.models.kinds.adapter import Adapter, Alike, Question, bucket_of
from cluster.models.repository.manifest import Label, Manifest, ModelError, PayloadError
from cluster.models.runtime.network import Network, Outputs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


#: The types of which any bytes are numbers, and the frames that are worth joining: it copies twice.
JOINED, JOINED_BYTES_MAX = ITEM_BYTES.keys() - {"BOOL"}, 1 << 14


class NoFrame(PayloadError):
    """A payload that is not a frame of tensors."""


class Reading(NamedTuple):
    """How frames with one header are read: each input's place, and what `Question` tells more."""

    places: tuple[tuple[str, int], ...]
    outputs: tuple[str, ...]
    write: Callable[[Outputs], bytes]
    items: int
    bucket: Hashable
    alike: Alike | None


class NamedTensors(Adapter):
    """Named tensors to named tensors, for any network; ``labels`` only describe it."""

    def __init__(self, manifest: Manifest, path: Path, network: Network) -> None:
        self.labels: tuple[Label, ...] = manifest.labels
        self._network = network
        self._inputs = network.inputs
        self._outputs = network.outputs
        self._batches = network.batches
        #: Equal layouts are one object: see `cluster.models.frames.tensors`.
        self._reading = lru_cache(maxsize=64)(self._check)

    def read(self, payload: bytes | memoryview) -> Question:
        """The question in a frame; see the top of this file."""
        try:
            frame, layout, at = open_tensors(payload)
            is_whole = layout.end == len(frame)
            tensors = () if is_whole else split_frame(frame, layout, at).tensors
        except TensorError as error:
            raise NoFrame(str(error)) from error
        reading = self._reading(layout)
        if is_whole and reading.alike is not None:
            return Question(
                self._network, {}, reading.outputs, reading.write, reading.items, reading.bucket,
                True, reading.alike, frame,
            )  # fmt: skip
        tensors = tensors or split_frame(frame, layout, at).tensors
        try:
            arrays = {name: to_array(tensors[place]) for name, place in reading.places}
        except TensorError as error:
            raise PayloadError(str(error)) from error
        return Question(
            self._network, arrays, reading.outputs, reading.write, reading.items, reading.bucket,
            self._batches,
        )  # fmt: skip

    def _check(self, layout: Layout) -> Reading:
        """How to read a frame with this layout; PayloadError if it does not suit the network."""
        header = layout.header
        given = {port.name: place for place, port in enumerate(header.tensors)}
        if given.keys() != self._inputs.keys() or len(given) < len(header.tensors):
            self._refuse_names([port.name for port in header.tensors])
        wanted = self._outputs
        if header.outputs:
            _check_names("output", header.outputs, self._outputs)
            wanted = {name: self._outputs[name] for name in header.outputs}
        for name in self._inputs:
            if (why := mismatch(header.tensors[given[name]], self._inputs)) is not None:
                raise PayloadError(why)
        places = tuple((name, given[name]) for name in self._inputs)
        ports = [header.tensors[place] for _, place in places]
        start = int(self._batches)
        bucket = bucket_of((it.name, array_type(it.datatype), it.shape[start:]) for it in ports)
        items = ports[0].shape[0] if self._batches else 1
        if self._batches and any(port.shape[0] != items for port in ports):
            told_rows = ", ".join(f"{it.name!r} has {it.shape[0]}" for it in ports)
            raise PayloadError(f"inputs differ in their number of rows: {told_rows}")
        alike = None
        is_small = layout.end is not None and layout.end <= JOINED_BYTES_MAX
        are_numbers = all(it.datatype in JOINED and prod(it.shape) for it in ports)
        if self._batches and is_small and are_numbers:
            spans = [layout.spans[place] for _, place in places]
            alike = Alike(partial(join_frames, spans), partial(frames_of, wanted))
        return Reading(places, tuple(wanted), partial(frame_of, wanted), items, bucket, alike)

    def _refuse_names(self, given: Sequence[str]) -> NoReturn:
        """Say which inputs are unknown, doubled or missing."""
        _check_names("input", given, self._inputs)
        for name in given:
            if given.count(name) > 1:
                raise PayloadError(f"input {name!r} is given twice")
        missing = [str(port) for name, port in self._inputs.items() if name not in given]
        raise PayloadError(f"input missing: {', '.join(missing)}")


def join_frames(
    spans: Sequence[tuple[Port, int, int]], frames: Sequence[bytes | memoryview]
) -> dict[str, NDArray[Any]]:
    """The inputs of frames with one layout: the rows of all, from where ``spans`` has them."""
    import numpy as np

    table = np.frombuffer(b"".join(frames), np.uint8).reshape(len(frames), -1)
    return {
        port.name: np.ascontiguousarray(table[:, start:stop])
        .view(array_type(port.datatype))
        .reshape(-1, *port.shape[1:])
        for port, start, stop in spans
    }


def frame_of(ports: Mapping[str, TensorMetadata], outputs: Outputs) -> bytes:
    """Some outputs as a frame, each with the type that the graph tells of it.

    Raises:
        ModelError: they can't be sent.
    """
    try:
        tensors = [to_tensor(name, it.datatype, outputs[name]) for name, it in ports.items()]
        return encode_tensors(tensors)
    except TensorError as error:
        raise ModelError(f"gave what can't be sent: {error}") from error


def frames_of(
    ports: Mapping[str, TensorMetadata], outputs: Outputs, count: int
) -> list[bytes] | None:
    """As `frame_of` for each of ``count`` questions with as many rows each; None where that takes
    one after another.
    """
    arrays = [(outputs[name], name, port.datatype) for name, port in ports.items()]
    if any(datatype == "BYTES" or not array.size for array, _, datatype in arrays):
        return None
    told, columns = [], []
    for array, name, datatype in arrays:
        rows = len(array) // count
        told.append(Port(name, datatype, (rows, *array.shape[1:])))  # type: ignore[arg-type]
        columns.append(array.astype(array_type(datatype), copy=False).tobytes())
    try:
        return encode_alike(told, columns, count)
    except TensorError:
        return None  # `frame_of` says what is wrong


def _check_names(what: str, given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise PayloadError(unknown(what, name, known))
