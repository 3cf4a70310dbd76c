"""What can be served is added whole, what can't is refused with the reason and leaves nothing."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cluster.models import adding
from cluster.models.adding import NewModel, add_model, read_labels, remove_model
from cluster.models.checking import check_models
from cluster.models.frames.tensor import pack_tensor
from cluster.models.inference import BUILT_IN, ModelError, ModelInfo, ModelRepository
from cluster.models.samples import held_out_digits
from tests.cluster.models.kinds.test_named_tensors import answer, frame
from tests.cluster.models.repository.test_folders import write_scale
from tests.cluster.models.runtime.test_network import (
    FLOAT,
    TYPES,
    X,
    Y,
    make,
    node,
    onnx,
    port,
    sequence,
)

DIGITS = BUILT_IN / "digits" / "model.onnx"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "models"


@pytest.fixture
def add(root: Path, tmp_path: Path) -> Callable[..., ModelInfo]:
    """Add a file under the name ``mine``."""

    def add(graph: Path, name: str = "mine", **more: Any) -> ModelInfo:
        return add_model(NewModel(name, graph, **more), root)

    return add


def write_graph(path: Path, nodes: Any, inputs: Any = (X,), outputs: Any = (Y,), *constants: Any,
                opset: int = 16, ir: int = 8, domains: Any = ()) -> Path:  # fmt: skip
    graph = make.make_graph(nodes, "g", list(inputs), list(outputs), list(constants))
    imports = [make.make_opsetid("", opset), *(make.make_opsetid(it, 1) for it in domains)]
    onnx.save(make.make_model(graph, opset_imports=imports, ir_version=ir), path)
    return path


def nothing_is_left(root: Path) -> bool:
    return not root.exists() or not any(root.iterdir())


def test_a_graph_is_served_by_name_after_it_was_added(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path
) -> None:
    info = add(write_scale(tmp_path / "any name.onnx", 2))
    assert (info.name, info.version, info.kind, info.batches) == ("mine", "1", "tensors", True)
    assert sorted(it.name for it in root.iterdir()) == ["mine"]
    assert (root / "mine" / "config.toml").read_text() == 'kind = "tensors"\n'
    (result,) = ModelRepository(root).load("mine").handle_batch([frame(x=("FP32", [[1, 2]]))])
    assert answer(result) == {"y": [[2, 4]]}


def test_one_more_version_takes_over(
    add: Callable[..., ModelInfo], tmp_path: Path, root: Path
) -> None:
    add(write_scale(tmp_path / "a.onnx", 2))
    assert add(write_scale(tmp_path / "b.onnx", 3)).version == "2"
    assert add(write_scale(tmp_path / "c.onnx", 7), version=7).version == "7"
    assert ModelRepository(root).load("mine").version == "7"
    with pytest.raises(ModelError, match="has a version 2; take another, or remove it first: perf"):
        add(tmp_path / "a.onnx", version=2)
    for more in ({"labels": ("a", "b")}, {"tokenizer": tmp_path / "a.onnx"}):
        with pytest.raises(ModelError, match=r"those of all its versions, in .*config\.toml"):
            add(tmp_path / "a.onnx", **more)
    with pytest.raises(ModelError, match="version 1000000000 is over 999,999,999"):
        add(tmp_path / "a.onnx", version=1_000_000_000)
    mean = node("ReduceMean", "x", out="m", axes=[0]), node("Sub", "x", "m")
    assert not add(write_graph(tmp_path / "mean.onnx", mean)).batches, "no version speaks for it"
    remove_model("mine", root, 8)
    assert sorted(it.name for it in (root / "mine").iterdir()) == ["1", "2", "7", "config.toml"]


def test_labels_make_a_classifier_of_rows_and_else_describe(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path
) -> None:
    labels = tuple("abcdefghij")
    assert add(DIGITS, labels=labels).kind == "rows"
    rows, right = held_out_digits()
    (result,) = ModelRepository(root).load("mine").handle_batch([pack_tensor(rows[0])])
    assert msgspec.msgpack.decode(result)["label"] == labels[right[0]]  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="it has 2 labels for the scores"):
        add(DIGITS, "other", labels=("a", "b"))
    write_scale(tmp_path / "half.onnx", 2, fp16=True)
    info = add(tmp_path / "half.onnx", "half", labels=("a", "b"))
    assert (info.kind, info.labels) == ("tensors", ("a", "b"))


def test_weights_in_files_of_their_own_come_along(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path
) -> None:
    table = onnx.numpy_helper.from_array(np.arange(2048, dtype=np.float32).reshape(2, 1024), "w")
    wide = port("y", ["N", 1024])
    graph = write_graph(tmp_path / "a.onnx", [node("MatMul", "x", "w")], [X], [wide], table)
    (tmp_path / "parts").mkdir()
    model = onnx.load(graph)
    onnx.save(model, graph, save_as_external_data=True, location="parts/weights é.data")
    info = add(graph)
    assert (root / "mine" / "1" / "parts" / "weights é.data").stat().st_size == 8192
    assert info.file_size_bytes == graph.stat().st_size + 8192
    (result,) = ModelRepository(root).load("mine").handle_batch([frame(x=("FP32", [[1, 0]]))])
    assert answer(result)["y"][0][1023] == 1023
    absolute = onnx.load(graph, load_external_data=False)
    absolute.graph.initializer[0].external_data[0].value = str(
        tmp_path / "parts" / "weights é.data"
    )
    (tmp_path / "absolute").mkdir()
    onnx.save(absolute, tmp_path / "absolute" / "a.onnx")
    with pytest.raises(ModelError, match=r"its weights lie outside its folder, in /.*é\.data"):
        add(tmp_path / "absolute" / "a.onnx", "other")
    (tmp_path / "parts" / "weights é.data").unlink()
    with pytest.raises(ModelError, match=r"'other': its weights are missing: .*é.data; put"):
        add(graph, "other")
    assert sorted(it.name for it in root.iterdir()) == ["mine"]


def custom() -> tuple[Any, ...]:
    return [make.make_node("Mine", ["x"], ["y"], domain="my.ops")], [X], [Y]


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "opset": (
        lambda p: write_graph(p, [node("Identity", "x")], opset=99),
        "it is of opset 99, and this runtime knows none above 2",
    ),
    "IR version": (
        lambda p: write_graph(p, [node("Identity", "x")], ir=99),
        "its format is of IR version 99, and this runtime knows none above",
    ),
    "custom operator": (
        lambda p: write_graph(p, *custom(), domains=["my.ops"]),
        "it uses the custom operator my.ops:Mine, which needs a library",
    ),
    "unknown operator": (
        lambda p: write_graph(p, [node("Mine", "x")]),
        "it uses the operator Mine, which is unknown in opset 16",
    ),
    "sequence": (
        lambda p: write_graph(p, [node("SplitToSequence", "x", axis=0)], [X], [sequence("y")]),
        r"its output 'y' is a seq\(tensor\(float\)\), which can't be served",
    ),
    "no input": (
        lambda p: write_graph(p, [node("RandomNormal", shape=[1, 2])], []),
        "has no input or no output",
    ),
    "bfloat16": (
        lambda p: write_graph(
            p, [node("Cast", "x", to=FLOAT)], [port("x", ["N", 2], TYPES.BFLOAT16)]
        ),
        r"its input 'x' is a tensor\(bfloat16\)",
    ),
    "text": (lambda p: Path(p.write_text("no model") and p), "it is no ONNX file, or a torn one"),
    "empty": (lambda p: Path(p.write_bytes(b"") or p), "it is no ONNX file, or a torn one"),
    "torn": (
        lambda p: Path(p.write_bytes(DIGITS.read_bytes()[:-5000]) and p),
        "it is no ONNX file, or a torn one",
    ),
    "folder": (lambda p: Path(p.mkdir() or p), r"the file .*a\.onnx is a folder"),
    "pipe": (lambda p: Path(os.mkfifo(p) or p), r"the file .*a\.onnx is no regular file"),
    "huge": (
        lambda p: write_graph(p, [node("Identity", "x")], [port("x", [1 << 18, 1 << 18])]),
        r"its input FP32\[262144, 262144\] 'x' is too large with .* bytes can be sent",
    ),
    "missing": (lambda p: p, r"the file .*a\.onnx is not there"),
    "made-up input": (
        lambda p: write_graph(
            p,
            [node("Add", "x", "seven", out="at"), node("Gather", "table", "at", axis=0)],
            [port("x", ["N"], TYPES.INT64)],
            [Y],
            make.make_tensor("table", FLOAT, [1, 2], [1.0, 2.0]),
            make.make_tensor("seven", TYPES.INT64, [1], [7]),
        ),
        "failed: .*; that was with made-up input: give it input that it takes, --golden IN.npz",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_served_is_refused_and_leaves_nothing(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path, what: str
) -> None:
    write, complaint = REFUSED[what]
    with pytest.raises(ModelError, match=complaint) as raised:
        add(write(tmp_path / "a.onnx"))
    assert "\n" not in str(raised.value)
    assert "draft" not in str(raised.value)
    assert ".perfkit-" not in str(raised.value)
    assert nothing_is_left(root)


def test_a_zipmap_of_skl2onnx_is_named(add: Callable[..., ModelInfo], tmp_path: Path) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    linear_model = pytest.importorskip("sklearn.linear_model")
    rows = np.array([[0, 0], [1, 1], [0, 1], [2, 2]], np.float32)
    fitted = linear_model.LogisticRegression().fit(rows, ["low", "high", "low", "high"])
    path = tmp_path / "a.onnx"
    path.write_bytes(skl2onnx.to_onnx(fitted, rows).SerializeToString())
    with pytest.raises(ModelError, match=r"seq\(map\(.*options=\{'zipmap': False\}"):
        add(path)
    graph = skl2onnx.to_onnx(fitted, rows, options={"zipmap": False})
    path.write_bytes(graph.SerializeToString())
    np.savez(tmp_path / "in.npz", rows)
    expected = {"label": fitted.predict(rows), "probabilities": fitted.predict_proba(rows)}
    np.savez(tmp_path / "out.npz", **expected)
    info = add(path, golden=(tmp_path / "in.npz", tmp_path / "out.npz"))
    assert (info.golden, info.batches) == (True, True)
    assert [(it.name, it.datatype) for it in info.outputs] == [
        ("label", "BYTES"), ("probabilities", "FP32")
    ]  # fmt: skip


def test_golden_input_stands_in_for_made_up_input(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path
) -> None:
    graph = REFUSED["made-up input"][0](tmp_path / "a.onnx")
    np.savez(tmp_path / "in.npz", x=np.array([-7, -7]))
    np.savez(tmp_path / "out.npz", y=np.array([[1, 2], [1, 2]]))
    golden = tmp_path / "in.npz", tmp_path / "out.npz"
    info = add(graph, golden=golden)
    assert (info.golden, info.batches, info.notes) == (True, True, ())
    np.savez(tmp_path / "out.npz", y=np.array([[1, 2], [1, 3]]))
    with pytest.raises(ModelError, match=r"'other' on CPU.*is not the golden one: 1 of 4 values"):
        add(graph, "other", golden=golden)
    assert sorted(it.name for it in root.iterdir()) == ["mine"]


def test_golden_texts_as_onnxruntime_gives_them_are_refused_with_what_to_do(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path
) -> None:
    for name, texts in (("in", ["a"]), ("out", np.array(["a"], object))):
        np.savez(tmp_path / f"{name}.npz", texts)
    with pytest.raises(ModelError, match=r"golden_out.*onnxruntime gives texts: .*astype\(str\)"):
        add(DIGITS, golden=(tmp_path / "in.npz", tmp_path / "out.npz"))


def test_a_locale_that_is_not_here_is_named(add: Callable[..., ModelInfo], tmp_path: Path) -> None:
    """As skl2onnx writes text vectorisers, in a container without locales."""
    lower = make.make_node(
        "StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale="xx_YY.UTF-8"
    )
    ports = [make.make_tensor_value_info(it, onnx.TensorProto.STRING, [None]) for it in "xy"]
    path = write_graph(tmp_path / "a.onnx", [lower], ports[:1], ports[1:])
    with pytest.raises(ModelError, match=r"locale xx_YY.UTF-8, which .*options=\{TfidfVectorizer"):
        add(path)


@pytest.mark.parametrize(
    "name",
    ["", "../up", "a/b", "/etc", ".", "..", ".hidden", "a b", "a\n", "é", "x" * 101, "a.onnx"],
)
def test_a_name_that_is_a_path_or_a_trick_is_refused(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ModelError, match=r"is no name for a model|would be taken for a file"):
        add(write_scale(tmp_path / "a.onnx", 2), name)
    assert nothing_is_left(root)
    with pytest.raises(ModelError):
        remove_model(name, root)


def test_a_kind_that_does_not_fit_is_refused(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path
) -> None:
    graph = write_scale(tmp_path / "a.onnx", 2)
    for kind, complaint in (
        ("poem", "there is no kind 'poem'; there are file-type, rows, tensors, text-embedding"),
        ("file-type", "is for the package magika"),
        ("rows", "it has 0 labels for the scores"),
        ("text-embedding", "wants a graph that takes INT64"),
    ):
        with pytest.raises(ModelError, match=complaint):
            add(graph, kind=kind)
    with pytest.raises(ModelError, match="a tokenizer goes with kind 'text-embedding', not 'rows'"):
        add(graph, kind="rows", tokenizer=graph)
    assert nothing_is_left(root)


def test_an_interrupt_leaves_nothing(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adding.ModelRepository, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        add(write_scale(tmp_path / "a.onnx", 2))
    assert nothing_is_left(root)


def test_what_a_killed_process_has_left_is_removed_by_the_next(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path
) -> None:
    source = write_scale(tmp_path / "a.onnx", 2)
    kill = (
        "import os; from pathlib import Path; from cluster.models import adding\n"
        "adding._copy_graph = lambda *_: os.kill(os.getpid(), 9)\n"
        f"adding.add_model(adding.NewModel('mine', Path({str(source)!r})), Path({str(root)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", kill], check=False).returncode == -9
    (left,) = root.iterdir()
    assert ModelRepository(root).names() == ModelRepository(tmp_path).names()
    os.utime(left, (0, 0))
    add(source)
    assert sorted(it.name for it in root.iterdir()) == ["mine"]


def test_of_two_at_once_one_is_added(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = write_scale(tmp_path / "a.onnx", 2)
    load = ModelRepository.load

    def load_meanwhile(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(adding.ModelRepository, "load", load)
        add(graph)
        return load(*args, **options)

    monkeypatch.setattr(adding.ModelRepository, "load", load_meanwhile)
    with pytest.raises(ModelError, match="mine was added meanwhile"):
        add(graph)
    assert sorted(it.name for it in root.iterdir()) == ["mine"]


def test_labels_come_from_a_list_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("\ufeffcat\ndog, small\n\n")
    assert read_labels("cat, dog") == ("cat", "dog")
    empty = tmp_path / "a,b"
    empty.touch()
    assert read_labels(str(tmp_path / "labels")) == ("cat", "dog, small")
    for text, complaint in (("a,,b", "one is empty"), ("a,a", "two are the same"),
                            ("nofile", "no file 'nofile'"), ("/dev/null,", "one is empty"),
                            (str(empty), "there are none")):  # fmt: skip
        with pytest.raises(ModelError, match=complaint):
            read_labels(text)


def test_a_model_or_a_version_is_removed(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path
) -> None:
    graph = write_scale(tmp_path / "a.onnx", 2)
    for _ in range(3):
        add(graph)
    assert remove_model("mine", root, 2) == [2]
    assert sorted(ModelRepository(root).find("mine").files) == [1, 3]
    with pytest.raises(ModelError, match="version 2 is not there"):
        remove_model("mine", root, 2)
    assert remove_model("mine", root) == [1, 3]
    assert nothing_is_left(root)
    with pytest.raises(ModelError, match=r"no model 'digits' in .*; there are none"):
        remove_model("digits", root)
    add(graph)
    with pytest.raises(ModelError, match="version 1 is the only one; remove the model"):
        remove_model("mine", root, 1)


def test_a_linked_model_is_removed_without_what_it_links_to(root: Path, tmp_path: Path) -> None:
    write_scale(tmp_path / "elsewhere" / "1" / "model.onnx", 2)
    root.mkdir(parents=True)
    (root / "mine").symlink_to(tmp_path / "elsewhere")
    remove_model("mine", root)
    assert nothing_is_left(root)
    assert (tmp_path / "elsewhere" / "1" / "model.onnx").exists()


def test_a_check_tells_of_each_version_on_each_provider(
    add: Callable[..., ModelInfo], root: Path, tmp_path: Path
) -> None:
    graph = write_scale(tmp_path / "a.onnx", 2)
    np.savez(tmp_path / "in.npz", x=np.array([[1, 2]], np.float32))
    np.savez(tmp_path / "out.npz", y=np.array([[2, 4]], np.float32))
    add(graph, golden=(tmp_path / "in.npz", tmp_path / "out.npz"))
    add(graph)
    shutil.copy(write_scale(tmp_path / "b.onnx", 3), root / "mine" / "1" / "model.onnx")
    (root / "broken").mkdir()
    (root / "broken" / "config.toml").write_text("kind = 7")
    first, second, broken = [
        it for it in check_models(ModelRepository(root), ["mine", "broken"])
        if it.provider in ("CPUExecutionProvider", None)
    ]  # fmt: skip
    assert "is not the golden one" in str(first.error)
    assert (second.version, second.golden, second.error) == ("2", False, None)
    assert "Expected `str`, got `int`" in str(broken.error)
    assert json.loads(msgspec.json.encode(second))["load_ms"] > 0
