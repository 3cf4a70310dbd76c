"""Frames of named tensors, which every model takes beside the payloads of its own kind.

The format is `cluster.models.frames.tensors`. Names, types and shapes are checked here, before the
runtime sees them, each with an error of its own. The answer is a frame of the outputs that the
question names, in its order, or of all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cluster.models.frames.arrays import array_type, to_array, to_tensor
from cluster.models.frames.metadata import TensorMetadata, mismatch, unknown
from cluster.models.frames.tensor import TensorError
from cluster.models.frames.tensors import Header, decode_tensors, encode_tensors
from cluster.models.kinds.adapter import Adapter, Question, bucket_of
from cluster.models.repository.manifest import Label, Manifest, ModelError, PayloadError
from cluster.models.runtime.network import Network, Outputs

if TYPE_CHECKING:
    from pathlib import Path


class NoFrame(PayloadError):
    """A payload that is not a frame of tensors."""


class Reading(NamedTuple):
    """How frames with one header are read: each input's place, and what `Question` tells more."""

    places: tuple[tuple[str, int], ...]
    outputs: tuple[str, ...]
    write: Callable[[Outputs], bytes]
    items: int
    bucket: Hashable


class NamedTensors(Adapter):
    """Named tensors to named tensors, for any network; ``labels`` only describe it."""

    def __init__(self, manifest: Manifest, path: Path, network: Network) -> None:
        self.labels: tuple[Label, ...] = manifest.labels
        self._network = network
        self._inputs = network.inputs
        self._outputs = network.outputs
        self._batches = network.batches
        #: Equal headers are one object: see `cluster.models.frames.tensors`.
        self._reading = lru_cache(maxsize=64)(self._check)

    def read(self, payload: bytes | memoryview) -> Question:
        """The question in a frame; see the top of this file."""
        try:
            frame = decode_tensors(payload)
        except TensorError as error:
            raise NoFrame(str(error)) from error
        reading = self._reading(frame.header)
        arrays = {}
        try:
            for name, place in reading.places:
                arrays[name] = to_array(frame.tensors[place])
        except TensorError as error:
            raise PayloadError(str(error)) from error
        if self._batches and len(arrays) > 1:
            rows = {name: len(array) for name, array in arrays.items()}
            if len({*rows.values()}) > 1:
                told_rows = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
                raise PayloadError(f"inputs differ in their number of rows: {told_rows}")
        return Question(self._network, arrays, *reading[1:], self._batches)

    def _check(self, header: Header) -> Reading:
        """How to read a frame with this header; PayloadError if it does not suit the network."""
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
        return Reading(places, tuple(wanted), partial(frame_of, wanted), items, bucket)

    def _refuse_names(self, given: Sequence[str]) -> NoReturn:
        """Say which inputs are unknown, doubled or missing."""
        _check_names("input", given, self._inputs)
        for name in given:
            if given.count(name) > 1:
                raise PayloadError(f"input {name!r} is given twice")
        missing = [str(port) for name, port in self._inputs.items() if name not in given]
        raise PayloadError(f"input missing: {', '.join(missing)}")


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


def _check_names(what: str, given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise PayloadError(unknown(what, name, known))
