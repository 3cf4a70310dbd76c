"""Answers of a graph in files, and how far one is from another.

A loss is told in points, per cent of what matters for the kind of answer: classes that differ for
labels, 1 − cosine for vectors, the mean difference for single numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cluster.models.repository.manifest import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tensors: TypeAlias = "Mapping[str, NDArray[Any]]"

#: Two runs of one graph differ by less, relative to the largest number, on whatever device.
SAME = 1e-3


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors in an ``.npz`` file by name.

    Raises:
        ModelError: the file can't be read, or holds Python objects.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"can't read tensors from {path}: {error}") from error
    return {name: it.astype(object) if it.dtype.kind == "U" else it for name, it in arrays.items()}


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write tensors to an ``.npz`` file, without Python objects."""
    import numpy as np

    arrays: dict[str, Any] = {
        name: it.astype("U") if it.dtype == object else it for name, it in tensors.items()
    }
    np.savez(path, allow_pickle=False, **arrays)


def run_all(session: Any, inputs: Tensors) -> dict[str, NDArray[Any]]:
    """All outputs of a session by name."""
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def difference(wanted: Tensors, found: Tensors) -> float:
    """The largest difference of two answers, relative to the largest number of each output.

    It is infinite for other shapes, for NaN on one side only, and for other integers or texts.
    """
    import numpy as np

    worst = 0.0
    for name, want in wanted.items():
        other = found.get(name)
        if other is None or want.shape != other.shape:
            return float("inf")
        if not np.issubdtype(want.dtype, np.floating):
            worst = max(worst, 0.0 if np.array_equal(want, other) else float("inf"))
        elif want.size:
            a, b = want.astype(np.float64), other.astype(np.float64)
            # Numbers that are equal, infinite or NaN on both sides differ by nothing.
            with np.errstate(invalid="ignore"):
                apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
            scale = max(float(np.abs(a[np.isfinite(a)]).max(initial=0.0)), 1e-6)
            most = float(apart.max())
            worst = max(worst, most / scale if most == most else float("inf"))
    return worst


def loss_points(wanted: Tensors, found: Tensors, what: str = "") -> float:
    """How much worse an answer is than the one ``wanted``, in points; infinite if it can't be
    compared, or has NaN.

    ``what`` is "labels" or "vectors" for the meaning of rows of numbers; without it the worse of
    both counts.
    """
    import numpy as np

    worst = 0.0
    for name, want in wanted.items():
        other = found.get(name)
        if other is None or want.shape != other.shape:
            return float("inf")
        if not want.size:
            continue
        if not np.issubdtype(want.dtype, np.floating):
            worst = max(worst, 100 * float(np.mean(want != other)))
            continue
        a, b = want.astype(np.float64), other.astype(np.float64)
        if not np.isfinite(b).all():
            return float("inf")
        if a.ndim < 2 or a.shape[-1] < 2:
            scale = max(float(np.abs(a).mean()), 1e-6)
            worst = max(worst, 100 * float(np.abs(a - b).mean()) / scale)
            continue
        a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, a.shape[-1])
        if what != "vectors":
            worst = max(worst, 100 * float(np.mean(a.argmax(1) != b.argmax(1))))
        if what != "labels":
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            cosine = (a * b).sum(1) / np.maximum(norms, 1e-30)
            worst = max(worst, 100 * float(np.mean(1 - cosine)))
    return worst
