"""Models that classify rows of numbers, such as ``digits``.

A payload is a tensor (`cluster.models.frames.tensor`), float32[width] for one row or
float32[N, width] for several. The result is a MessagePack map ``{"label": …, "score": …}``, or a
list of N of them. A score is the network's, 0 to 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.models.frames.tensor import TensorError, unpack_tensor
from cluster.models.kinds.adapter import NAN, Adapter, Question
from cluster.models.repository.manifest import Label, Manifest, ModelError, PayloadError
from cluster.models.runtime.network import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    """

    def __init__(self, manifest: Manifest, path: Path, network: Network) -> None:
        if len(network.row_shape) != 1:
            raise ModelError(
                f"model {manifest.name!r}: {path} does not take rows of a fixed width, "
                f"as kind {manifest.kind!r} wants"
            )
        if len(manifest.labels) != network.classes:
            raise ModelError(
                f"model {manifest.name!r}: its manifest has {len(manifest.labels)} labels "
                f"for {network.classes} classes"
            )
        self.labels = manifest.labels
        self.input_name = network.input_name
        (self._width,) = network.row_shape
        network.expect(manifest.kind, {self.input_name: f"float32[N, {self._width}]"})
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
        return Question(rows.reshape(-1, width), single=rows.ndim == 1)

    def write(self, question: Question, outputs: NDArray[Any]) -> bytes:
        """The most probable class of each row."""
        best = outputs.argmax(axis=1)
        results = [
            RowResult(self.labels[column], float(scores[column]))
            for column, scores in zip(best.tolist(), outputs, strict=True)
        ]
        if any(result.score != result.score for result in results):
            raise ModelError(NAN)
        return msgspec.msgpack.encode(results[0] if question.single else results)
