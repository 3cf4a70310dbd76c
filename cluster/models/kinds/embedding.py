"""Models that map texts to vectors, near each other for like meanings, such as ``minilm``.

A payload is a text in UTF-8. The result is a tensor, float32[width] of length 1, so that the
product of two results is the cosine of their angle. The model reads only the beginning of a text,
as many tokens as its ``sentence_bert_config.json`` says (256 for ``minilm``, some two hundred
words). Later text changes nothing, so send a longer text in parts.

The ``tokenizers`` package runs the tokenizer beside the weights, one text at a time: for several it
would start a thread for every core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.models.frames.tensor import pack_tensor
from cluster.models.kinds.adapter import NAN, Adapter, Question
from cluster.models.repository.manifest import (
    Manifest,
    ModelError,
    PayloadError,
    PositiveInt,
    needs_extra,
)
from cluster.models.runtime.network import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A text is tokenized whole before it is cut off, so it needs a bound.
TEXT_BYTES_MAX = 1 << 20

IDS = "input_ids"
MASK = "attention_mask"


class EncoderConfig(msgspec.Struct, frozen=True):
    """The part of ``sentence_bert_config.json`` used here: the most tokens of a text."""

    max_seq_length: PositiveInt


class TextEmbedding(Adapter):
    """Texts to vectors, by the tokenizer beside the weights.

    Raises:
        ModelError: the package tokenizers or a file is missing, or the graph takes other inputs.
    """

    labels = ()
    input_name = IDS

    def __init__(self, manifest: Manifest, path: Path, network: Network) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise needs_extra(manifest.name) from error
        network.expect(manifest.kind, {IDS: "int64[N, ?]", MASK: "int64[N, ?]"})
        if network.classes is None:
            raise ModelError(
                f"model {manifest.name!r}: kind {manifest.kind!r} wants a graph that gives vectors "
                "of a fixed width"
            )
        try:
            config = msgspec.json.decode(
                (path.parent / "sentence_bert_config.json").read_bytes(), type=EncoderConfig
            )
            self._tokenizer = Tokenizer.from_file(str(path.parent / "tokenizer.json"))
        except Exception as error:  # the tokenizer's errors are bare Exceptions
            raise ModelError(
                f"model {manifest.name!r}: cannot read the tokenizer in {path.parent}: {error}"
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(config.max_seq_length)

    def read(self, payload: bytes | memoryview) -> Question:
        """The tokens of a text, int64[1, tokens]; see the top of this file."""
        import numpy as np

        if len(payload) > TEXT_BYTES_MAX:
            raise PayloadError(
                f"the text has {len(payload):,} bytes; ask about parts of at most "
                f"{TEXT_BYTES_MAX:,}"
            )
        try:
            text = str(payload, "utf-8")
        except UnicodeDecodeError as error:
            raise PayloadError(f"expected a text in UTF-8: {error}") from error
        return Question(np.array([self._tokenizer.encode(text).ids], np.int64))

    def write(self, question: Question, outputs: NDArray[Any]) -> bytes:
        """The text's vector."""
        if (outputs != outputs).any():
            raise ModelError(NAN)
        return pack_tensor(outputs[0])

    def feeds(
        self, questions: Sequence[Question], rows_max: int
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Texts side by side, the shorter ones of each run padded to its longest."""
        import numpy as np

        for start in range(0, len(questions), rows_max):
            some = [question.rows[0] for question in questions[start : start + rows_max]]
            ids = np.zeros((len(some), max(map(len, some))), np.int64)
            mask = np.zeros_like(ids)
            for row, tokens in enumerate(some):
                ids[row, : len(tokens)] = tokens
                mask[row, : len(tokens)] = 1
            yield {IDS: ids, MASK: mask}
