"""Graphs that can't be served are refused when they are loaded; outputs are shared out by rows."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cluster.models.frames.tensor import pack_tensor
from cluster.models.inference import Model, ModelError, ModelRepository

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
make = onnx.helper
TYPES = onnx.TensorProto
FLOAT = TYPES.FLOAT


def port(name: str, shape: list[Any] | None, kind: int = FLOAT) -> Any:
    return make.make_tensor_value_info(name, kind, shape)


def sequence(name: str) -> Any:
    return make.make_tensor_sequence_value_info(name, FLOAT, None)


def optional(name: str) -> Any:
    kind = make.make_optional_type_proto(make.make_tensor_type_proto(FLOAT, [None, 2]))
    return make.make_value_info(name, kind)


def node(operation: str, *inputs: str, out: str = "y", **attributes: Any) -> Any:
    return make.make_node(operation, list(inputs), [out], **attributes)


X = port("x", ["N", 2])
Y = port("y", ["M", 2])
AXIS = make.make_tensor("axis", TYPES.INT64, [1], [0])


def save(
    root: Path,
    inputs: list[Any],
    outputs: list[Any],
    nodes: list[Any],
    *constants: Any,
    **more: Any,
) -> ModelRepository:
    folder = root / "mine"
    folder.mkdir(exist_ok=True)
    graph = make.make_graph(nodes, "g", inputs, outputs, list(constants))
    opset = [make.make_opsetid("", 16)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    manifest = {
        "name": "mine", "kind": "rows", "file": "model.onnx", "description": "a graph",
        "labels": ["left", "right"], **more,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in manifest.items()]
    (folder / "config.toml").write_text("".join(lines))
    return ModelRepository(root)


def same(*shape: Any, kind: int = FLOAT) -> tuple[list[Any], list[Any], list[Any]]:
    """A graph that gives what it takes, in a shape."""
    return [port("x", [*shape], kind)], [port("y", [*shape], kind)], [node("Identity", "x")]


REFUSED = {
    "sequence": (
        ([sequence("x")], [Y], [node("ConcatFromSequence", "x", axis=0)]),
        r"input 'x' is a seq\(tensor\(float\)\), which can't be served",
    ),
    "sequence out": (
        ([X], [sequence("y")], [node("SplitToSequence", "x", axis=0)]),
        r"output 'y' is a seq\(tensor\(float\)\), which can't be served; tensors of BOOL",
    ),
    "optional": (
        ([optional("x")], [Y], [node("OptionalGetElement", "x")]),
        r"input 'x' is a optional\(tensor\(float\)\)",
    ),
    "text": (
        same("N", 2, kind=TYPES.STRING),
        r"takes FP32\[\?, 2\] 'x'; this one takes BYTES\[\?, 2\] 'x'",
    ),
    "bfloat16": (
        ([port("x", ["N", 2], TYPES.BFLOAT16)], [Y], [node("Cast", "x", to=FLOAT)]),
        r"input 'x' is a tensor\(bfloat16\)",
    ),
    "other numbers": (
        same("N", 2, kind=TYPES.DOUBLE),
        r"takes FP32\[\?, 2\] 'x'; this one takes FP64",
    ),
    "labels out": (
        ([X], [port("y", ["N", 2], TYPES.INT64)], [node("Cast", "x", to=TYPES.INT64)]),
        r"reads an answer from a table of scores; the graph gives INT64\[\?, 2\] 'y'",
    ),
    "scalar": (same(), r"does not take rows of a fixed width"),
    "fixed batch": (same(3, 2), r"FP32\[3, 2\] 'x' has no open first axis"),
    "empty batch": (same(0, 2), r"takes no numbers, as an extent is 0: FP32\[0, 2\] 'x'; expo"),
    "too many axes": (same("N", *[1] * 8), "its input 'x' has 9 axes and .*; at most 8 and 1,024"),
    "too many inputs": (
        ([port(f"x{n}", ["N", 2]) for n in range(257)], [Y], [node("Identity", "x0")]),
        "has 257 inputs; at most 256 can be served",
    ),
    "open width": (same("N", "W"), "does not take rows of a fixed width"),
    "batch second": (
        ([X], [port("y", [2, "N"])], [node("Transpose", "x", perm=[1, 0])]),
        r"FP32\[2, \?\] 'y' has no open first axis",
    ),
    "batch summed up": (
        ([X], [port("y", [2])], [node("ReduceSum", "x", "axis", keepdims=0)], AXIS),
        r"FP32\[2\] 'y' has no open first axis",
    ),
    "rows alone": (
        ([X], [port("y", ["N"])], [node("ReduceMax", "x", axes=[1], keepdims=0)]),
        "reads an answer from a table of scores; the graph gives FP32.* 'y'",
    ),
    "two inputs": (
        ([X, port("z", ["N", 2])], [Y], [node("Add", "x", "z")]),
        r"wants a graph that takes FP32\[\?, 2\] 'x'; this one takes .* and FP32\[\?, 2\] 'z'",
    ),
    "no shape": (
        ([make.make_tensor_value_info("x", FLOAT, None)], [Y], [node("Identity", "x")]),
        r"does not tell the shape of its input 'x'; export it with one",
    ),
    "no input": (([], [Y], [node("RandomNormal", shape=[1, 2])]), "has no input or no output"),
    "no output": (([X], [], [node("Identity", "x")]), "has no input or no output"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_graph_that_cannot_be_served_is_refused_at_load(tmp_path: Path, what: str) -> None:
    graph, complaint = REFUSED[what]
    with pytest.raises(ModelError, match=f"model 'mine': .*{complaint}"):
        save(tmp_path, *graph).load("mine")


def test_a_batch_of_one_and_a_preset_input_are_served(tmp_path: Path) -> None:
    preset = make.make_tensor("w", FLOAT, [2], [0.0, 5.0])
    graph = [port("x", [1, 2]), port("w", [2])], [port("y", [1, 2])], [node("Add", "x", "w")]
    model = save(tmp_path, *graph, preset).load("mine")
    assert labels(model, [[9, 0], [1, 0]], [[1, 1]]) == [["left", "right"], ["right"]]


@pytest.mark.parametrize(
    ("row", "most"),
    [([2], 256), ([3, 64, 64], 170), ([3, 224, 224], 13), ([3, 2048, 2048], 1), (["T"], 16)],
)
def test_a_run_has_as_many_rows_as_memory_bears(tmp_path: Path, row: list[Any], most: int) -> None:
    graph = [port("x", ["N", *row])], [port("y", ["N", *row])], [node("Identity", "x")]
    repository = save(tmp_path, *graph, kind="tensors", labels=[], batches=True)
    assert repository.load("mine").describe().batch_items_max == most


def labels(model: Model, *questions: list[list[float]]) -> list[Any]:
    """The labels of each question's rows, or its error."""
    answers = model.handle_batch([pack_tensor(np.float32(rows)) for rows in questions])
    return [
        str(it)
        if isinstance(it, Exception)
        else [row["label"] for row in msgspec.msgpack.decode(it)]
        for it in answers
    ]


WRONG = "for a batch of {}; which row is whose can't be told"


def test_rows_that_are_not_the_batchs_are_never_shared_out(tmp_path: Path) -> None:
    model = save(tmp_path, [X], [Y], [node("Concat", "x", "x", axis=0)]).load("mine")
    found = labels(model, [[1, 2]], [[2, 1], [1, 2]])
    assert found == [
        f"model 'mine' gave float32[{2 * n}, 2] " + WRONG.format(rows)
        for n, rows in ((1, "1 row"), (2, "2 rows"))
    ]


@pytest.mark.parametrize("rows_max", [1, 2, 256])
def test_a_graph_that_drops_rows_answers_only_the_questions_it_answers_whole(
    tmp_path: Path, rows_max: int
) -> None:
    zero = make.make_tensor("zero", FLOAT, [1], [0.0])
    nodes = [
        node("ReduceMax", "x", out="most", axes=[1], keepdims=0),
        node("Greater", "most", "zero", out="kept"),
        node("Compress", "x", "kept", axis=0),
    ]
    model = save(tmp_path, [X], [Y], nodes, zero, batch_items_max=rows_max).load("mine")
    first, dropped, half, last = labels(model, [[2, 1]], [[-1, -2]], [[1, 2], [-1, -1]], [[1, 2]])
    assert [first, last] == [["left"], ["right"]]
    assert dropped == "model 'mine' gave float32[0, 2] " + WRONG.format("1 row")
    assert "can't be told" in half


def test_a_question_whose_answer_is_no_number_fails_alone(tmp_path: Path) -> None:
    model = save(tmp_path, [X], [Y], [node("Log", "x")]).load("mine")
    found = labels(model, [[1, 2]], [[-1, 2]], [[2, 1]])
    assert found == [["right"], "model 'mine' gave NaN instead of a number", ["left"]]
