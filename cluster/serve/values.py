"""The numbers of a tensor between JSON and bytes, each checked, without numpy.

The names of types and their bytes are the Open Inference Protocol's; see
`cluster.models.frames.tensors`. Numbers are little-endian there, and on every machine that this
runs on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from itertools import accumulate, chain
from math import isfinite, prod
from operator import mul
from typing import Any

import msgspec

from cluster.models.frames.tensors import ITEM_BYTES, Port, join_bytes, split_bytes
from cluster.serve.http.pacing import pause
from cluster.serve.http.problems import Problem

#: A flat list of numbers that is longer is read part by part, each within half a millisecond: no
#: other thread runs meanwhile.
PART_BYTES = 1 << 12
#: within half a millisecond as well, as only commas are counted
STEP_BYTES = 1 << 19
#: Nested lists become Python objects as a whole; an image of 224 × 224 has 150,528 numbers.
JSON_ELEMENTS_MAX = 1 << 18

#: the codes of the module struct for each type; BOOL and BYTES have none
_CODES = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_FLOATS = msgspec.json.Decoder(list[float])
_WHOLES = msgspec.json.Decoder(list[int])
_BOOLS = msgspec.json.Decoder(list[bool])
_TEXTS = msgspec.json.Decoder(list[str])
encode = msgspec.json.encode
_ANYTHING = msgspec.json.Decoder(list[Any])

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    **dict.fromkeys(_CODES, _WHOLES),
    **dict.fromkeys(("FP16", "FP32", "FP64"), _FLOATS),
    "BOOL": _BOOLS,
    "BYTES": _TEXTS,
}
_WORDS = {id(_FLOATS): "a number", id(_WHOLES): "a whole number", id(_BOOLS): "true or false",
          id(_TEXTS): "a text"}  # fmt: skip


def read_values(port: Port, data: msgspec.Raw) -> bytes:
    """The bytes of a tensor whose numbers are JSON: a flat list, or lists nested as its shape.

    Raises:
        Problem: 400 that names the element which is not of the tensor's type or out of its range,
            or a number of elements that is not the shape's; 413 for too many.
    """
    count = prod(port.shape)
    text = bytes(data)
    if len(text) > PART_BYTES:
        if port.datatype == "BYTES":
            if least_texts(text) > count:
                raise _other_count(port, f"over {count}", count)
        elif text.find(b"[", 1) < 0:
            return read_list(port, text, 0, len(text))
        else:
            _check_nesting(port, text, count)
    try:
        is_nested = text.startswith(b"[[")
        values = _read_nested(port, text) if is_nested else _DECODERS[port.datatype].decode(text)
    except msgspec.DecodeError:
        values = _checked(port, _flatten(port, text))  # slower; it finds what is wrong and where
    if len(values) != count:
        raise _other_count(port, len(values), count)
    return _pack(port, values)


def least_texts(text: bytes) -> int:
    """A lower bound of the texts in a JSON list: each has two quotes of its own."""
    return (text.count(b'"') - text.count(b'\\"')) // 2


def find(text: bytes | bytearray, mark: bytes, at: int, end: int) -> int:
    """Where a mark is, as ``text.find`` tells, step by step, so that other threads may run."""
    while at < end:
        found = text.find(mark, at, min(at + STEP_BYTES + len(mark), end))
        if found >= 0:
            return found
        at += STEP_BYTES
        pause()
    return -1


def _check_nesting(port: Port, text: bytes, count: int) -> None:
    """Refuse long nested lists that can't be the shape's, before they are read."""
    if count > JSON_ELEMENTS_MAX or text.count(b",") > JSON_ELEMENTS_MAX:
        raise _too_many(port)
    found, told = text.count(b"["), sum(accumulate(port.shape[:-1], mul, initial=1))
    if found != told:
        raise Problem(
            400, f"{port} has {found} lists in 'data'; its shape tells {told}, or a flat one"
        )


def read_list(port: Port, text: bytes | bytearray, at: int, end: int) -> bytes:
    """The bytes of a flat list, ``text[at:end]``, read part by part: as objects it would be several
    times as large, and other threads may run between the parts. Raises what `read_values` does.
    """
    count, packed = prod(port.shape), bytearray()
    at, end, read = at + 1, end - 1, 0
    steps = range(at, end, STEP_BYTES)
    commas = sum(text.count(b",", one, min(one + STEP_BYTES, end)) for one in steps)
    if commas + 1 != count:
        raise _other_count(port, commas + 1, count)
    while at < end:
        pause()
        cut = text.find(b",", at + PART_BYTES, end)
        cut = end if cut < 0 else cut
        part = b"[%s]" % text[at:cut]
        try:
            values = _DECODERS[port.datatype].decode(part)
        except msgspec.DecodeError:
            values = _checked(port, _flatten(port, part), read)
        packed += _pack(port, values, read)
        read += len(values)
        if cut == end:
            break
        at = cut + 1
    if read != count:  # a comma was the last of it
        raise _other_count(port, read, count)
    return bytes(packed)


def _pack(port: Port, values: list[Any], first: int = 0) -> bytes:
    """The bytes of elements, of which the first is number ``first`` of the tensor."""
    try:
        return _PACKERS.get(port.datatype, _pack_numbers)(port, values)
    except (OverflowError, struct.error):
        raise Problem(400, f"{port}: {_out_of_range(port, values, first)}") from None


def _too_many(port: Port) -> Problem:
    return Problem(
        413,
        f"{port} has over {JSON_ELEMENTS_MAX} elements as nested lists: send it flat or as binary "
        "data",
    )


def _other_count(port: Port, found: object, count: int) -> Problem:
    return Problem(400, f"{port} has {found} elements in 'data'; its shape tells {count}")


def write_values(port: Port, data: memoryview) -> msgspec.Raw | list[Any]:
    """The elements of a tensor, a list to encode as JSON; if it is long it is encoded already, part
    by part as in `read_values`.

    Raises:
        Problem: 422 for numbers that JSON has no words for, and texts that are not UTF-8.
    """
    if port.datatype == "BYTES":
        try:
            return [str(one, "utf-8") for one in split_bytes(port, data)]
        except UnicodeDecodeError:
            raise _not_json(port, "texts that are not UTF-8") from None
    if len(data) <= PART_BYTES:
        return numbers_of(port, data)
    texts = []
    for at in range(0, len(data), PART_BYTES):
        pause()
        texts.append(encode(numbers_of(port, data[at : at + PART_BYTES]))[1:-1])
    return msgspec.Raw(b"[%s]" % b",".join(texts))


def _not_json(port: Port, what: str) -> Problem:
    """Triton writes bare NaN and Infinity (its pull request 3870), which strict parsers refuse, as
    JSON has no such words; OpenVINO's model server answers with an error too (4337).
    """
    return Problem(
        422,
        f"output {port} holds {what}, which JSON can't: ask for binary data, by the output's "
        "parameters.binary_data or the request's parameters.binary_data_output",
    )


def numbers_of(port: Port, data: memoryview) -> list[Any]:
    """Numbers, or true and false, of a tensor's type from some of its bytes."""
    if port.datatype == "BOOL":
        return [value != 0 for value in data]
    count = len(data) // ITEM_BYTES[port.datatype]
    values = [*struct.unpack(f"<{count}{_CODES[port.datatype]}", data)]
    if port.datatype[0] == "F" and not isfinite(sum(values)) and not all(map(isfinite, values)):
        raise _not_json(port, "NaN or infinity")
    return values


def _pack_numbers(port: Port, values: list[Any]) -> bytes:
    if port.datatype[0] == "F" and not isfinite(sum(values)) and not all(map(isfinite, values)):
        raise OverflowError  # struct writes infinity as it is
    return struct.pack(f"<{len(values)}{_CODES[port.datatype]}", *values)


def _pack_bools(port: Port, values: list[bool]) -> bytes:
    return bytes(values)


def _pack_texts(port: Port, values: list[str]) -> bytes:
    return join_bytes([value.encode() for value in values])


_PACKERS: dict[str, Callable[[Port, list[Any]], bytes]] = {
    "BOOL": _pack_bools,
    "BYTES": _pack_texts,
}


def _read_nested(port: Port, text: bytes) -> list[Any]:
    """The elements of lists nested as the shape says; raises DecodeError for all others."""
    values = nested_decoder(port.datatype, len(port.shape)).decode(text)
    if len(values) != (port.shape or (1,))[0]:
        raise msgspec.DecodeError
    for extent in port.shape[1:]:
        if any(len(row) != extent for row in values):
            raise msgspec.DecodeError
        values = list(chain.from_iterable(values))
    return values


@cache
def nested_decoder(datatype: str, depth: int) -> msgspec.json.Decoder[list[Any]]:
    """A decoder of lists within lists, ``depth`` of them, the innermost of elements."""
    flat: Any = _DECODERS[datatype].type
    for _ in range(depth - 1):
        flat = list[flat]
    return msgspec.json.Decoder(flat)


def _flatten(port: Port, text: bytes) -> list[Any]:
    """The elements of nested lists, which must be nested as the shape says."""
    if text.count(b"[") + text.count(b",") > JSON_ELEMENTS_MAX:
        raise _too_many(port)
    try:
        values = _ANYTHING.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(400, f"{port}: 'data' can't be read as a list: {error}") from None
    if not any(isinstance(value, list) for value in values):
        return values
    for depth, extent in enumerate(port.shape):
        rows = [values] if depth == 0 else values
        for row in rows:
            if not isinstance(row, list) or len(row) != extent:
                found = f"a list of {len(row)}" if isinstance(row, list) else f"{row!r:.40}"
                raise Problem(
                    400, f"{port}: axis {depth} of 'data' takes lists of {extent}, not {found}"
                )
        if depth:
            values = [value for row in rows for value in row]
    return values


def _checked(port: Port, values: list[Any], first: int = 0) -> list[Any]:
    """The elements in the tensor's type; Problem 400 that names the first that is of another."""
    decoder = _DECODERS[port.datatype]
    try:
        found: list[Any] = msgspec.convert(values, decoder.type)
    except msgspec.ValidationError as error:
        place = str(error).rpartition("$[")[2].partition("]")[0]
        number = int(place) if place.isdigit() else 0
        raise Problem(
            400,
            f"{port}: element {first + number} is {values[number]!r:.40}, "
            f"not {_WORDS[id(decoder)]}",
        ) from None
    return found


def _out_of_range(port: Port, values: list[Any], first: int) -> str:
    """Which element its type can't hold."""
    for number, value in enumerate(values, first):
        try:
            _PACKERS.get(port.datatype, _pack_numbers)(port, [value])
        except (OverflowError, struct.error):
            return f"element {number} is {value!r:.40}, out of the range of {port.datatype}"
    return "an element is out of range"
