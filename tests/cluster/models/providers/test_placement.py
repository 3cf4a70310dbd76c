"""Which nodes may be on the CPU beside a card: those that compute extents, and types of inputs."""

from pathlib import Path

import pytest

from cluster.models.providers.placement import Node, carrying_data

onnx = pytest.importorskip("onnx")
make = onnx.helper
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Reshapes by its own extents, as exporters write it, and computes with the data."""
    nodes = [
        make.make_node("Shape", ["x"], ["shape"], "shape"),
        make.make_node("Gather", ["shape", "zero"], ["batch"], "pick"),
        make.make_node("Unsqueeze", ["batch", "zero"], ["batch1"], "wrap"),
        make.make_node("Concat", ["batch1", "rest"], ["extents"], "join", axis=0),
        make.make_node("Cast", ["ids"], ["mask"], "mask", to=FLOAT),
        make.make_node("Reshape", ["x", "extents"], ["y"], "reshape"),
        make.make_node("Cast", ["y"], ["y2"], "data_cast", to=FLOAT),
        make.make_node("Slice", ["y2", "zero", "rest"], ["y3"], "data_slice"),
        make.make_node("Mul", ["y3", "mask"], ["z"], ""),
        make.make_node("Add", ["batch1", "rest"], ["two"], ""),
    ]
    inputs = [
        make.make_tensor_value_info("x", FLOAT, ["N", 4]),
        make.make_tensor_value_info("ids", INT64, ["N", 4]),
    ]
    outputs = [make.make_tensor_value_info("z", FLOAT, None)]
    constants = [
        make.make_tensor("zero", INT64, [1], [0]),
        make.make_tensor("rest", INT64, [1], [4]),
    ]
    path = tmp_path / "model.onnx"
    onnx.save(make.make_model(make.make_graph(nodes, "g", inputs, outputs, constants)), path)
    return path


HARMLESS = [
    Node("Shape", "shape"), Node("Gather", "pick"), Node("Unsqueeze", "wrap"),
    Node("Concat", "join"), Node("Cast", "mask"), Node("Cast", "made by the runtime"),
]  # fmt: skip
DATA = [
    Node("Cast", "data_cast"), Node("Slice", "data_slice"), Node("Reshape", "reshape"),
    Node("Mul", "made by the runtime"),
    # One of the nodes without a name carries data, and which one is on the CPU can't be told.
    Node("Add", ""),
]  # fmt: skip


def test_nodes_of_extents_and_types_of_inputs_carry_no_data(graph: Path) -> None:
    assert carrying_data(HARMLESS, graph) == []


def test_everything_else_carries_data(graph: Path) -> None:
    assert carrying_data([*HARMLESS, *DATA], graph) == DATA


def test_without_nodes_on_the_cpu_the_file_is_not_read(tmp_path: Path) -> None:
    assert carrying_data([], tmp_path / "none.onnx") == []
