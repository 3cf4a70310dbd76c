"""Frames of named tensors, which every model takes beside the payloads of its own kind.

The format is `cluster.models.frames.tensors`. Names, types and shapes are checked here, before the
runtime sees them, each with an error of its own. The answer is a frame of the outputs that the
question names, in its order, or of all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from cluster.models.frames.tensor import TensorError
from cluster.models.frames.tensors import (
    Datatype,
    Port,
    Tensor,
    decode_tensors,
    encode_tensors,
    join_bytes,
    split_bytes,
)
from cluster.models.kinds.adapter import Adapter, Question, fits
from cluster.models.repository.manifest import Label, Manifest, ModelError, PayloadError
from cluster.models.runtime.network import NUMPY, Network, Outputs, TensorMetadata
from cluster.vocabulary.errors import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


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
        arrays = {name: to_array(given[name]) for name in self._inputs}

        def write(outputs: Outputs) -> bytes:
            return frame_of({name: outputs[name] for name in wanted}, self._outputs)

        return Question(arrays, wanted, write, by_rows=self._batches)


def to_array(tensor: Tensor) -> NDArray[Any]:
    """A tensor as an array: a view of its bytes, or an array of str.

    Raises:
        PayloadError: an element of BYTES is not UTF-8, a BOOL neither 0 nor 1.
        TensorError: the bytes of a BYTES tensor end within an element.
    """
    import numpy as np

    port, data = tensor
    if port.datatype == "BYTES":
        texts = np.empty(port.shape, object)
        for number, element in enumerate(split_bytes(port, data)):
            try:
                texts.flat[number] = str(element, "utf-8")
            except UnicodeDecodeError as error:
                raise PayloadError(
                    f"{port}, element {number}: {error}; this runtime takes texts in UTF-8 alone"
                ) from error
        return texts
    array: NDArray[Any] = np.frombuffer(data, np.dtype(NUMPY[port.datatype]).newbyteorder("<"))
    if port.datatype == "BOOL" and (array.view(np.uint8) > 1).any():
        raise PayloadError(f"{port}: a byte is neither 0 nor 1")
    return array.reshape(port.shape)


def to_tensor(name: str, datatype: str, array: NDArray[Any]) -> Tensor:
    """An array as a tensor of that type, little-endian, rows first; texts are encoded.

    Raises:
        TensorError: it has too many axes or bytes.
    """
    import numpy as np

    if datatype == "BYTES":
        # A str that no UTF-8 can hold does not come out of the runtime.
        data: bytes | memoryview = join_bytes(str(text).encode() for text in array.flat)
    else:
        numbers = np.asarray(array, np.dtype(NUMPY[datatype]).newbyteorder("<"), order="C")
        data = numbers.reshape(-1).view(np.uint8).data
    kind: Datatype = datatype  # type: ignore[assignment]
    return Tensor(Port(name, kind, array.shape), data)


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
