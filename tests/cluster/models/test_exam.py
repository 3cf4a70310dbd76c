"""What a model is asked when its precisions are tried: real inputs, judged as they are sent."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cluster.models.exam import PAIRS, exam_of, first_look
from cluster.models.inference import Model, ModelRepository
from cluster.models.kinds.filetypes import file_block
from cluster.models.repository.manifest import Manifest
from cluster.models.runtime.golden import Tensors
from cluster.models.runtime.loss import Exam
from cluster.models.sample_files import MAKERS, sample_files
from cluster.models.samples import graded_texts
from tests.cluster.models.kinds.test_encoders import save_encoder, save_tokenizer
from tests.cluster.models.runtime.test_network import onnx

pytest.importorskip("onnxruntime")


def exam_and_model(name: str) -> tuple[Exam, Model]:
    repository = ModelRepository()
    model = repository.load(name)
    return exam_of(repository.find(name).manifest, lambda: model.prepare), model


def test_families_of_texts_are_of_three_and_no_text_is_there_twice() -> None:
    assert {len(family) for family in graded_texts()} == {3}
    texts = [text for family in graded_texts() for text in family]
    assert max(Counter(texts).values()) == 1
    assert all(text == text.strip() and text.endswith((".", "?")) for text in texts)


def test_held_out_rows_are_judged_by_their_labels() -> None:
    exam, _ = exam_and_model("digits")
    (group,) = exam.groups
    assert (group["pixels"].shape, exam.said) == ((360, 64), "360 held-out rows")
    assert exam.judge is not None
    scores: Any = np.eye(10, dtype=np.float32)[np.arange(360) % 10]
    own, other = ({"probabilities": it} for it in (scores, scores.copy()))
    other["probabilities"][:9] = 0.1  # all alike, so the first label counts
    loss = exam.judge([own], [other])
    assert (loss.points, loss.count) == (pytest.approx(100 * 8 / 360), 360)


def test_texts_are_judged_by_their_own_vectors_whatever_group_they_are_in() -> None:
    exam, model = exam_and_model("minilm")
    texts = 3 * len(graded_texts())
    sizes = [len(group["input_ids"]) for group in exam.groups]
    assert (sum(sizes), sizes) == (texts, sorted(sizes, reverse=True))
    assert len(sizes) > 1
    assert exam.groups[0]["input_ids"].max() > 1000, "tokens of words, not made-up numbers"
    chance = np.random.default_rng(0)
    (port,) = [it for it in model.describe().outputs if it.name == "embedding"]
    own: list[Tensors] = [
        {port.name: chance.normal(size=(size, port.shape[-1])).astype("f")} for size in sizes
    ]
    assert exam.judge is not None
    same, other = (
        exam.judge(own, own),
        exam.judge(own, [{port.name: it[port.name][::-1]} for it in own]),
    )
    assert (same.points, same.high, same.count) == (0.0, 0.0, len(PAIRS) * len(graded_texts()))
    assert other.low < 0.0 < other.high, "vectors by chance know nothing of meaning"
    assert other.high - other.low > 1.0


def test_sample_files_are_of_the_types_that_they_are_made_as() -> None:
    model = ModelRepository().load("magika")
    files = sample_files(2)
    assert len(files) == 2 * len(MAKERS)
    results = model.infer_batch([file_block(content) for _, content in files])
    found = [msgspec.msgpack.decode(it)["label"] for it in results]
    right = sum(kind == label for (kind, _), label in zip(files, found, strict=True))
    assert right >= 0.85 * len(files)


def test_a_model_that_nothing_is_known_of_is_asked_its_golden_inputs_or_made_up_ones() -> None:
    manifest = Manifest(name="mine", kind="rows")
    rows = {"x": np.zeros((3, 2), np.float32)}
    exam = exam_of(manifest, lambda: str, rows)
    assert (exam.groups, exam.said) == ((rows,), "its golden inputs")
    assert exam.judge is not None
    assert exam.judge([rows], [rows]).verdict(0.5) == "inconclusive"
    made_up = exam_of(manifest, lambda: str)
    assert (made_up.groups, made_up.said[:7]) == ((), "made-up")
    assert made_up.judge is None, "an automatic precision can't be sure of made-up numbers"
    assert first_look(rows).judge is None


def test_texts_that_can_not_share_a_run_are_asked_one_by_one(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    graph = onnx.load(save_encoder(tmp_path) / "model.onnx")
    for one in (*graph.graph.input, *graph.graph.output):
        one.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, tmp_path / "model.onnx")
    repository = ModelRepository()
    model = repository.load(str(tmp_path))
    exam = exam_of(repository.find(str(tmp_path)).manifest, lambda: model.prepare)
    assert [len(it["input_ids"]) for it in exam.groups] == [1] * 3 * len(graded_texts())
