"""Any sentence encoder with a tokenizer beside it: pooled, cut and padded as its files say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.models.adding import NewModel, add_model
from cluster.models.frames.tensor import unpack_tensor
from cluster.models.inference import Model, ModelError, ModelRepository, Question
from tests.cluster.models.runtime.test_network import FLOAT, TYPES, make, node, onnx, port

tokenizers = pytest.importorskip("tokenizers")

WORDS = ["[PAD]", "[UNK]", "cat", "dog", "car", "tree", "sun"]
#: A vector for each word; that of padding would spoil any mean.
TABLE = np.array([[99, 99, 99], [1, 1, 1], *np.random.default_rng(3).normal(size=(5, 3))], "f4")


def save_tokenizer(folder: Path, **truncation: int) -> None:
    model = tokenizers.models.WordLevel({word: at for at, word in enumerate(WORDS)}, "[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if truncation:
        tokenizer.enable_truncation(**truncation)
    tokenizer.save(str(folder / "tokenizer.json"))


def save_encoder(folder: Path, *, pooled: bool = False, types: bool = True, kind: int = TYPES.INT64,
                 tokens: Any = "T") -> Path:  # fmt: skip
    """A graph that looks words up, and adds 100 to each that is of a second text."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    nodes = [node("Gather", "table", "input_ids", out="words", axis=0)]
    if types:
        nodes += [
            node("Cast", "token_type_ids", out="second", to=FLOAT),
            node("Unsqueeze", "second", "last", out="seconds"),
            node("Add", "words", "seconds", out="states"),
        ]
    else:
        nodes += [node("Identity", "words", out="states")]
    outputs = [port("last_hidden_state", ["N", tokens, 3]), port("pooler_output", ["N", 3])]
    nodes += [
        node("Identity", "states", out="last_hidden_state"),
        node("ReduceMax", "states", out="pooler_output", axes=[1], keepdims=0),
    ]
    if pooled:
        outputs.append(port("sentence_embedding", ["N", 3]))
        nodes.append(node("ReduceMin", "states", out="sentence_embedding", axes=[1], keepdims=0))
    constants = [
        onnx.numpy_helper.from_array(TABLE, "table"),
        make.make_tensor("last", TYPES.INT64, [1], [-1]),
    ]
    inputs = [port(name, ["N", tokens], kind) for name in names]
    graph = make.make_graph(nodes, "g", inputs, outputs, constants)
    opset = [make.make_opsetid("", 16)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    return folder


def vector(model: Model, text: str) -> Any:
    (result,) = model.infer_batch([text.encode()])
    return unpack_tensor(result)


def mean(*words: str) -> Any:
    found = np.mean([TABLE[WORDS.index(word)] for word in words], axis=0)
    return pytest.approx(found / np.linalg.norm(found), abs=1e-6)


def tokens(model: Model, text: str) -> tuple[int, int]:
    """The padded length of a text, and how much of it is the text's."""
    question = model.prepare(text.encode())
    assert isinstance(question, Question)
    mask = question.inputs["attention_mask"]
    return mask.shape[1], int(mask.sum())


@pytest.mark.parametrize("types", [True, False])
@pytest.mark.parametrize("kind", [TYPES.INT64, TYPES.INT32])
def test_a_folder_as_exporters_write_it_is_served_with_the_mean_of_its_tokens(
    tmp_path: Path, types: bool, kind: int
) -> None:
    save_tokenizer(save_encoder(tmp_path / "mine", types=types, kind=kind))
    model = ModelRepository().load(str(tmp_path / "mine"))
    assert (model.describe().kind, model.describe().batches) == ("text-embedding", True)
    assert vector(model, "cat dog") == mean("cat", "dog")
    assert vector(model, "sun " * 17) == mean("sun")


def test_the_graphs_own_pooling_comes_first_but_not_that_of_berts_other_task(
    tmp_path: Path,
) -> None:
    save_tokenizer(save_encoder(tmp_path / "mine", pooled=True))
    model = ModelRepository().load(str(tmp_path / "mine"))
    expected = np.minimum(TABLE[2], np.minimum(TABLE[3], TABLE[0]))  # and padding
    assert vector(model, "cat dog") == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


def test_the_first_token_counts_where_the_configuration_says_so(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "mine")
    save_tokenizer(folder)
    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert vector(ModelRepository().load(str(folder)), "cat dog sun") == mean("cat")
    pooling = {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ModelError, match="asks for neither the mean nor the first token"):
        ModelRepository().load(str(folder))


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({}, 512),
        ({"sentence_bert_config.json": {"max_seq_length": 7}}, 7),
        ({"tokenizer_config.json": {"model_max_length": 40}}, 40),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, 512),
        ({"config.json": {"max_position_embeddings": 20}}, 20),
        ({"config.toml": 'kind = "text-embedding"\ntokens_max = 3'}, 3),
    ],
)
def test_a_text_is_cut_where_its_files_say(tmp_path: Path, files: Any, most: int) -> None:
    folder = save_encoder(tmp_path / "mine")
    save_tokenizer(folder)
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    model = ModelRepository().load(str(folder))
    assert tokens(model, "dog " * 600) == (most, most)
    assert tokens(model, "dog") == (min(16, most), 1)


def test_the_tokenizers_own_bound_counts_too(tmp_path: Path) -> None:
    save_tokenizer(save_encoder(tmp_path / "mine"), max_length=33)
    model = ModelRepository().load(str(tmp_path / "mine"))
    assert [tokens(model, "dog " * n) for n in (0, 16, 17, 99)] == [
        (16, 0), (16, 16), (32, 17), (33, 33)
    ]  # fmt: skip


def test_texts_of_like_length_share_a_bucket_and_a_run_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_encoder(tmp_path / "mine")
    save_tokenizer(folder)
    (folder / "config.toml").write_text('kind = "text-embedding"\nbatch_items_max = 2\n')
    model = ModelRepository().load(str(folder))
    texts = ["dog", "dog " * 20, "cat", "sun " * 3, "cat " * 30]
    runs = []
    run = Model.run
    monkeypatch.setattr(Model, "run", lambda self, some: runs.append(len(some)) or run(self, some))
    found = model.infer_batch([text.encode() for text in texts])
    assert runs == [2, 1, 2]
    for text, result in zip(texts, found, strict=True):
        assert unpack_tensor(result) == mean(text.split()[0])


def test_a_graph_of_a_fixed_length_gets_texts_of_that_length(tmp_path: Path) -> None:
    save_tokenizer(save_encoder(tmp_path / "mine", tokens=24))
    model = ModelRepository().load(str(tmp_path / "mine"))
    assert [tokens(model, "dog " * n) for n in (1, 99)] == [(24, 1), (24, 24)]
    assert vector(model, "cat dog") == mean("cat", "dog")


def test_an_encoder_is_added_with_its_tokenizer_and_its_configuration(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "exported" / "onnx")
    save_tokenizer(tmp_path / "exported")
    (tmp_path / "exported" / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    root = tmp_path / "models"
    for name, more in (
        ("a", {"tokenizer": tmp_path / "exported" / "tokenizer.json"}),
        ("b", {"kind": "text-embedding"}),
    ):
        info = add_model(NewModel(name, folder / "model.onnx", **more), root)  # type: ignore[arg-type]
        assert (info.kind, info.batches) == ("text-embedding", True)
        model = ModelRepository(root).load(name)
        assert tokens(model, "dog " * 9) == (5, 5)
        assert vector(model, "tree") == mean("tree")


def test_a_graph_that_gives_no_vectors_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    save_tokenizer(folder)
    names = ("input_ids", "attention_mask")
    inputs = [port(name, ["N", "T"], TYPES.INT64) for name in names]
    outputs = [port("y", ["N", "T"], TYPES.INT64)]
    graph = make.make_graph([node("Add", *names)], "g", inputs, outputs)
    opset = [make.make_opsetid("", 16)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    with pytest.raises(ModelError, match=r"gives vectors, .*; this one gives INT64\[\?, \?\] 'y'"):
        ModelRepository().load(str(folder))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "mine")
    model = tokenizers.models.WordLevel({"[PAD]": 0, "[UNK]": 101}, "[UNK]")
    tokenizers.Tokenizer(model).save(str(folder / "tokenizer.json"))
    new = NewModel("mine", folder / "model.onnx", tokenizer=folder / "tokenizer.json")
    with pytest.raises(ModelError, match=r"idx=101 .* is the tokenizer this model's own\?"):
        add_model(new, tmp_path / "models")
