"""Reads a ``config.pbtxt`` as Triton's model repository has it, for what is served here.

Names, types, dims and reshapes of inputs and outputs, ``max_batch_size``, ``version_policy``,
``default_model_filename`` and the file of labels count. Other fields are named in a note as
ignored. The fields are described at
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

import msgspec

from cluster.models.repository.manifest import (
    BATCH_ITEMS_MAX,
    MODEL_FILE,
    Label,
    Manifest,
    ModelError,
)
from cluster.models.repository.textproto import Message, TextprotoError, parse_textproto

CONFIG = "config.pbtxt"

#: Triton's names of types that the Open Inference Protocol names otherwise.
_OTHER_NAMES = {"STRING": "BYTES"}
_READ = frozenset(
    ("name", "platform", "backend", "max_batch_size", "input", "output", "version_policy")
) | {"default_model_filename"}
#: Without these a model would answer, but wrongly.
_UNSERVED = frozenset({"sequence_batching", "ensemble_scheduling", "batch_input", "batch_output"})
_READ_OF_TENSOR = frozenset({"name", "data_type", "dims", "reshape", "label_filename"})


class Declared(NamedTuple):
    """An input or output as declared: ``dims`` are its shape for clients, ``inner`` for the graph;
    -1 is an open extent. With batches both leave the batch axis out.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    inner: tuple[int, ...]


class TritonConfig(NamedTuple):
    """What a ``config.pbtxt`` says; ``notes`` name what is ignored."""

    manifest: Manifest
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    notes: tuple[str, ...]


def read_triton(folder: Path) -> TritonConfig:
    """What the ``config.pbtxt`` in ``folder`` says.

    Raises:
        ModelError: it cannot be read, or asks for something that is not served here.
    """
    path = folder / CONFIG
    try:
        message = parse_textproto(path.read_text("utf-8"))
        return _config(folder, message)
    except OSError as error:
        raise ModelError(
            f"model {folder.name!r}: cannot read {error.filename}: {error.strerror}"
        ) from error
    except (TextprotoError, ValueError, msgspec.ValidationError) as error:
        raise ModelError(f"model {folder.name!r}: {path}: {error}") from error


def _config(folder: Path, message: Message) -> TritonConfig:
    name = _text(message, "name") or folder.name
    if name != folder.name:
        raise ValueError(f"it names the model {name!r}; rename one of the two")
    for field in ("platform", "backend"):
        told = _text(message, field)
        if told and not told.startswith("onnxruntime"):
            raise ValueError(f"{field} {told!r} is not served here; onnxruntime is")
    for field in _UNSERVED.intersection(message):
        raise ValueError(f"{field} is not served here")
    inputs, outputs = ([*_messages(message, field)] for field in ("input", "output"))
    for ports in (inputs, outputs):
        names = [_text(port, "name") for port in ports]
        if doubled := {repr(it) for it in names if names.count(it) > 1}:
            raise ValueError(f"it declares {', '.join(sorted(doubled))} twice")
    most = _number(_text(message, "max_batch_size") or "-1", "max_batch_size")
    if most < 0 and "max_batch_size" in message:
        raise ValueError(f"max_batch_size is {most}; 0 is for a model that does not batch")
    if most > BATCH_ITEMS_MAX:
        raise ValueError(f"max_batch_size is {most}; at most {BATCH_ITEMS_MAX} is served here")
    manifest = {
        "name": name,
        "file": _text(message, "default_model_filename") or MODEL_FILE,
        "labels": _labels(folder, outputs),
        "versions": _versions(message),
        **({"batches": most > 0} if most >= 0 else {}),
        **({"batch_items_max": most} if most > 0 else {}),
    }
    ignored = sorted(
        {*message}.difference(_READ)
        | {
            f"{what}.{field}"
            for what, ports in (("input", inputs), ("output", outputs))
            for port in ports
            for field in {*port}.difference(_READ_OF_TENSOR)
        }
    )
    notes = (f"of {CONFIG} ignored: {', '.join(ignored)}",) if ignored else ()
    return TritonConfig(
        msgspec.convert(manifest, Manifest),
        tuple(map(_declared, inputs)),
        tuple(map(_declared, outputs)),
        notes,
    )


def _declared(port: Message) -> Declared:
    name, told = _text(port, "name"), _text(port, "data_type")
    if not name or not told:
        raise ValueError("an input or output without name or data_type")
    datatype = told.removeprefix("TYPE_")
    dims = inner = _extents(name, port, "dims")
    for reshape in _messages(port, "reshape"):
        inner = _extents(name, reshape, "shape")
        if dims.count(-1) != inner.count(-1) or dims.count(-1) > 1 or prod(dims) != prod(inner):
            raise ValueError(f"{name!r}: dims {[*dims]} can't be reshaped to {[*inner]}")
    return Declared(name, _OTHER_NAMES.get(datatype, datatype), dims, inner)


def _extents(name: str, message: Message, field: str) -> tuple[int, ...]:
    found = _numbers(message, field)
    if any(it == 0 or it < -1 for it in found):
        raise ValueError(
            f"{name!r} has {field} {[*found]}; an extent is positive, or -1 for an open one"
        )
    return found


def _versions(message: Message) -> object:
    """The policy as `Manifest.versions` has it."""
    for policy in _messages(message, "version_policy"):
        if "all" in policy:
            return "all"
        for specific in _messages(policy, "specific"):
            return _numbers(specific, "versions")
        for latest in _messages(policy, "latest"):
            return _number(_text(latest, "num_versions") or "1", "num_versions")
    return 1


def _labels(folder: Path, outputs: list[Message]) -> tuple[Label, ...]:
    for port in outputs:
        if file := _text(port, "label_filename"):
            path = folder / file
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"label_filename {file!r} must lie in the model's folder")
            return tuple(path.read_text("utf-8").splitlines())
    return ()


def _text(message: Message, field: str) -> str:
    """The last value of a field, as protobuf takes it; "" without one."""
    values = [*_texts(message, field)]
    return values[-1] if values else ""


def _numbers(message: Message, field: str) -> tuple[int, ...]:
    return tuple(_number(it, field) for it in _texts(message, field))


def _number(text: str, field: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f"{field} is {text!r}, which is no whole number") from None


def _texts(message: Message, field: str) -> Iterator[str]:
    for it in message.get(field, []):
        if not isinstance(it, str):
            raise ValueError(f"{field} is a message in braces; it has to be a plain value")
        yield it


def _messages(message: Message, field: str) -> Iterator[Message]:
    for it in message.get(field, []):
        if isinstance(it, str):
            raise ValueError(f"{field} is {it!r}; it has to be a message in braces")
        yield it
