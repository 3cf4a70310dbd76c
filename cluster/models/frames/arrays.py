"""Named tensors as numpy's arrays, and back. numpy is imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.models.frames.tensor import TensorError
from cluster.models.frames.tensors import Datatype, Port, Tensor, join_bytes, split_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: numpy's names of the types. A text is an object, a str.
NUMPY: Mapping[str, str] = {
    "BOOL": "bool",
    "BYTES": "object",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    **{f"{sign.upper()}INT{b}": f"{sign}int{b}" for sign in ("", "u") for b in (8, 16, 32, 64)},
}

#: Up to this, a copy takes less time than a view.
COPIED_BYTES_MAX = 4_096

#: The kinds of numpy's types that may stand for another.
_STAND_IN = {"f": "fiu", "i": "iu", "u": "iu", "b": "biu", "O": "UO"}


def to_array(tensor: Tensor) -> NDArray[Any]:
    """A tensor as an array: a view of its bytes, or an array of str.

    Raises:
        TensorError: an element of BYTES is not UTF-8 or torn, a BOOL neither 0 nor 1.
    """
    import numpy as np

    port, data = tensor
    if port.datatype == "BYTES":
        texts = np.empty(port.shape, object)
        for number, element in enumerate(split_bytes(port, data)):
            try:
                texts.flat[number] = str(element, "utf-8")
            except UnicodeDecodeError as error:
                raise TensorError(
                    f"{port}, element {number}: {error}; models here take texts in UTF-8 alone"
                ) from error
        return texts
    array: NDArray[Any] = np.frombuffer(data, array_type(port.datatype))
    if port.datatype == "BOOL" and (array.view(np.uint8) > 1).any():
        raise TensorError(f"{port}: a byte is neither 0 nor 1")
    return array.reshape(port.shape)


def to_tensor(name: str, datatype: str, array: NDArray[Any]) -> Tensor:
    """An array as a tensor of that type, little-endian, rows first; texts are encoded.

    Raises:
        TensorError: it has too many axes or bytes.
    """
    import numpy as np

    if datatype == "BYTES":
        data: bytes | memoryview = join_bytes(str(text).encode() for text in array.flat)
    else:
        numbers = np.asarray(array, array_type(datatype), order="C")
        is_small = numbers.nbytes <= COPIED_BYTES_MAX
        data = numbers.tobytes() if is_small else numbers.reshape(-1).view(np.uint8).data
    kind: Datatype = datatype  # type: ignore[assignment]
    return Tensor(Port(name, kind, array.shape), data)


@lru_cache(maxsize=len(NUMPY))
def array_type(datatype: str) -> Any:
    """The type in numpy for the protocol's name of it, little-endian."""
    import numpy as np

    return np.dtype(NUMPY[datatype]).newbyteorder("<")


def converted(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """An array as that type. A fraction may lose digits but not become
    infinite, anything else must stay what it is.

    Raises:
        TensorError: it would not.
    """
    import numpy as np

    wanted = np.dtype(NUMPY[datatype])
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise TensorError(f"{error}; models here take texts in UTF-8 alone") from error
    if array.dtype.kind in _STAND_IN[wanted.kind]:
        with np.errstate(over="ignore"):
            found: NDArray[Any] = array.astype(wanted)
        if wanted.kind == "f":
            kept = np.isfinite(found) | ~np.isfinite(array)
        else:
            kept = np.asarray(found == array)
        if kept.all():
            return found
    raise TensorError(f"{array.dtype}{list(array.shape)} can't be taken as {datatype}")


OBJECTS = "it holds Python objects, as which onnxruntime gives texts: save those as .astype(str)"


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays in an ``.npz`` file by name.

    Raises:
        TensorError: the file can't be read, is another one, or holds Python objects.
    """
    from zipfile import is_zipfile

    import numpy as np

    try:
        if path.is_file() and not is_zipfile(path):
            raise ValueError("it is not what numpy.savez writes")
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name!r} in it is no array")
    except Exception as error:  # a torn archive raises errors of many kinds
        why = OBJECTS if "allow_pickle" in str(error) else error
        raise TensorError(f"can't read tensors from {path}: {why}") from error
    return arrays
