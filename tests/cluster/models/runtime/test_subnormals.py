"""Weights too small to matter are zero before a processor computes with them, and no other is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.models.runtime.session import open_session
from cluster.models.runtime.subnormals import readable

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

#: The smallest and largest subnormals of both signs, zeros, and what must stay as it is.
FLOATS = "0 -0 1e-45 -1.17549e-38 1.17549421e-38 1.17549435e-38 -1.2e-38 1 nan inf -inf".split()
DOUBLES = "0 5e-324 -2.2e-308 2.2250738585072014e-308 1e-40 nan".split()


def save(path: Path, weights: Any, *, raw: bool, outside: bool = False) -> Path:
    """A graph that gives its weights."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(weights.dtype)
    data = weights.tobytes() if raw else weights
    tensor = onnx.helper.make_tensor("w", kind, weights.shape, data, raw=raw)
    output = onnx.helper.make_tensor_value_info("y", kind, weights.shape)
    node = onnx.helper.make_node("Identity", ["w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [output], [tensor])
    opset = onnx.helper.make_opsetid("", 16)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.save(model, path, save_as_external_data=outside, size_threshold=0)
    return path


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(("texts", "kind"), [(FLOATS, np.float32), (DOUBLES, np.float64)])
def test_subnormal_weights_become_zero_and_every_other_bit_stays(
    tmp_path: Path, texts: list[str], kind: Any, raw: bool
) -> None:
    weights = np.array(texts, kind)
    wanted = np.where(np.abs(weights) < np.finfo(kind).smallest_normal, 0, weights)
    session = open_session("mine", save(tmp_path / "model.onnx", weights, raw=raw)).session
    (found,) = session.run(None, {})
    assert (np.abs(found) == np.abs(wanted)).tolist() == (~np.isnan(wanted)).tolist()
    large = np.abs(weights) >= np.finfo(kind).smallest_normal
    assert found[large].tobytes() == weights[large].tobytes()


def test_a_large_weight_is_looked_through_to_its_end(tmp_path: Path) -> None:
    weights = np.ones(3 << 20, np.float32)
    weights[-1] = 1e-40
    content = readable(save(tmp_path / "model.onnx", weights, raw=True))
    assert isinstance(content, bytes)
    assert onnx.numpy_helper.to_array(onnx.load_from_string(content).graph.initializer[0])[-1] == 0


@pytest.mark.parametrize(
    "weights",
    [np.ones(4, np.float32), np.full(4, 1e-7, np.float16), np.array([1, 2], np.int64)],
    ids=["normal", "float16", "integers"],
)
def test_a_graph_without_subnormals_is_opened_from_its_file(tmp_path: Path, weights: Any) -> None:
    path = save(tmp_path / "model.onnx", weights, raw=True)
    assert readable(path) == str(path)


def test_weights_beside_a_graph_are_left_to_the_runtime(tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", np.full(64, 1e-40, np.float32), raw=True, outside=True)
    assert readable(path) == str(path)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x3a\xff\xff\xff\xff\x0f", None])
def test_what_is_no_graph_is_left_to_the_runtime(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    assert readable(path) == str(path)


def test_opening_a_graph_leaves_the_subnormals_of_other_code_alone(tmp_path: Path) -> None:
    weights = np.full(4, 1e-40, np.float32)
    open_session("mine", save(tmp_path / "model.onnx", weights, raw=True))
    assert (weights * np.float32(1) == weights).all()
    assert weights[0] != 0
