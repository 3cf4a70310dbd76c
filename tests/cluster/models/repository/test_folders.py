"""Models are found by name and by path, in each layout that people have; versions by policy."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from cluster.models.inference import (
    BUILT_IN,
    ModelError,
    ModelRepository,
    model_handlers,
    model_kinds,
)
from cluster.models.repository.folders import (
    VARIABLE,
    default_repository,
    model_name,
    read_model,
)
from tests.cluster.models.kinds.test_named_tensors import answer, frame
from tests.cluster.models.runtime.test_network import (
    FLOAT,
    TYPES,
    make,
    node,
    onnx,
    port,
)

DIGITS = BUILT_IN / "digits" / "model.onnx"


def write_scale(path: Path, factor: float, *, rows: Any = "N", fp16: bool = False) -> Path:
    """A graph that multiplies ``x`` by a factor, in one file."""
    kind = TYPES.FLOAT16 if fp16 else FLOAT
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = make.make_graph(
        [node("Mul", "x", "factor")],
        "scale",
        [port("x", [rows, 2], kind)],
        [port("y", [rows, 2], kind)],
        [make.make_tensor("factor", kind, [1], [factor])],
    )
    opset = [make.make_opsetid("", 16)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


ASK = frame(x=("FP32", [[1, 2]]))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a model of the versions 1, 2 and 10."""
    for version in (1, 2, 10):
        write_scale(tmp_path / "models" / "scale" / str(version) / "model.onnx", version)
    return tmp_path / "models"


def load(root: Path, reference: str = "scale", version: Any = None) -> list[float]:
    model = ModelRepository(root).load(reference, version)
    return answer(model.infer_batch([ASK])[0])["y"][0]  # type: ignore[no-any-return]


RESHAPED = """
    max_batch_size: 4
    input { name: "x" data_type: TYPE_FP32 dims: [ 1, 2 ] reshape { shape: [ 2 ] } }
"""


def configure(root: Path, text: str, name: str = "config.toml") -> None:
    (root / "scale" / name).write_text(text)


def test_the_newest_version_is_served_and_any_other_on_request(root: Path) -> None:
    assert load(root) == [10, 20]
    assert load(root, version=2) == load(root, version="2") == [2, 4]
    with pytest.raises(ModelError, match="model 'scale' has no version 3; there are 1, 2, 10"):
        load(root, version=3)


@pytest.mark.parametrize(
    ("policy", "served"), [("1", ["10"]), ("2", ["2", "10"]), ('"all"', ["1", "2", "10"]),
                           ("[2, 1]", ["1", "2"])],
)  # fmt: skip
def test_versions_are_served_by_policy(root: Path, policy: str, served: list[str]) -> None:
    configure(root, f"versions = {policy}")
    handlers = model_handlers(["scale"], root)
    assert sorted(handlers) == sorted(["scale", *(f"scale/{it}" for it in served)])
    newest, oldest = float(served[-1]), float(served[0])
    assert answer(handlers["scale"]([ASK])[0])["y"] == [[newest, 2 * newest]]
    assert answer(handlers[f"scale/{served[0]}"]([ASK])[0])["y"] == [[oldest, 2 * oldest]]
    assert ModelRepository(root).load("scale").describe().versions == tuple(served)


def test_models_are_found_in_each_layout(root: Path, tmp_path: Path) -> None:
    write_scale(tmp_path / "lone.onnx", 3)
    write_scale(tmp_path / "flat" / "model.onnx", 4)
    write_scale(tmp_path / "named" / "other.onnx", 5)
    write_scale(tmp_path / "optimum" / "onnx" / "model.onnx", 6)
    write_scale(root / "nested" / "1" / "model.onnx" / "model.onnx", 7)
    for name, factor in (("lone.onnx", 3), ("flat", 4), ("named", 5), ("optimum", 6)):
        assert load(root, f"{tmp_path}/{name}") == [factor, 2 * factor]
        assert model_name(f"{tmp_path}/{name}") == name.removesuffix(".onnx")
    assert load(root, "nested") == [7, 14]
    assert load(root, f"{root}/scale/") == [10, 20]
    assert ModelRepository(root).names() == ["digits", "magika", "minilm", "nested", "scale"]


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("{root}", "is a repository of the models scale; name one of them, with --repository"),
        ("{root}/none", "model 'none': there is no file or folder "),
        ("none.onnx", "model 'none': there is no file or folder "),
        ("{root}/a b.onnx", "'a b' is no name for a model: a letter or digit, then"),
        ("{root}/../two", "two.* holds a.onnx, b.onnx; name one file, or rename one to model.onnx"),
        ("{root}/../empty", "model 'empty': no file 'model.onnx' in "),
        ("scael", r"no model 'scael'; did you mean 'scale'\?"),
    ],
)
def test_what_is_no_model_is_refused_with_the_reason(
    root: Path, reference: str, complaint: str
) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_scale(root.parent / "two" / name, 1)
    (root.parent / "empty").mkdir()
    with pytest.raises(ModelError, match=complaint):
        load(root, reference.format(root=root))


def test_the_users_own_repository_is_where_the_variables_say(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_repository() == Path("/data/perfkit/models")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_repository() == Path("/home/me/.local/share/perfkit/models")
    monkeypatch.setenv(VARIABLE, str(root))
    assert "scale" in ModelRepository().names()


# Triton's configuration --------------------------------------------------------------------------

PBTXT = """
name: "scale"
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output { name: "y", data_type: TYPE_FP32, dims: 2, label_filename: "labels.txt" }
version_policy: { specific { versions: [ 1, 2 ] } }
instance_group [ { kind: KIND_GPU count: 2 } ]
dynamic_batching { }
"""


def test_a_configuration_of_triton_is_read_and_what_is_ignored_is_named(root: Path) -> None:
    configure(root, PBTXT, "config.pbtxt")
    configure(root, "left\nright\n", "labels.txt")
    info = ModelRepository(root).load("scale").describe()
    assert (info.version, info.versions, info.kind) == ("2", ("1", "2"), "tensors")
    assert (info.batches, info.batch_items_max, info.labels) == (True, 8, ("left", "right"))
    assert info.notes == ("of config.pbtxt ignored: dynamic_batching, instance_group",)


def test_without_a_batch_its_dims_are_whole_shapes_and_narrow_the_graphs(root: Path) -> None:
    ports = 'input { name: "x" data_type: TYPE_FP32 dims: [1, -1] }'
    configure(root, f"max_batch_size: 0 {ports}", "config.pbtxt")
    model = ModelRepository(root).load("scale")
    assert not model.describe().batches
    assert model.describe().inputs[0].shape == (1, 2)
    good, bad = model.handle_batch([ASK, frame(x=("FP32", [[1, 2], [3, 4]]))])
    assert answer(good) == {"y": [[10, 20]]}
    assert r"expected FP32[1, 2] 'x', got FP32[2, 2]" in str(bad)


def test_clients_shapes_may_differ_from_the_graphs(root: Path) -> None:
    """As in Triton's own example of a densenet: the graph's batch of one is left out."""
    write_scale(root / "scale" / "10" / "model.onnx", 10, rows=1)
    reshape = "dims: [ 2, 1 ] reshape { shape: [ 1, 2 ] }"
    output = 'output { name: "y" data_type: TYPE_FP32 dims: 2 reshape { shape: [ 1, 2 ] } }'
    text = f'max_batch_size: 0 input {{ name: "x" data_type: TYPE_FP32 {reshape} }} {output}'
    configure(root, text, "config.pbtxt")
    model = ModelRepository(root).load("scale")
    assert [it.shape for it in (*model.describe().inputs, *model.describe().outputs)] == [
        (2, 1), (2,)
    ]  # fmt: skip
    (result,) = model.handle_batch([frame(x=("FP32", [[1], [2]]))])
    assert answer(result) == {"y": [10, 20]}


def test_rows_that_depend_on_each_other_share_no_run_though_triton_would_batch(root: Path) -> None:
    path = root / "scale" / "10" / "model.onnx"
    model = onnx.load(path)
    model.graph.node[0].CopyFrom(node("Softmax", "x", axis=0))
    onnx.save(model, path)
    configure(root, RESHAPED, "config.pbtxt")
    model = ModelRepository(root).load("scale")
    assert "it does not batch: the output 'y'" in model.describe().notes[0]
    results = model.infer_batch([frame(x=("FP32", [[[1, 1]]])), frame(x=("FP32", [[[1, 9]]]))])
    assert [answer(it)["y"] for it in results] == [[[1, 1]], [[1, 1]]]


def test_rows_of_a_batch_are_reshaped_one_by_one(root: Path) -> None:
    configure(root, RESHAPED, "config.pbtxt")
    model = ModelRepository(root).load("scale")
    first, second = model.handle_batch(
        [frame(x=("FP32", [[[1, 2]]])), frame(x=("FP32", [[[3, 4]], [[5, 6]]]))]
    )
    assert answer(first) == {"y": [[10, 20]]}
    assert answer(second) == {"y": [[30, 40], [50, 60]]}


def test_dims_alone_tell_whether_they_are_whole_shapes(root: Path) -> None:
    for dims, batches in (("[ 2 ]", True), ("[ -1, 2 ]", False)):
        configure(root, f'input {{ name: "x" data_type: TYPE_FP32 dims: {dims} }}', "config.pbtxt")
        assert ModelRepository(root).load("scale").describe().batches is batches


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'input { name: "x" data_type: TYPE_FP32 dims: 2 reshape { shape: 3 } }',
            r"'x': dims \[2\] can't be reshaped to \[3\]",
        ),
        ('platform: "tensorflow_graphdef"', "platform 'tensorflow_graphdef' is not served here"),
        ('name: "other"', "it names the model 'other'; rename one of the two"),
        ("max_batch_size: 70000", "max_batch_size is 70000; at most 65536 is served here"),
        ("max_batch_size: many", "max_batch_size is 'many', which is no whole number"),
        ("max_batch_size: -1", "max_batch_size is -1; 0 is for a model that does not batch"),
        ("max_batch_size { a: 4 }", "max_batch_size is a message in braces"),
        ('input: "x"', "input is 'x'; it has to be a message in braces"),
        ('input [{ name: "x" data_type: TYPE_FP32 dims: 2 }, { name: "x" }]', "declares 'x' twice"),
        ("max_batch_size: 8 input {", "line 1: it ends too early"),
        ('input { name: "x" dims: 2 }', "an input or output without name or data_type"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 0 }', r"'x' has dims \[0\]"),
        (
            'max_batch_size: 4 input { name: "x" data_type: TYPE_INT64 dims: 2 }',
            r"declares the input INT64\[\?, 2\] 'x'; the graph has FP32\[\?, 2\] 'x'",
        ),
        (
            'max_batch_size: 4 input { name: "z" data_type: TYPE_FP32 dims: 2 }',
            r"declares the input FP32\[\?, 2\] 'z'; the graph has FP32\[\?, 2\] 'x'",
        ),
        (
            'max_batch_size: 0 output { name: "y" data_type: TYPE_FP32 dims: [2] }',
            r"declares the output FP32\[2\] 'y'; the graph has FP32\[\?, 2\] 'y'",
        ),
        ('default_model_filename: "../../a.onnx"', "must lie in its folder"),
        ('default_model_filename: "a.onnx"', "no file 'a.onnx' in .*/scale/10"),
        (
            'output { name: "y" data_type: TYPE_FP32 label_filename: "l" }',
            "cannot read .*/scale/l:",
        ),
        ('output { name: "y" data_type: TYPE_FP32 label_filename: "../l" }', "must lie in the mo"),
        ("version_policy { specific { versions: 7 } }", "asks for version 7; there are 1, 2, 10"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    root: Path, text: str, complaint: str
) -> None:
    configure(root, text, "config.pbtxt")
    with pytest.raises(ModelError, match=complaint):
        load(root)


def test_two_models_of_one_name_are_refused(root: Path, tmp_path: Path) -> None:
    other = str(write_scale(tmp_path / "scale.onnx", 3))
    assert model_kinds(["scale", "scale"], root)[0] == "scale"
    with pytest.raises(ModelError, match=r"'scale': .*/10/model\.onnx and .*/scale\.onnx; rename"):
        model_kinds(["scale", other], root)


def test_a_batch_that_the_graph_does_not_have_is_refused(root: Path) -> None:
    write_scale(root / "scale" / "10" / "model.onnx", 1, rows=1)
    for name, text in (("config.pbtxt", "max_batch_size: 4"), ("config.toml", "batches = true")):
        configure(root, text, name)
        with pytest.raises(ModelError, match=r"wants batches, but .* FP32\[1, 2\] 'x'"):
            load(root)


def test_a_copy_of_digits_serves_labels_by_configuration(root: Path) -> None:
    folder = root / "mine"
    (folder / "1").mkdir(parents=True)
    shutil.copy(DIGITS, folder / "1")
    (folder / "config.toml").write_text('kind = "rows"\nlabels = ["a", "b"]\n')
    with pytest.raises(ModelError, match="it has 2 labels for the scores"):
        ModelRepository(root).load("mine")
    assert read_model(folder).manifest.labels == ("a", "b")
