"""What the servers are asked about: a model file, and rows or texts with the right answers.

The right answer is what ONNX Runtime says in this process to one question at a time. The models are
those that come with the cluster: `digits` (rows of pixels), `minilm` (texts of TOKENS tokens, in
words or as those tokens) and `magika` (the two ends of a file). Every server opens the same file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.models.inference import BUILT_IN, ModelError
from cluster.models.repository.manifest import model_path, needs_extra, read_manifest
from cluster.models.runtime.cache import Cache
from cluster.models.runtime.sharing import Workshop
from perfkit.bench.serving.exchange import Comparison, Questions
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.served import python_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The length of a question to minilm, [CLS] and [SEP] included.
TOKENS = 32
#: Different questions; a block repeats them.
DISTINCT = 64
#: What magika reads of either end of a file.
END_BYTES = 1024
#: The names that numpy and the protocol have for the runtime's types.
NUMPY_TYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float)": "float32"}
OIP_TYPES = {"int64": "INT64", "int32": "INT32", "float32": "FP32"}
#: English words that are one token each.
WORDS = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book eye"
).split()


@dataclass(frozen=True)
class Material:
    """Questions to one model: rows of its first input, or texts if there is a `tokenizer`.

    `inputs` are the names and numpy types of its inputs; the second, if any, is a mask of ones.
    """

    name: str
    model: str
    file: Path
    inputs: tuple[tuple[str, str], ...]
    output: str
    rows: list[Any] = field(repr=False)
    expected: list[list[float]] = field(repr=False)
    compared: Comparison
    tokenizer: Path | None = None

    def oip(self) -> Questions:
        """As the Open Inference Protocol has them, in JSON; texts as OpenAI's clients send them."""
        if self.tokenizer is not None:
            bodies = [{"model": self.model, "input": row} for row in self.rows]
            return self._questions("/v1/embeddings", bodies)
        return self.oip_rows()

    def oip_rows(self) -> Questions:
        """As the Open Inference Protocol has them, in JSON; texts as its strings."""
        bodies = [{"inputs": self._tensors(row)} for row in self.rows]
        return self._questions(f"/v2/models/{self.model}/infer", bodies)

    def rows_json(self, path: str) -> Questions:
        """As a list of one row, for servers whose body is what its programmer makes it."""
        return self._questions(path, [{"rows": [row]} for row in self.rows])

    def _tensors(self, row: Sequence[Any]) -> list[dict[str, Any]]:
        if self.tokenizer is not None:
            return [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [row]}]
        columns = [row, [1] * len(row)][: len(self.inputs)]
        return [
            {"name": name, "shape": [1, len(row)], "datatype": OIP_TYPES[dtype], "data": column}
            for (name, dtype), column in zip(self.inputs, columns, strict=True)
        ]

    def _questions(self, path: str, bodies: Sequence[Any]) -> Questions:
        encoded = [msgspec.json.encode(body) for body in bodies]
        return Questions(path, encoded, self.expected, self.compared)


def material(name: str) -> Material:
    """The questions of that name, made once.

    Raises ModelError for a missing package, ExperimentError if there are no files to ask about.
    """
    return _made(name)


@lru_cache
def _made(name: str) -> Material:
    return MATERIALS[name]()


def _digits() -> Material:
    from cluster.models.samples import held_out_digits

    rows = held_out_digits()[0][:DISTINCT].tolist()
    return _of_rows("digits", rows, "class")


def _magika() -> Material:
    paths = [path for found in python_files().values() for path in found]
    long = [path for path in sorted(paths) if path.stat().st_size >= 2 * END_BYTES]
    if len(long) < DISTINCT:
        raise ExperimentError("the installed Python has too few files to ask magika about")
    rows = []
    for path in random.Random(0).sample(long, DISTINCT):
        content = path.read_bytes()
        rows.append(list(content[:END_BYTES] + content[-END_BYTES:]))
    return _of_rows("magika", rows, "class")


def _minilm() -> Material:
    return _of_rows("minilm", [ids for _, ids in _sentences()], "cosine")


def _texts() -> Material:
    tokens = material("minilm")
    texts: list[Any] = [text for text, _ in _sentences()]
    return replace(tokens, name="texts", rows=texts, tokenizer=_tokenizer_file())


MATERIALS: Mapping[str, Callable[[], Material]] = {
    "digits": _digits,
    "minilm": _minilm,
    "texts": _texts,
    "magika": _magika,
}


def _sentences() -> list[tuple[str, list[int]]]:
    """Texts of TOKENS tokens, each with its tokens."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise needs_extra("minilm") from error
    tokenizer = Tokenizer.from_file(str(_tokenizer_file()))
    tokenizer.no_padding()
    rng = random.Random(0)
    texts = (" ".join(rng.choices(WORDS, k=TOKENS - 2)) for _ in range(DISTINCT))
    found = [(text, tokenizer.encode(text).ids) for text in texts]
    if any(len(ids) != TOKENS for _, ids in found):
        raise ModelError(f"the tokenizer of minilm makes something else than {TOKENS} tokens")
    return found


def _tokenizer_file() -> Path:
    return _source("minilm").parent / "tokenizer.json"


def _source(model: str) -> Path:
    folder = BUILT_IN / model
    return model_path(read_manifest(folder), folder)


def model_file(model: str) -> Path:
    """The ONNX file of a built-in model, made from its weights if need be."""
    return Workshop(Cache(), model, _source(model)).file(None).path


def _of_rows(model: str, rows: list[Any], compared: Comparison) -> Material:
    import numpy as np

    file = model_file(model)
    session = open_session(file)
    inputs = tuple((port.name, NUMPY_TYPES[port.type]) for port in session.get_inputs())
    output = session.get_outputs()[-1].name

    def answer(row: Sequence[float]) -> list[float]:
        first: NDArray[Any] = np.array([row])
        arrays = [first, np.ones_like(first)]
        feed = {
            name: array.astype(dtype) for (name, dtype), array in zip(inputs, arrays, strict=False)
        }
        found: list[float] = session.run([output], feed)[0][0].tolist()
        return found

    expected = [answer(row) for row in rows]
    return Material(model, model, file, inputs, output, rows, expected, compared)


def open_session(file: Path, threads: int = 1) -> Any:
    """A session on the CPU with `threads` threads, as every server here opens it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise needs_extra(file.stem) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
