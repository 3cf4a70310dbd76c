"""File types by the model in the ``magika`` package, used as that package uses it.

The package's own interface opens its session with a thread for every core and offers no choice of
provider. Here the session is the cluster's, and the rules around the network come from the
package's configuration.

A payload is a file's content, whole or shortened by `file_payload`. The network sees up to 1024
bytes from either end, after white space is stripped from the first and the last block of 4096
bytes. Neither the bytes between nor the length matter, so a file of more than two blocks is sent as
its first and its last block, with the same result. The result is a MessagePack map with ``label``,
``mime_type``, ``group``, ``description`` and ``score``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from cluster.models.kinds.adapter import Adapter, Question, check_answer, question
from cluster.models.repository.manifest import Manifest, ModelError, PayloadError, package_folder
from cluster.models.runtime.network import Network, Outputs

#: The bytes that `file_payload` keeps of either end. A package that reads more is refused.
FILE_BLOCK_BYTES = 4096

Size: TypeAlias = Annotated[int, Meta(ge=1, le=1 << 20)]


class FileType(msgspec.Struct, frozen=True):
    """A file's type; ``score`` is 0 to 1, and 1 where a rule decided instead of the network."""

    label: str
    mime_type: str
    group: str
    description: str
    score: float


class FeatureConfig(msgspec.Struct, frozen=True):
    """The part of magika's ``config.min.json`` used here; sizes in bytes."""

    beg_size: Size
    mid_size: int
    end_size: Size
    use_inputs_at_offsets: bool
    block_size: Size
    padding_token: int
    min_file_size_for_dl: Size
    medium_confidence_threshold: float
    target_labels_space: list[str]
    thresholds: dict[str, float]
    overwrite_map: dict[str, str]


class ContentType(msgspec.Struct, frozen=True):
    """An entry of ``content_types_kb.min.json``; ``is_text`` decides what replaces a None."""

    mime_type: str | None
    group: str | None
    description: str | None
    is_text: bool


def file_payload(path: str | os.PathLike[str]) -> bytes:
    """A file as a payload: its content, or the first and the last block of a large one.

    Needs no extra: a client may lack numpy and onnxruntime.

    Raises:
        PayloadError: the path is not a regular file, or it cannot be read.
    """
    try:
        # open() on a pipe would wait for a writer.
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise PayloadError(f"{os.fspath(path)} is {what}; name files")
        with open(path, "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes <= 2 * FILE_BLOCK_BYTES:
                return file.read(2 * FILE_BLOCK_BYTES)
            first = file.read(FILE_BLOCK_BYTES)
            file.seek(-FILE_BLOCK_BYTES, os.SEEK_END)
            return first + file.read(FILE_BLOCK_BYTES)
    except OSError as error:
        raise PayloadError(f"cannot read {os.fspath(path)}: {error.strerror}") from error


def file_block(content: bytes) -> bytes:
    """A file's content as a payload: whole, or its first and its last block."""
    if len(content) <= 2 * FILE_BLOCK_BYTES:
        return content
    return content[:FILE_BLOCK_BYTES] + content[-FILE_BLOCK_BYTES:]


class FileTypes(Adapter):
    """Files to content types, by the rules of the package that carries the model.

    Raises:
        ModelError: the package's configuration asks for something this module does not do.
    """

    takes_any_bytes = True

    def __init__(self, manifest: Manifest, path: Path, network: Network) -> None:
        if manifest.package is None:
            raise ModelError(f"model {manifest.name!r}: kind {manifest.kind!r} needs a package")
        knowledge = package_folder(manifest.name, manifest.package) / "config"
        try:
            self._config = config = msgspec.json.decode(
                (path.parent / "config.min.json").read_bytes(), type=FeatureConfig
            )
            self._types = msgspec.json.decode(
                (knowledge / "content_types_kb.min.json").read_bytes(), type=dict[str, ContentType]
            )
        except (OSError, msgspec.DecodeError) as error:
            raise ModelError(
                f"model {manifest.name!r}: cannot read the configuration in "
                f"the package {manifest.package}: {error}"
            ) from error
        named = {config.overwrite_map.get(label, label) for label in config.target_labels_space}
        self.labels = tuple(sorted(named | {"empty", "txt", "unknown"}))
        (self._input, taken), *_ = network.inputs.items()
        given, *_ = network.outputs.values()
        width = config.beg_size + config.end_size
        if (
            config.mid_size
            or config.use_inputs_at_offsets
            or config.block_size > FILE_BLOCK_BYTES
            or max(config.beg_size, config.end_size) > config.block_size
            or config.min_file_size_for_dl > config.beg_size
            or taken.row_shape != (width,)
            or given.row_shape != (len(config.target_labels_space),)
            or not self._types.keys() >= set(self.labels)
        ):
            raise ModelError(
                f"model {manifest.name!r}: this version of the package {manifest.package} reads "
                "files in a way that is not supported; version 1.0 is"
            )
        self._network = network
        self._given = given
        network.expect(manifest.kind, {self._input: f"INT32[?, {width}]"})

    def read(self, payload: bytes | memoryview) -> Question | bytes:
        """The tokens of both ends, int32[1, 2048]; a rule answers for short content."""
        import numpy as np

        config = self._config
        if not payload:
            return self._result("empty", 1.0)
        head = bytes(payload[: config.block_size]).lstrip()
        if len(head) < config.min_file_size_for_dl:
            return self._result(_by_encoding(bytes(payload[: config.block_size])), 1.0)
        head = head[: config.beg_size]
        tail = bytes(payload[-config.block_size :]).rstrip()[-config.end_size :]
        tokens = np.full((1, config.beg_size + config.end_size), config.padding_token, np.int32)
        tokens[0, : len(head)] = np.frombuffer(head, np.uint8)
        tokens[0, tokens.shape[1] - len(tail) :] = np.frombuffer(tail, np.uint8)
        outputs = (self._given.name,)
        return question(self._network, {self._input: tokens}, outputs, self._write)

    def _write(self, outputs: Outputs) -> bytes:
        """The most probable type; ``txt`` or ``unknown`` below its threshold."""
        check_answer(self._given, outputs[self._given.name])
        (scores,) = outputs[self._given.name]
        column = int(scores.argmax())
        score = float(scores[column])
        guess = self._config.target_labels_space[column]
        label = self._config.overwrite_map.get(guess, guess)
        threshold = self._config.thresholds.get(guess, self._config.medium_confidence_threshold)
        if score < threshold:
            label = "txt" if self._types[label].is_text else "unknown"
        return self._result(label, score)

    def _result(self, label: str, score: float) -> bytes:
        about = self._types[label]
        fallback = "text/plain" if about.is_text else "application/octet-stream"
        return msgspec.msgpack.encode(
            FileType(
                label,
                fallback if about.mime_type is None else about.mime_type,
                "unknown" if about.group is None else about.group,
                label if about.description is None else about.description,
                score,
            )
        )


def _by_encoding(content: bytes) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "unknown"
    return "txt"
