"""Frames of named tensors, which every model takes beside the payloads of its own kind.

The format is `cluster.models.frames.tensors`. Names, types and shapes are checked here, before the
runtime sees them, each with an error of its own. The answer is a frame of the outputs that the
question names, in its order, or of all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from cluster.models.frames.arrays import to_array, to_tensor
from cluster.models.frames.tensor import TensorError
from cluster.models.frames.tensors import (
    Port,
    Tensor,
    decode_tensors,
    encode_tensors,
)
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
        self._inputs = network.inputs
        self._outputs = network.outputs
        self._batches = network.batches

    def read(self, payload: bytes | memoryview) -> Question:
        """The question in a frame; see the top of this file."""
        try:
            frame = decode_tensors(payload)
        except TensorError as error:
            raise NoFrame(str(error)) from error
        given: dict[str, Tensor] = {}
        for tensor in frame.tensors:
            if tensor.port.name in given:
                raise PayloadError(f"input {tensor.port.name!r} is given twice")
            given[tensor.port.name] = tensor
        _check_names("input", given, self._inputs)
        _check_names("output", frame.outputs, self._outputs)
        missing = [str(port) for name, port in self._inputs.items() if name not in given]
        if missing:
            raise PayloadError(f"input missing: {', '.join(missing)}")
        for name, port in self._inputs.items():
            _check_port(given[name].port, port)
        rows = {name: given[name].port.shape[0] for name in given if self._batches}
        if len(set(rows.values())) > 1:
            told = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
            raise PayloadError(f"inputs differ in their number of rows: {told}")
        wanted = tuple(dict.fromkeys(frame.outputs)) or tuple(self._outputs)
        try:
            arrays = {name: to_array(given[name]) for name in self._inputs}
        except TensorError as error:
            raise PayloadError(str(error)) from error

        def write(outputs: Outputs) -> bytes:
            return frame_of({name: outputs[name] for name in wanted}, self._outputs)

        return Question(arrays, wanted, write, by_rows=self._batches)


def frame_of(
    arrays: Outputs, ports: dict[str, TensorMetadata], wanted: Sequence[str] = ()
) -> bytes:
    """Arrays by name as a frame, each with the type that the graph tells of it.

    Raises:
        ModelError: they can't be sent.
    """
    try:
        return encode_tensors(
            [to_tensor(name, ports[name].datatype, it) for name, it in arrays.items()], wanted
        )
    except TensorError as error:
        raise ModelError(f"gave what can't be sent: {error}") from error


def _check_names(what: str, given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are {', '.join(map(repr, known))}"
            raise PayloadError(f"there is no {what} {name!r}{hint}")


def _check_port(given: Port, wanted: TensorMetadata) -> None:
    """Raise PayloadError unless type and shape fit."""
    if given.datatype != wanted.datatype or not fits(given.shape, wanted.shape):
        raise PayloadError(f"expected {wanted}, got {given.datatype}{list(given.shape)}")
