"""Weights in other precisions: what is stored, what is lost, and what can't be converted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.models.inference import BUILT_IN
from cluster.models.runtime.convert_precision import (
    BLOCK,
    SPARSITY,
    convert,
    quantized_blocks,
)
from cluster.models.runtime.golden import run_all
from cluster.models.runtime.loss import worst_of
from cluster.models.runtime.session import CPU, open_session
from cluster.models.samples import held_out_digits

onnx = pytest.importorskip("onnx")
DIGITS = BUILT_IN / "digits" / "model.onnx"


def answers(path: Path) -> dict[str, Any]:
    rows, _ = held_out_digits()
    return run_all(open_session("digits", path, preference=(CPU,)).session, {"pixels": rows})


@pytest.mark.parametrize(
    ("precision", "on_card", "smaller", "points"),
    [
        ("fp16", False, 0.65, 0.0),
        ("int8", False, 0.35, 0.0),
        ("int8", True, 0.35, 0.0),
        ("int4", True, 0.20, 0.5),
        ("sparse", False, 1.0, 100.0),
    ],
)
def test_digits_in_another_precision_is_smaller_and_loses_little(
    tmp_path: Path, precision: str, on_card: bool, smaller: float, points: float
) -> None:
    target = tmp_path / "model.onnx"
    convert(DIGITS, target, precision, on_card)
    assert target.stat().st_size <= smaller * DIGITS.stat().st_size
    assert worst_of([answers(DIGITS)], [answers(target)], "labels").points <= points
    operators = {node.op_type for node in onnx.load(target).graph.node}
    assert ("MatMulNBits" in operators) is on_card


def test_sparse_sets_the_smallest_weights_to_zero(tmp_path: Path) -> None:
    convert(DIGITS, tmp_path / "model.onnx", "sparse", False)
    before, after = (
        [onnx.numpy_helper.to_array(it) for it in onnx.load(path).graph.initializer]
        for path in (DIGITS, tmp_path / "model.onnx")
    )
    for old, new in zip(before, after, strict=True):
        changed = old != new
        assert (new[changed] == 0).all()
        if old.ndim == 2 and min(old.shape) > 1:
            assert np.mean(new == 0) == pytest.approx(SPARSITY, abs=0.01)


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_hold_the_weights_to_half_a_level(bits: int) -> None:
    matrix = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    levels, scales = quantized_blocks(matrix, bits)
    if bits == 4:
        levels = np.stack([levels & 15, levels >> 4], axis=-1).reshape(3, 2, BLOCK)
    scales = scales.reshape(3, 2, 1)
    back = ((levels.astype(np.float32) - (1 << (bits - 1))) * scales).reshape(3, -1)[:, :40].T
    assert (np.abs(back - matrix) <= scales.max() / 2 + 1e-6).all()


@pytest.mark.parametrize("on_card", [True, False])
@pytest.mark.parametrize("precision", ["int8", "int4", "sparse"])
def test_a_graph_without_weights_cannot_be_converted(
    tmp_path: Path, precision: str, on_card: bool
) -> None:
    make = onnx.helper
    ports = [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N"]) for name in "xy"]
    graph = make.make_graph([make.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    onnx.save(make.make_model(graph), tmp_path / "plain.onnx")
    with pytest.raises(ValueError, match="it has no MatMul or Gemm with constant weights"):
        convert(tmp_path / "plain.onnx", tmp_path / "out.onnx", precision, on_card)


def convolution(path: Path, kernel: Any, bias: bool = False, **settings: Any) -> None:
    """A graph of one convolution from float32 x[N, channels, …] to y."""
    make, turn = onnx.helper, onnx.numpy_helper.from_array
    open_axes = ["N", kernel.shape[1], *(f"n{axis}" for axis in range(kernel.ndim - 2))]
    ports = [
        make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, open_axes),
        make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * kernel.ndim),
    ]
    constants = [turn(kernel, "w"), turn(np.arange(len(kernel), dtype=np.float32), "b")]
    names = ["x", "w", "b"][: 3 if bias else 2]
    node = make.make_node("Conv", names, ["y"], **settings)
    graph = make.make_graph([node], "g", ports[:1], ports[1:], constants[: len(names) - 1])
    opsets = [make.make_opsetid("", 17)]
    onnx.save(make.make_model(graph, opset_imports=opsets, ir_version=8), path)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [(5,), (5, 1), (2, 3), (1, 1), (2, 2, 2)])
def test_a_convolution_is_multiplied_out_in_8_bits(
    tmp_path: Path, size: tuple[int, ...], bias: bool
) -> None:
    chance = np.random.default_rng(0)
    kernel = chance.normal(size=(6, 8, *size)).astype(np.float32)
    convolution(tmp_path / "plain.onnx", kernel, bias)
    convert(tmp_path / "plain.onnx", tmp_path / "out.onnx", "int8", False)
    operators = [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node]
    assert "Conv" not in operators
    assert {"MatMulInteger", "DynamicQuantizeMatMul"}.intersection(operators)
    for extent in (6, 9):
        feed = {"x": chance.normal(size=(2, 8, *[extent] * len(size))).astype(np.float32)}
        wanted, found = (
            run_all(open_session("conv", tmp_path / name, preference=(CPU,)).session, feed)["y"]
            for name in ("plain.onnx", "out.onnx")
        )
        assert wanted.shape == found.shape
        assert np.corrcoef(wanted.ravel(), found.ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    "settings", [{"strides": [2]}, {"pads": [1, 1]}, {"auto_pad": "SAME_UPPER"}, {"dilations": [2]}]
)
def test_a_convolution_with_steps_or_padding_is_left_as_it_is(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    convolution(tmp_path / "plain.onnx", np.ones((6, 8, 3), np.float32), **settings)
    with pytest.raises(ValueError, match="it has no MatMul or Gemm with constant weights"):
        convert(tmp_path / "plain.onnx", tmp_path / "out.onnx", "int8", False)
