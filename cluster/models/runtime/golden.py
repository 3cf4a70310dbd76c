"""Answers of a graph in files, and how far one is from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cluster.models.frames.arrays import load_arrays
from cluster.models.frames.tensor import TensorError
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
    try:
        arrays = load_arrays(path)
    except TensorError as error:
        raise ModelError(str(error)) from error
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


def write_groups(path: Path, groups: Sequence[Tensors]) -> None:
    """Write groups of tensors to an ``.npz`` file."""
    write_tensors(
        path, {f"{at}/{name}": it for at, some in enumerate(groups) for name, it in some.items()}
    )


def read_groups(path: Path) -> list[dict[str, NDArray[Any]]]:
    """What `write_groups` has written.

    Raises:
        ModelError: the file can't be read.
    """
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    for key, array in read_tensors(path).items():
        at, _, name = key.partition("/")
        groups.setdefault(at, {})[name] = array
    return list(groups.values())


def gaps(wanted: NDArray[Any], found: NDArray[Any]) -> NDArray[Any]:
    """How far each value is from the wanted one. It is 0 for equal ones, which infinities and NaN
    may be, and infinite for NaN or infinity on one side and for other integers or texts.
    """
    import numpy as np

    if found.dtype.kind != "f":
        return np.where(np.asarray(wanted == found), 0.0, np.inf)
    exact, given = wanted.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.abs(given - exact)
    same = (given == exact) | (np.isnan(given) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def difference(wanted: Tensors, found: Tensors) -> float:
    """The largest of the `gaps` of two answers, relative to the largest number of each output; for
    other shapes it is infinite.
    """
    import numpy as np

    worst = 0.0
    for name, want in wanted.items():
        other = found.get(name)
        if other is None or want.shape != other.shape:
            return float("inf")
        if not want.size:
            continue
        scale = 1.0
        if want.dtype.kind == "f":
            size = np.abs(want[np.isfinite(want)].astype(np.float64))
            scale = max(float(size.max(initial=0.0)), 1e-6)
        worst = max(worst, float(gaps(want, other).max()) / scale)
    return worst


def is_comparable(wanted: Tensors, found: Tensors) -> bool:
    """Whether an answer has the shapes of the wanted one, and finite numbers."""
    import numpy as np

    return all(
        name in found
        and found[name].shape == want.shape
        and (want.dtype.kind != "f" or bool(np.isfinite(found[name].astype(np.float64)).all()))
        for name, want in wanted.items()
    )
