"""Models that classify rows of numbers, such as ``digits``.

A payload is a tensor (`cluster.models.frames.tensor`), float32[width] for one row or
float32[N, width] for several. The result is a MessagePack map ``{"label": …, "score": …}``, or a
list of N of them. A score is the network's, 0 to 1.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cluster.models.frames.tensor import TensorError, unpack_tensor
from cluster.models.kinds.adapter import Adapter, Question, check_answer, question
from cluster.models.repository.manifest import KindError, Label, Manifest, ModelError, PayloadError
from cluster.models.runtime.network import Network, Outputs
from cluster.vocabulary.printable import count_of

#: The bound without one in the manifest: any number but infinity.
FLOAT32_MAX = 3.4028234663852886e38


class RowResult(msgspec.Struct, frozen=True):
    """The class of one row, and the network's score for it."""

    label: Label
    score: float


class Rows(Adapter):
    """Rows of the network's width, with numbers within the manifest's bounds, to labels.

    Raises:
        ModelError: the network does not take rows, or does not have one class for each label.
        The scores are its first output that is a table of numbers with a fraction.
    """

    def __init__(self, manifest: Manifest, path: Path, network: Network) -> None:
        name, port = next(iter(network.inputs.items()))
        if len(port.shape) != 2 or port.shape[1] < 0:
            raise KindError(
                f"model {manifest.name!r}: {path} does not take rows of a fixed width, "
                f"as kind {manifest.kind!r} wants"
            )
        self._input, self._width = name, port.shape[1]
        network.expect(manifest.kind, {name: f"FP32[?, {self._width}]"})
        scores = [
            it
            for it in network.outputs.values()
            if it.datatype in ("FP16", "FP32", "FP64") and len(it.shape) == 2
        ]
        if not scores:
            raise KindError(
                f"model {manifest.name!r}: kind {manifest.kind!r} reads an answer from a table of "
                f"scores; the graph gives {' and '.join(map(str, network.outputs.values()))}"
            )
        self._scores = scores[0]
        if len(manifest.labels) != self._scores.shape[1]:
            raise ModelError(
                f"model {manifest.name!r}: it has {count_of(len(manifest.labels), 'label')} for "
                "the scores "
                f"{self._scores}"
            )
        self._network = network
        self.labels = manifest.labels
        self._low = -FLOAT32_MAX if manifest.input_min is None else manifest.input_min
        self._high = FLOAT32_MAX if manifest.input_max is None else manifest.input_max

    def read(self, payload: bytes | memoryview) -> Question:
        """The rows of a tensor; see the top of this file."""
        import numpy as np

        try:
            rows = unpack_tensor(payload)
        except TensorError as error:
            raise PayloadError(str(error)) from error
        width = self._width
        if rows.dtype != np.float32 or rows.ndim not in (1, 2) or rows.shape[-1] != width:
            raise PayloadError(
                f"expected float32[{width}] or float32[N, {width}], "
                f"got {rows.dtype}{list(rows.shape)}"
            )
        # NaN compares as false, so it is refused too.
        if rows.size and not (self._low <= rows.min() and rows.max() <= self._high):
            raise PayloadError(f"the numbers must lie within {self._low:g} and {self._high:g}")
        write = self._write_one if rows.ndim == 1 else self._write
        inputs = {self._input: rows.reshape(-1, width)}
        return question(self._network, inputs, (self._scores.name,), write)

    def _results(self, outputs: Outputs) -> list[RowResult]:
        """The most probable class of each row."""
        table = outputs[self._scores.name]
        check_answer(self._scores, table)
        best = table.argmax(axis=1)
        return [
            RowResult(self.labels[column], float(scores[column]))
            for column, scores in zip(best.tolist(), table, strict=True)
        ]

    def _write(self, outputs: Outputs) -> bytes:
        return msgspec.msgpack.encode(self._results(outputs))

    def _write_one(self, outputs: Outputs) -> bytes:
        return msgspec.msgpack.encode(self._results(outputs)[0])
