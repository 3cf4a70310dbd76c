"""Plain data as bytes: what a function takes and gives, see `cluster.work.functions`.

Plain data are None, bool, int of 64 bits, float, str, bytes, list, dict, datetime with a time zone
(which becomes UTC) and whole microseconds, and numpy arrays of numbers. A tuple becomes a list, and
a subclass its plain type. The bytes are MessagePack
(https://github.com/msgpack/msgpack/blob/master/spec.md). msgspec reads them; msgpack writes them,
because msgspec would write a set as a list and a dataclass as a dict, so that something else
arrived than was sent.
"""

from __future__ import annotations

import reprlib
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from types import GeneratorType
from typing import Any

import msgpack
import msgspec

from cluster.vocabulary.errors import ClusterError

#: the extension type of an array: a frame of `cluster.models.frames.tensor`
ARRAY = 1
#: begins a call, so that bytes which a client meant for a handler are not taken for one
CALL = "call-1"
PLAIN = "None, bool, int, float, str, bytes, list, dict, datetime, numpy array"
DEPTH_MAX = 16

#: an array's or a number's kinds of numpy, see `numpy.dtype.kind`, of at most NUMBER_BYTES_MAX
NUMBERS, NUMBER_BYTES_MAX = "biuf", 8

#: what makes plain data of another type
_ADVICE: Sequence[tuple[type | tuple[type, ...], str]] = (
    (int, "it has more than 64 bits; make it a str or a float"),
    (datetime, "a time has a zone, such as datetime.now(UTC), and whole microseconds"),
    ((set, frozenset, GeneratorType), "make it a list"),
)


def pack_call(items: Sequence[Any], function: str) -> bytes:
    """The payload that calls a function with these arguments.

    Raises TypeError if one is not plain data; the message says which, and what to do.
    """
    try:
        return _own.pack((CALL, *items))
    except (TypeError, ValueError, OverflowError, ClusterError):
        names = (f"argument {number}" for number in range(1, len(items) + 1))
        raise TypeError(f"{function}: {_trouble(zip(names, items, strict=True))}") from None


def read_call(payload: bytes | memoryview) -> list[Any]:
    """The arguments in a payload of `pack_call`; raises TypeError for any other."""
    try:
        call = _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, ClusterError):
        call = None
    if not isinstance(call, list) or not call or call[0] != CALL:
        raise TypeError(
            "this kind is a function of plain data, and the payload is no call of it; use "
            "cluster.client(), or cluster.work.plain_data.pack_call"
        )
    return call[1:]


def pack_result(result: Any) -> bytes:
    """The outcome of a call as bytes; raises TypeError if it is not plain data."""
    try:
        return _own.pack(result)
    except (TypeError, ValueError, OverflowError, ClusterError):
        raise TypeError(_trouble([("the result", result)])) from None


def read_result(payload: bytes | memoryview) -> Any:
    """The result in the bytes of `pack_result`."""
    return _DECODER.decode(payload)


def _as_plain(value: Any) -> Any:
    """An array as an extension, a number of numpy's as Python's and a time of a subclass as a
    datetime; raises TypeError for others.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        dtype = value.dtype
        if dtype.kind not in NUMBERS or dtype.itemsize > NUMBER_BYTES_MAX:
            raise TypeError(f"numpy's {dtype} is no bool, int or float of up to 64 bits")
        if isinstance(value, numpy.generic):
            return value.item()
        from cluster.models.frames.tensor import pack_tensor

        return msgpack.ExtType(ARRAY, pack_tensor(value))
    if isinstance(value, datetime) and value.tzinfo and not getattr(value, "nanosecond", 0):
        return datetime.combine(value.date(), value.timetz())  # msgpack takes no subclass
    advice = next((words for kinds, words in _ADVICE if isinstance(value, kinds)), None)
    raise TypeError(advice or f"make it one of {PLAIN}")


def _read_extension(code: int, data: memoryview) -> Any:
    """An array of its own, which may be written to."""
    if code != ARRAY:
        raise ClusterError(f"there is no extension type {code}")
    from cluster.models.frames.tensor import unpack_tensor

    return unpack_tensor(data).copy()


class _Own(threading.local):
    """A packer for each thread: making one takes longer than using it."""

    def __init__(self) -> None:
        packer = msgpack.Packer(default=_as_plain, datetime=True)
        self.pack: Callable[[object], bytes] = packer.pack


_own = _Own()
#: for values of the user's, which may be huge, nested without end, or fail to show themselves
_brief = reprlib.Repr()
_brief.maxother = _brief.maxstring = 60
_DECODER = msgspec.msgpack.Decoder(ext_hook=_read_extension)


def _trouble(named: Iterable[tuple[str, Any]], depth: int = 0) -> str:
    """Which part of these values is not plain data, and what to do; "" if all are."""
    for name, value in named:
        try:
            _own.pack(value)
        except (TypeError, ValueError, OverflowError, ClusterError) as error:
            parts: Iterable[tuple[Any, Any]] = ()
            if isinstance(value, dict):
                parts = value.items()
            elif isinstance(value, list | tuple):
                parts = enumerate(value)
            inner = ((f"{name}[{key!r:.40}]", part) for key, part in parts)
            found = _trouble(inner, depth + 1) if depth < DEPTH_MAX else ""
            return found or f"{name} is not plain data but {_shown(value)}: {error}"
    return ""


def _shown(value: Any) -> str:
    """A value's type, and the value in a line unless that would show no more than an address."""
    kind, text = type(value).__name__, " ".join(_brief.repr(value).split())
    return kind if " at 0x" in text else f"{kind} {text}"
