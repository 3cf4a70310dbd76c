"""What a file is, by the model in the ``magika`` package, asked the way that package asks it.

The package's own interface opens its session with a thread for every core and does not let us
choose a provider; here the session is the cluster's, and the rules around the network are read from
the package's configuration.

A payload is a file's content, whole or as `file_payload` shortens it. The network sees up to 1024
bytes from either end, after white space is stripped from the first and the last block of 4096
bytes; nothing between them and not the length matters. So a file of more than two blocks is sent as
its first block followed by its last, and the result is that of the whole file. The result is a
MessagePack map with ``label``, ``mime_type``, ``group``, ``description`` and ``score``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from cluster.models.adapter import Adapter, Question
from cluster.models.manifest import Manifest, ModelError, PayloadError, package_folder
from cluster.models.network import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: How much of either end of a file `file_payload` keeps. A package that looks further is refused on
#: loading.
FILE_BLOCK_BYTES = 4096

Size: TypeAlias = Annotated[int, Meta(ge=1, le=1 << 20)]


class FileType(msgspec.Struct, frozen=True):
    """What a file is; ``score`` is 0 to 1, and 1 where a rule and not the network decided."""

    label: str
    mime_type: str
    group: str
    description: str
    score: float


class FeatureConfig(msgspec.Struct, frozen=True):
    """The part of magika's ``config.min.json`` that we follow; sizes in bytes."""

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
    """An entry of ``content_types_kb.min.json``; ``is_text`` decides what stands for a None."""

    mime_type: str | None
    group: str | None
    description: str | None
    is_text: bool


def file_payload(path: str | os.PathLike[str]) -> bytes:
    """What the model needs of a file: all of it, or of a large one its first and its last block.

    Needs no extra: a client without numpy or onnxruntime can ask.

    Raises:
        PayloadError: the path is no regular file, or it cannot be read.
    """
    try:
        # A pipe would make open() wait for a writer, so what it is must be known before it is
        # opened.
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


class FileTypes(Adapter):
    """Files to content types, by the rules of the package that carries the model.

    Raises:
        ModelError: the package's configuration asks for something that this file does not do.
    """

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
        self.input_name = network.input_name
        if (
            config.mid_size
            or config.use_inputs_at_offsets
            or config.block_size > FILE_BLOCK_BYTES
            or max(config.beg_size, config.end_size) > config.block_size
            or config.min_file_size_for_dl > config.beg_size
            or (config.beg_size + config.end_size,) != network.row_shape
            or len(config.target_labels_space) != network.classes
            or not self._types.keys() >= set(self.labels)
        ):
            raise ModelError(
                f"model {manifest.name!r}: this version of the package {manifest.package} reads "
                "files in a way that is not supported; version 1.0 is"
            )

    def read(self, payload: bytes | memoryview) -> Question | bytes:
        """The tokens of both ends, int32[1, 2048]; what is too short for it is answered by rule."""
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
        return Question(tokens)

    def write(self, question: Question, outputs: NDArray[Any]) -> bytes:
        """The most probable type, or just text or unknown where it scores under its threshold."""
        (scores,) = outputs
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
