"""What a model's inputs and outputs are, and whether a tensor suits them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from cluster.models.frames.tensors import Port
from cluster.vocabulary.errors import did_you_mean


class TensorMetadata(msgspec.Struct, frozen=True):
    """An input or output as the Open Inference Protocol describes it; -1 is an open axis."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """As an error message names it: ``FP32[?, 64] 'input'``."""
        return f"{self.datatype}[{', '.join(map(_extent, self.shape))}] {self.name!r}"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """One row: the shape without its first axis."""
        return self.shape[1:]


def mismatch(told: Port, known: Mapping[str, TensorMetadata]) -> str | None:
    """Why a tensor is none of the known inputs; None if it is one."""
    port = known.get(told.name)
    if port is None:
        return unknown("input", told.name, known)
    if told.datatype != port.datatype or not fits(told.shape, port.shape):
        return f"expected {port}, got {told.datatype}{list(told.shape)}"
    return None


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """That there is no such input or output, and which there are."""
    hint = did_you_mean(name, known) or f"; there are {', '.join(map(repr, known))}"
    return f"there is no {what} {name!r}{hint}"


def fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is the wanted one, whose open axes are -1."""
    if len(shape) != len(wanted):
        return False
    for extent, want in zip(shape, wanted, strict=True):  # noqa: SIM110 - a generator takes longer
        if want not in (-1, extent):
            return False
    return True


def _extent(extent: int) -> str:
    return "?" if extent < 0 else str(extent)
