"""Frames of named tensors, which every model takes beside the payloads of its own kind.

The format is `cluster.models.frames.tensors`. Names, types and shapes are checked here, before the
runtime sees them, each with an error of its own. The answer is a frame of the outputs that the
question names, in its order, or of all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from cluster.models.frames.arrays import to_array, to_tensor
from cluster.models.frames.tensor import TensorError
from cluster.models.frames.tensors import Tensor, decode_tensors, encode_tensors
from cluster.models.kinds.adapter import Adapter, Question
from cluster.models.repository.manifest import Label, Manifest, ModelError, PayloadError
from cluster.models.runtime.network import Network, Outputs, TensorMetadata, fits
from cluster.vocabulary.errors import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path


class NoFrame(PayloadError):
    """A payload that is not a frame of tensors."""


class NamedTensors(Adapter):
    """Named tensors to named tensors, for any network; ``labels`` only describe it."""

    def __init__(self, manifest: Manifest, path: Path, network: Network) -> None:
        self.labels: tuple[Label, ...] = manifest.labels
        self._network = network
        self._inputs = network.inputs
        self._outputs = network.outputs
        self._batches = network.batches

    def read(self, payload: bytes | memoryview) -> Question:
        """The question in a frame; see the top of this file."""
        try:
            frame = decode_tensors(payload)
        except TensorError as error:
            raise NoFrame(str(error)) from error
        given = {tensor.port.name: tensor for tensor in frame.tensors}
        if given.keys() != self._inputs.keys() or len(given) < len(frame.tensors):
            self._refuse_names(frame.tensors, given)
        wanted = self._outputs
        if frame.outputs:
            _check_names("output", frame.outputs, self._outputs)
            wanted = {name: self._outputs[name] for name in frame.outputs}
        arrays = {}
        for name, port in self._inputs.items():
            told = given[name].port
            if told.datatype != port.datatype or not fits(told.shape, port.shape):
                raise PayloadError(f"expected {port}, got {told.datatype}{list(told.shape)}")
            try:
                arrays[name] = to_array(given[name])
            except TensorError as error:
                raise PayloadError(str(error)) from error
        if self._batches and len(arrays) > 1:
            rows = {name: len(array) for name, array in arrays.items()}
            if len({*rows.values()}) > 1:
                told_rows = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
                raise PayloadError(f"inputs differ in their number of rows: {told_rows}")
        write = partial(frame_of, wanted)
        return Question(self._network, arrays, tuple(wanted), write, self._batches)

    def _refuse_names(self, tensors: Sequence[Tensor], given: Collection[str]) -> NoReturn:
        """Say which inputs are unknown, doubled or missing."""
        _check_names("input", given, self._inputs)
        names = [tensor.port.name for tensor in tensors]
        for name in names:
            if names.count(name) > 1:
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
            hint = did_you_mean(name, known) or f"; there are {', '.join(map(repr, known))}"
            raise PayloadError(f"there is no {what} {name!r}{hint}")
