"""Requests and answers of the Open Inference Protocol: JSON and binary tensors to frames and back.

The protocol is https://github.com/kserve/open-inference-protocol (rest/inference_rest.md); binary
tensors, classification and the parameters ``priority`` and ``timeout`` are Triton's extensions
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/README.html).
"""

from __future__ import annotations

from functools import lru_cache
from heapq import nlargest
from math import prod
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from cluster.models.frames.metadata import mismatch
from cluster.models.frames.tensor import DIMENSIONS_MAX, TENSOR_BYTES_MAX, TensorError
from cluster.models.frames.tensors import (
    DATATYPES,
    TENSORS_MAX,
    Port,
    Tensor,
    check_data,
    decode_tensors,
    encode_tensors,
    join_bytes,
)
from cluster.serve.catalogue import Description
from cluster.serve.http.bodies import Buffer, RawHeader
from cluster.serve.http.problems import Problem
from cluster.serve.values import PART_BYTES, find, numbers_of, read_list, read_values, write_values
from cluster.vocabulary.task import Priority

#: Longer JSON is looked at before it is read, as nothing else runs while it is: long flat lists are
#: read by themselves, and the rest has bounds in bytes and in objects.
JSON_BYTES_SMALL, JSON_BYTES_MAX = 1 << 16, 4 << 20
OBJECTS_MAX = 8 * TENSORS_MAX
SHAPE_BYTES_MAX = 256
#: what a task of a cluster may have
TIMEOUT_US_MAX = 10**15
#: Texts are measured one by one.
TEXTS_MAX = 1 << 14
HEADER_LENGTH = b"inference-header-content-length"
LENGTH_HINT = "; is the header Inference-Header-Content-Length right?"
#: Triton's priorities, of which 1 is the highest and 0 the default
PRIORITIES = {0: Priority.NORMAL, 1: Priority.URGENT, 2: Priority.HIGH, 3: Priority.NORMAL}

#: What comes before a list of numbers; blanks and a colon are between.
DATA, BLANKS_MAX = b'"data"', 16
#: Where each list is that was taken out of a request: the bytes that hold it, its start and end.
Lists: TypeAlias = dict[bytes, tuple[bytes | bytearray, int, int]]
Whole = Annotated[int, Meta(ge=0)]
Shape = Annotated[
    tuple[Annotated[int, Meta(ge=0, le=TENSOR_BYTES_MAX)], ...], Meta(max_length=DIMENSIONS_MAX)
]
Name = Annotated[str, Meta(min_length=1, max_length=1_024)]


class InputParameters(msgspec.Struct, frozen=True):
    """What an input may carry besides its numbers."""

    binary_data_size: Whole | None = None
    shared_memory_region: str | None = None


class OutputParameters(msgspec.Struct, frozen=True):
    """How an output is wanted."""

    binary_data: bool | None = None
    classification: Whole = 0
    shared_memory_region: str | None = None


ANYHOW = OutputParameters()


class Parameters(msgspec.Struct, frozen=True):
    """What a request may ask for; a timeout is in microseconds. Others are ignored."""

    priority: Whole = 0
    timeout: Annotated[int, Meta(ge=0, le=TIMEOUT_US_MAX)] = 0
    binary_data_output: bool = False
    sequence_id: int | str = 0


class Input(msgspec.Struct, frozen=True):
    """A tensor of a request; its shape and its numbers are read later, within bounds."""

    name: Name
    shape: msgspec.Raw
    datatype: str
    parameters: InputParameters = InputParameters()
    data: msgspec.Raw = msgspec.Raw()


class Output(msgspec.Struct, frozen=True):
    """A wanted output."""

    name: Name
    parameters: OutputParameters = OutputParameters()


class InferRequest(msgspec.Struct, frozen=True):
    """A request as its JSON tells it."""

    inputs: Annotated[list[Input], Meta(max_length=TENSORS_MAX)]
    id: str = ""
    parameters: Parameters = Parameters()
    outputs: Annotated[list[Output], Meta(max_length=TENSORS_MAX)] = []


class Asked(NamedTuple):
    """A request that is ready for a worker: its frame, and how the answer is wanted."""

    frame: bytes
    id: str
    parameters: Parameters
    outputs: list[Output]
    #: the first input's first axis, which is the batch where the model has one
    rows: int


_DECODER = msgspec.json.Decoder(InferRequest)
_SHAPES = msgspec.json.Decoder(Shape)


def read_request(
    body: Buffer, header_length: bytes | None, model: Description | None = None
) -> Asked:
    """What a body asks for. ``header_length`` is the header of that name, the length of its JSON.
    What a known ``model`` does not take is refused before its numbers are read.

    Raises:
        Problem: 400 with what is wrong and where; 413 for too many texts or nested lists.
    """
    view = memoryview(body)
    json_bytes = len(view)
    if header_length is not None:
        header_length = header_length.strip()
        if not header_length.isdigit() or len(header_length) > 12 or int(header_length) > len(view):
            raise Problem(
                400,
                f"Inference-Header-Content-Length is {header_length.decode('latin-1')[:32]!r}, "
                f"and the body has {len(view)} bytes",
            )
        json_bytes = int(header_length)
    lists: Lists = {}
    text: Buffer = view[:json_bytes]
    if json_bytes > JSON_BYTES_SMALL:
        text, lists = without_lists(body, json_bytes)
    try:
        request = _DECODER.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        is_cut = "trailing" in str(error) or (header_length and "truncated" in str(error))
        hint = LENGTH_HINT if is_cut else ""
        raise Problem(400, f"the body is no inference request: {error}{hint}") from None
    if not request.inputs:
        raise Problem(400, "the request has no inputs")
    if request.parameters.sequence_id not in (0, ""):
        raise Problem(400, "parameters.sequence_id: no model here keeps a state between requests")
    tensors = _read_inputs(request.inputs, view[json_bytes:], lists, model)
    names: list[str] = []
    for output in request.outputs:
        if output.name in names:
            raise Problem(400, f"the output {output.name!r:.200} is wanted twice")
        if output.parameters.shared_memory_region:
            raise _shared_memory()
        names.append(output.name)
    try:
        frame = encode_tensors(tensors, names)
    except TensorError as error:
        raise Problem(400, f"input {error}") from None
    shape = tensors[0].port.shape
    return Asked(frame, request.id, request.parameters, request.outputs, shape[0] if shape else 1)


def priority_of(parameters: Parameters) -> Priority:
    """The cluster's priority for Triton's number."""
    return PRIORITIES.get(parameters.priority, Priority.LOW)


def without_lists(body: Buffer, end: int) -> tuple[bytes, Lists]:
    """The JSON up to `end` with a name, as a text, in place of each long flat list of "data", and
    what the names stand for. In JSON the bytes looked for can't mean anything else.

    Raises:
        Problem: 413 if the rest is too long or has too many objects.
    """
    text = bytes(body) if isinstance(body, memoryview) else body
    lists: Lists = {}
    parts: list[Buffer] = []
    at = kept = 0
    for _ in range(2 * TENSORS_MAX):
        # Without a list by then the rest is too long, whatever follows.
        if (at := find(text, DATA, at, min(end, kept + JSON_BYTES_MAX))) < 0:
            break
        at += len(DATA)
        first = text.find(b"[", at, at + BLANKS_MAX)
        if first < 0 or text[at:first].strip() != b":":
            continue
        last = find(text, b"]", first, end)
        is_flat = all(find(text, mark, first + 1, last) < 0 for mark in (b"[", b'"', b"{"))
        if last - first > PART_BYTES and is_flat:
            name = b'"list %d"' % len(lists)
            lists[name] = text, first, last + 1
            parts += (text[kept:first], name)
            at = kept = last + 1
        elif last < 0 or last - first > JSON_BYTES_MAX:
            break
    if end - sum(stop - start for _, start, stop in lists.values()) > JSON_BYTES_MAX:
        raise Problem(
            413,
            f"the request's JSON has over {JSON_BYTES_MAX >> 20} MiB beside flat lists of numbers: "
            "send numbers flat or as binary data, and texts in several requests",
        )
    rest = b"".join((*parts, text[kept:end]))
    if rest.count(b"{") > OBJECTS_MAX:
        raise Problem(413, f"the request's JSON has over {OBJECTS_MAX} objects: send fewer tensors")
    return rest, lists


def _read_inputs(
    inputs: list[Input], binary: memoryview, lists: Lists, model: Description | None
) -> list[Tensor]:
    tensors, at, seen = [], 0, set()
    for number, one in enumerate(inputs):
        port = _port_of(number, one.name, one.datatype, bytes(one.shape), model)
        if one.name in seen:
            raise Problem(400, f"inputs[{number}]: there are two inputs {one.name!r:.100}")
        seen.add(one.name)
        if one.parameters.shared_memory_region is not None:
            raise _shared_memory()
        if one.datatype == "BYTES" and prod(port.shape) > TEXTS_MAX:
            raise Problem(413, f"input {port} has over {TEXTS_MAX} texts: send several requests")
        size_bytes = one.parameters.binary_data_size
        if (size_bytes is None) == (not one.data):
            both = "both 'data' and" if size_bytes is not None else "neither 'data' nor"
            raise Problem(400, f"input {port} has {both} parameters.binary_data_size")
        if size_bytes is None:
            found = lists.pop(bytes(one.data), None) if lists else None
            data = read_list(port, *found) if found else read_values(port, one.data)
            tensors.append(Tensor(port, data))
            continue
        part = binary[at : at + size_bytes]
        if len(part) != size_bytes:
            raise Problem(
                400,
                f"input {port}: binary_data_size is {size_bytes}, the body has {len(part)} left",
            )
        at += size_bytes
        tensors.append(Tensor(port, part))
    if at != len(binary):
        raise Problem(
            400,
            f"the body has {len(binary)} bytes after its JSON, and the inputs' binary_data_size "
            f"tell of {at}{LENGTH_HINT}",
        )
    return tensors


@lru_cache(maxsize=256)
def _port_of(
    number: int, name: str, datatype: str, shape: bytes, model: Description | None
) -> Port:
    """Input ``number`` of a request without its numbers; Problem 400 unless its model takes it."""
    if datatype not in DATATYPES:
        raise Problem(
            400,
            f"inputs[{number}] {name!r:.100} has the datatype {datatype!r:.40}; "
            f"there are {', '.join(DATATYPES)}",
        )
    try:
        if len(shape) > SHAPE_BYTES_MAX:
            raise msgspec.ValidationError(f"it has {len(shape)} bytes")
        port = Port(name, datatype, _SHAPES.decode(shape))  # type: ignore[arg-type]
    except msgspec.DecodeError as error:
        raise Problem(
            400, f"inputs[{number}].shape of {name!r:.100} is no shape: {error}"
        ) from None
    known = {port.name: port for port in model.inputs} if model else {}
    if model and known and (why := mismatch(port, known)) is not None:
        raise Problem(400, f"model {model.name!r}: {why}")
    return port


def _shared_memory() -> Problem:
    return Problem(400, "shared memory regions are not supported: send tensors in the request")


def write_answer(
    result: Buffer, asked: Asked, model: Description
) -> tuple[list[RawHeader], list[Buffer]]:
    """The headers and the parts of an answer's body.

    Raises:
        Problem: 500 for a result that is no frame, 422 for what JSON can't hold.
    """
    try:
        found = decode_tensors(result).tensors
    except TensorError as error:
        raise Problem(500, f"model {model.name!r} answered with {error}") from None
    wanted = {output.name: output.parameters for output in asked.outputs} if asked.outputs else {}
    outputs: list[dict[str, Any]] = []
    parts: list[Buffer] = [b""]
    for tensor in found:
        how = wanted.get(tensor.port.name, ANYHOW)
        if how.classification:
            tensor = classify(tensor, how.classification, model)
        port, data = tensor
        shown: dict[str, Any] = {
            "name": port.name,
            "datatype": port.datatype,
            "shape": port.shape,
        }
        is_binary = how.binary_data
        if is_binary is None:
            is_binary = asked.parameters.binary_data_output
        if is_binary:
            shown["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            shown["data"] = write_values(port, memoryview(data))
        outputs.append(shown)
    text: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if asked.id:
        text["id"] = asked.id
    text["outputs"] = outputs
    parts[0] = msgspec.json.encode(text)
    if len(parts) == 1:
        return [(b"content-type", b"application/json")], parts
    return [
        (b"content-type", b"application/octet-stream"),
        (HEADER_LENGTH, b"%d" % len(parts[0])),
    ], parts


def classify(tensor: Tensor, count: int, model: Description) -> Tensor:
    """The ``count`` highest elements of each row as texts ``value:index[:label]``, Triton's
    classification extension.
    """
    port = tensor.port
    if port.datatype in ("BYTES", "BOOL") or not port.shape:
        raise Problem(400, f"output {port} can't be classified: it has no rows of numbers")
    check_data(port, tensor.data)
    values = numbers_of(port, memoryview(tensor.data))
    # The batch is the first axis; a model without one has a single row.
    rows = port.shape[0] if model.batches else 1
    width = prod(port.shape[1:] if model.batches else port.shape)
    texts: list[bytes] = []
    for start in range(0, rows * width, max(1, width)):
        row = values[start : start + width]
        for index in nlargest(min(count, width), range(width), key=row.__getitem__):
            label = model.label(index)
            text = (
                f"{row[index]:f}:{index}"
                if isinstance(row[index], float)
                else f"{row[index]}:{index}"
            )
            texts.append((text if label is None else f"{text}:{label}").encode())
    columns = min(count, width)
    shape = (rows, columns) if model.batches else (columns,)
    return Tensor(Port(port.name, "BYTES", shape), join_bytes(texts))
