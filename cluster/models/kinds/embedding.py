"""Models that map texts to vectors, near each other for like meanings, such as ``minilm``.

A payload is a text in UTF-8. The result is a tensor, float32[width] of length 1, so that the
product of two results is the cosine of their angle. The model reads only the beginning of a text
(256 tokens for ``minilm``, some two hundred words). Later text changes nothing, so send a longer
text in parts.

After `COUNTED` the result is a frame of two named tensors (`cluster.models.frames.tensors`):
``vector`` FP32[width], and ``tokens`` INT64[1], which says how many the model read of the text,
special ones included.

Any sentence encoder works whose graph takes ``input_ids``, ``attention_mask`` and perhaps
``token_type_ids``, with a ``tokenizer.json`` beside it, as the package ``tokenizers`` writes it.
The vector is an output [texts, width]; or else the mean of an output [texts, tokens, width] over a
text's tokens, or its first token's where ``1_Pooling/config.json`` says so. The most tokens of a
text come from the configuration, ``sentence_bert_config.json``, ``tokenizer_config.json`` or the
tokenizer; these files are those of Sentence-BERT (https://sbert.net) and Hugging Face.

Texts are padded to a multiple of 16 tokens, so that those of like length run together. The
tokenizer takes one text at a time: for several it would start a thread for every core.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.models.frames.arrays import NUMPY, to_tensor
from cluster.models.frames.metadata import TensorMetadata
from cluster.models.frames.tensor import pack_tensor
from cluster.models.frames.tensors import COUNTED, encode_tensors
from cluster.models.kinds.adapter import Adapter, Question, check_answer, question
from cluster.models.repository.folders import TOKENIZER
from cluster.models.repository.manifest import (
    KindError,
    Manifest,
    ModelError,
    PayloadError,
    needs_extra,
)
from cluster.models.runtime.network import Network, Outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A text is tokenized whole before it is cut off, so it needs a bound.
TEXT_BYTES_MAX = 1 << 20

#: Lengths are padded to a multiple of this many tokens.
TOKENS_STEP = 16
#: The most tokens of a text where no file says.
TOKENS_MAX = 512
#: Tokenizers without a bound are written with one of 1e30.
TOKENS_SENSIBLE = 1 << 20

IDS = "input_ids"
MASK = "attention_mask"
TYPES = "token_type_ids"
#: BERT's head for another task; its vectors are no sentence embeddings.
POOLER = "pooler_output"


class _Encoder(msgspec.Struct, frozen=True):
    """The part of ``sentence_bert_config.json`` used here."""

    max_seq_length: int | None = None


class _Tokenizer(msgspec.Struct, frozen=True):
    """The part of ``tokenizer_config.json`` used here."""

    model_max_length: float | None = None


class _Network(msgspec.Struct, frozen=True):
    """The part of ``config.json`` used here."""

    max_position_embeddings: int | None = None


class _Pooling(msgspec.Struct, frozen=True):
    """The part of ``1_Pooling/config.json`` used here: how tokens' vectors become a text's."""

    pooling_mode_mean_tokens: bool = True
    pooling_mode_cls_token: bool = False


class TextEmbedding(Adapter):
    """Texts to vectors, by the tokenizer beside the weights.

    Raises:
        ModelError: the package tokenizers or a file is missing, or the graph takes other inputs.
    """

    takes_any_bytes = True

    def __init__(self, manifest: Manifest, path: Path, network: Network) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise needs_extra(manifest.name) from error
        self._network = network
        self._inputs = network.inputs
        names = [IDS, MASK, TYPES] if TYPES in network.inputs else [IDS, MASK]
        ids = network.inputs.get(IDS)
        datatype, tokens = (ids.datatype, ids.shape[-1]) if ids else ("INT64", -1)
        if datatype not in ("INT32", "INT64"):
            datatype = "INT64"
        shape = f"{datatype}[?, {'?' if tokens < 0 else tokens}]"
        network.expect(manifest.kind, dict.fromkeys(sorted(names, key=_order(network)), shape))
        self._vectors = _vectors(manifest, network)
        places = (path.parent, path.parent.parent)
        folder = next((it for it in places if (it / TOKENIZER).is_file()), path.parent)
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            self._by_first = _by_first(folder) if len(self._vectors.shape) == 3 else False
            tokens_max = manifest.tokens_max or _tokens_max(folder, self._tokenizer)
        except Exception as error:  # the tokenizer's errors are bare Exceptions
            raise ModelError(
                f"model {manifest.name!r}: cannot read the tokenizer in {folder}: {error}"
            ) from error
        self._fixed = max(0, tokens)
        self._tokens_max = self._fixed or tokens_max
        self._pad = _pad_id(self._tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._tokens_max)

    def read(self, payload: bytes | memoryview) -> Question:
        """The tokens of a text, [1, tokens], padded; see the top of this file."""
        import numpy as np

        if len(payload) > TEXT_BYTES_MAX:
            raise PayloadError(
                f"the text has {len(payload):,} bytes; ask about parts of at most "
                f"{TEXT_BYTES_MAX:,}"
            )
        is_counted = payload[: len(COUNTED)] == COUNTED
        try:
            text = str(payload[len(COUNTED) :] if is_counted else payload, "utf-8")
        except UnicodeDecodeError as error:
            raise PayloadError(f"expected a text in UTF-8: {error}") from error
        encoding = self._tokenizer.encode(text)
        ids = encoding.ids
        padded = self._fixed or min(self._tokens_max, _rounded_up(max(1, len(ids))))
        inputs = {}
        for name, port in self._inputs.items():
            row = np.full((1, padded), self._pad if name == IDS else 0, NUMPY[port.datatype])
            row[0, : len(ids)] = {IDS: ids, MASK: 1, TYPES: encoding.type_ids}[name]
            inputs[name] = row
        mask = inputs[MASK]

        def write(outputs: Outputs) -> bytes:
            vector = self._vector(outputs[self._vectors.name], mask)
            if not is_counted:
                return pack_tensor(vector)
            tokens = np.array([len(ids)])
            found = (("vector", "FP32", vector), ("tokens", "INT64", tokens))
            return encode_tensors([to_tensor(*one) for one in found])

        return question(self._network, inputs, (self._vectors.name,), write)

    def _vector(self, output: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
        """The vector of one text, scaled to length 1."""
        import numpy as np

        check_answer(self._vectors, output)
        vector = output[0].astype(np.float32)
        if vector.ndim == 2:
            vector = vector[0] if self._by_first else mask[0].astype(np.float32) @ vector
        length = float(np.linalg.norm(vector))
        unit: NDArray[Any] = vector / np.float32(length or 1.0)
        return unit


def _rounded_up(tokens: int) -> int:
    return tokens + -tokens % TOKENS_STEP


def _order(network: Network) -> Any:
    known = list(network.inputs)
    return lambda name: known.index(name) if name in known else len(known)


def _vectors(manifest: Manifest, network: Network) -> TensorMetadata:
    """The output to read vectors from: a pooled one, or those of the tokens."""
    floats = [it for it in network.outputs.values() if it.datatype in ("FP16", "FP32", "FP64")]
    for rank, but in ((2, POOLER), (3, None), (2, None)):
        for port in floats:
            if len(port.shape) == rank and port.name != but:
                return port
    raise KindError(
        f"model {manifest.name!r}: kind {manifest.kind!r} wants a graph that gives vectors, "
        f"[texts, width] or [texts, tokens, width]; this one gives "
        f"{' and '.join(map(str, network.outputs.values()))}"
    )


def _read(path: Path, kind: Any) -> Any:
    return msgspec.json.decode(path.read_bytes(), type=kind) if path.is_file() else kind()


def _tokens_max(folder: Path, tokenizer: Any) -> int:
    """The most tokens of a text, by the first file that tells."""
    told = (
        _read(folder / "sentence_bert_config.json", _Encoder).max_seq_length,
        _read(folder / "tokenizer_config.json", _Tokenizer).model_max_length,
        (tokenizer.truncation or {}).get("max_length"),
    )
    found = next((int(it) for it in told if it and it < TOKENS_SENSIBLE), TOKENS_MAX)
    positions = _read(folder / "config.json", _Network).max_position_embeddings
    return min(found, positions or found)


def _by_first(folder: Path) -> bool:
    """Whether a text's vector is that of its first token."""
    pooling = _read(folder / "1_Pooling" / "config.json", _Pooling)
    if not (pooling.pooling_mode_cls_token or pooling.pooling_mode_mean_tokens):
        raise ValueError("1_Pooling/config.json asks for neither the mean nor the first token")
    first: bool = pooling.pooling_mode_cls_token
    return first


def _pad_id(tokenizer: Any) -> int:
    told = (tokenizer.padding or {}).get("pad_id")
    known = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((it for it in (told, *known) if it is not None), 0)
