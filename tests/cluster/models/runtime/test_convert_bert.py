"""A converted graph computes what BERT computes; other networks are refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cluster.models.repository.manifest import ModelError
from cluster.models.runtime.convert_bert import OPSET, convert_bert, main
from tests.cluster.models.runtime import bert

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

#: float32 against float64, on vectors of length 1.
ERROR_MAX = 1e-5


def run(graph: bytes, texts: list[list[int]]) -> np.ndarray:
    """The vectors of texts of any lengths, padded at their ends with a token that is a word."""
    ids = np.full((len(texts), max(map(len, texts))), 7, np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (vectors,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    return vectors


def test_the_graph_computes_what_bert_computes(tmp_path: Path) -> None:
    weights = bert.save_tiny(tmp_path)
    texts = [[3], [1, 2, 3], [29, 0, 5, 5, 5, 11, 4], list(range(bert.PLACES))]
    vectors = run(convert_bert(tmp_path / "model.safetensors"), texts)
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        expected = bert.embed(weights, text, bert.HEADS, bert.EPS)
        assert np.abs(vector - expected).max() < ERROR_MAX


def test_the_graph_keeps_the_rules_of_the_format(tmp_path: Path) -> None:
    bert.save_tiny(tmp_path)
    model = onnx.load_from_string(convert_bert(tmp_path / "model.safetensors"))
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == OPSET
    assert "Range" not in {node.op_type for node in model.graph.node}
    assert [it.name for it in model.graph.input] == ["input_ids", "attention_mask"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_act": "relu"}, "not a BERT that can be converted: .*hidden_act"),
        ({"model_type": "gpt2"}, "not a BERT that can be converted: .*model_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_attention_heads": 5}, "hidden_size 12 is no multiple of its 5 heads"),
        ({"num_hidden_layers": 3}, r"weights are missing: 'encoder\.layer\.2"),
    ],
)
def test_another_kind_of_network_is_refused(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    bert.save_tiny(tmp_path, **changes)
    with pytest.raises(ModelError, match=complaint):
        convert_bert(tmp_path / "model.safetensors")


def test_tokens_pooled_in_another_way_are_refused(tmp_path: Path) -> None:
    bert.save_tiny(tmp_path)
    ways = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(ways))
    with pytest.raises(ModelError, match="pooled by pooling_mode_cls_token, not by the mean"):
        convert_bert(tmp_path / "model.safetensors")


def test_as_a_program_it_writes_the_file_or_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "model.safetensors", tmp_path / "model.onnx"
    bert.save_tiny(tmp_path)
    assert main(str(source), str(target)) == 0
    assert target.read_bytes() == convert_bert(source)
    source.write_bytes(b"junk")
    assert main(str(source), str(target)) == 1
    assert main(str(tmp_path / "none" / "model.safetensors"), str(target)) == 1
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert main(str(source), str(target)) == 1
    broken, absent, missing = capsys.readouterr().err.splitlines()
    assert broken.startswith("not a BERT that can be converted: ")
    assert absent.startswith("[Errno 2] No such file")
    assert missing.endswith("the extra [infer] has it: pip install 'perfkit[infer]'")
