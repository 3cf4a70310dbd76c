"""Arrays on the wire: a small typed header, then the raw numbers, read without a copy.

MessagePack would turn a picture into a list of boxed floats; pickle would run a stranger's code. A
tensor frame is

=================  =============================================================================
bytes              content
=================  =============================================================================
0–1                ``b"T1"``: the format and its version
2–3                length of the header, unsigned 16 bit, little-endian
4 …                the header: MessagePack array ``[dtype, shape]``, see `Header`
… multiple of 16   zeros, so that the numbers are aligned
… end              the numbers, little-endian, rows first (C order), as many as the shape says
=================  =============================================================================

Equal arrays of the same type give equal bytes. numpy is imported on first use.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from cluster.vocabulary.buffers import check_travels
from cluster.vocabulary.errors import ClusterError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: A larger rank or size is a mistake or an attack; a message of the cluster is smaller anyway.
DIMENSIONS_MAX = 8
TENSOR_BYTES_MAX = 1 << 30

Dtype: TypeAlias = (
    Literal["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    | Literal["float16", "float32", "float64"]
)
Extent: TypeAlias = Annotated[int, Meta(ge=0, le=TENSOR_BYTES_MAX)]

_MAGIC = b"T1"
_PREFIX = struct.Struct("<2sH")
#: the numbers begin at a multiple of it
ALIGNMENT = 16


H = TypeVar("H")


class TensorError(ClusterError):
    """An array that cannot be sent, or a frame that is not a tensor; the message says why."""


class Header(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """numpy's name for the type of a number, and the array's shape."""

    dtype: Dtype
    shape: Annotated[tuple[Extent, ...], Meta(max_length=DIMENSIONS_MAX)]


_DECODER = msgspec.msgpack.Decoder(Header)


def pack_tensor(array: ArrayLike) -> bytes:
    """Frame an array, or anything numpy makes an array of; the numbers are copied once.

    Raises:
        TensorError: the dtype is not in `Dtype` (objects, strings, dates, complex), there are more
        than `DIMENSIONS_MAX` axes or `TENSOR_BYTES_MAX` bytes, nested lists differ in length, or
        the array is masked.
    """
    np = _numpy()
    try:
        if isinstance(array, np.ma.MaskedArray):
            raise ValueError("its mask would be lost; fill or drop the masked numbers first")
        values = np.asarray(array)
        header = msgspec.convert((values.dtype.name, values.shape), Header)
    except (ValueError, msgspec.ValidationError) as error:
        raise TensorError(f"this array cannot be sent as a tensor: {error}") from error
    _check_size(header, values.itemsize)
    numbers = np.asarray(values, dtype=_little_endian(header.dtype), order="C")
    encoded = msgspec.msgpack.encode(header)
    prefix = _PREFIX.pack(_MAGIC, len(encoded))
    padding = bytes(-(len(prefix) + len(encoded)) % ALIGNMENT)
    return b"".join((prefix, encoded, padding, numbers.reshape(-1).view(np.uint8).data))


def unpack_tensor(buffer: bytes | bytearray | memoryview) -> NDArray[Any]:
    """The array in a frame: a read-only view that keeps ``buffer`` alive, not a copy.

    Raises:
        TensorError: anything but exactly one frame as `pack_tensor` makes it.
    """
    np = _numpy()
    view, header, end = open_frame(buffer, "tensor", _PREFIX, _MAGIC, _DECODER.decode)
    start = end + -end % ALIGNMENT
    dtype = _little_endian(header.dtype)
    _check_size(header, dtype.itemsize)
    if any(view[end:start]):
        raise TensorError("a tensor with something other than zeros between header and numbers")
    expected = prod(header.shape) * dtype.itemsize
    if len(view) - start != expected:
        raise TensorError(
            f"a tensor of {header.dtype}{list(header.shape)} has {expected} bytes of numbers, "
            f"this one {max(0, len(view) - start)}"
        )
    array: NDArray[Any] = np.frombuffer(view[start:], dtype).reshape(header.shape)
    array.flags.writeable = False
    return array


def open_frame(
    buffer: bytes | bytearray | memoryview,
    what: str,
    prefix: struct.Struct,
    magic: bytes,
    decode: Callable[[memoryview], H],
) -> tuple[memoryview, H, int]:
    """A frame's bytes, its header as ``decode`` reads it, and where that ends. ``prefix`` holds
    ``magic`` and the header's length.

    Raises:
        TensorError: it begins otherwise; the message calls it ``what``.
    """
    try:
        view = memoryview(buffer)
        if type(buffer) is not bytes:
            check_travels(view)
            view = view.cast("B")
        if len(view) < prefix.size:
            raise ValueError(f"it has only {len(view)} bytes")
        found, header_bytes = prefix.unpack_from(view)
    except (TypeError, ValueError) as error:
        raise TensorError(f"not a {what}: {error}") from error
    if found != magic:
        raise TensorError(f"not a {what}: it begins with {found!r} instead of {magic!r}")
    end = prefix.size + header_bytes
    try:
        return view, decode(view[prefix.size : end]), end
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TensorError(f"a {what} with a bad header: {error}") from error


def _numpy() -> Any:
    try:
        import numpy as np
    except ImportError as error:
        raise TensorError("tensors need the extra [infer]: pip install 'perfkit[infer]'") from error
    return np


def _little_endian(dtype: str) -> Any:
    return _numpy().dtype(dtype).newbyteorder("<")


def _check_size(header: Header, item_bytes: int) -> None:
    # An axis of length 0 must not hide absurd lengths along the others, which numpy refuses.
    size_bytes = prod(max(1, extent) for extent in header.shape) * item_bytes
    if size_bytes > TENSOR_BYTES_MAX:
        raise TensorError(
            f"a tensor of {header.dtype}{list(header.shape)} is over the bound of "
            f"{TENSOR_BYTES_MAX} bytes"
        )
