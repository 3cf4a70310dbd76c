"""Writes a model's graph in another precision: ``python -m … SOURCE TARGET PRECISION cpu|card``.

What pays depends on the device. The CPU has fast instructions for products of int8, so there the
weights and, at run time, the activations are quantised; a convolution is written as a product
before. On a card those operators are missing;
weights are stored in 8 or 4 bits and multiplied as floats (``MatMulNBits``, see
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md), which saves memory and
bandwidth. ``int4`` is stored so on both. ``sparse`` sets half of the weights to zero, the smallest
ones; they are stored and multiplied as before, so it gains no time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Raised with every change of how a file is made.
VERSION = 2

PRECISIONS = ("fp32", "fp16", "int8", "int4", "sparse")

#: Weights that share a scale.
BLOCK = 32
#: The part of the weights that is set to zero.
SPARSITY = 0.5
DOMAIN = "com.microsoft"
_MULTIPLIES = ("MatMul", "Gemm")
#: What ``auto_pad`` says of a convolution that is not padded.
UNPADDED = (b"NOTSET", b"VALID")


def convert(source: Path, target: Path, precision: str, on_card: bool) -> None:
    """Write the graph in ``source`` to ``target`` in one of `PRECISIONS`.

    Raises:
        ValueError: it has no weights that could be changed.
    """
    import onnx

    model = onnx.load(str(source))
    for_cpu = precision == "int8" and not on_card
    if for_cpu:
        _multiply_out(model)
    if precision != "fp16" and not any(True for _ in _weights(model)):
        raise ValueError("it has no MatMul or Gemm with constant weights")
    if for_cpu:
        _quantize_for_cpu(model, target)
        return
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
    elif precision in ("int8", "int4"):
        _store_in_bits(model, 8 if precision == "int8" else 4)
    elif precision == "sparse":
        _prune(model)
    onnx.save(model, str(target))


def _quantize_for_cpu(model: Any, target: Path) -> None:
    """Weights as signed integers, a scale for each column: unsigned ones are slower than floats,
    and ``ConvInteger`` is several times slower.
    """
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it advises a step that has been done
    quantize_dynamic(
        model,
        str(target),
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=list(_MULTIPLIES),
    )


def _multiply_out(model: Any) -> None:
    """Replace convolutions without steps and padding by products, which the CPU has fast int8 for.

    The channels become the last axis; a window of k positions is k slices side by side, as "im2col"
    lays it out (Chellapilla et al., 2006, https://inria.hal.science/inria-00112631).
    """
    import numpy as np
    from onnx import helper, numpy_helper

    nodes, constants = [], {it.name: it for it in model.graph.initializer}

    def constant(name: str, values: Any) -> str:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    for node in model.graph.node:
        kernel = _plain_kernel(node, constants)
        if kernel is None:
            nodes.append(node)
            continue
        name, axes = node.output[0], kernel.ndim - 2
        last, end = axes + 1, np.iinfo(np.int64).max
        turn = [0, *range(2, last + 1), 1]
        nodes.append(helper.make_node("Transpose", node.input[:1], [f"{name}_rows"], perm=turn))
        along = constant(f"{name}_axes", np.arange(1, last))
        slices = []
        for at in np.ndindex(*kernel.shape[2:]):
            part = f"{name}_{'_'.join(map(str, at))}"
            ends = [i - size + 1 or end for i, size in zip(at, kernel.shape[2:], strict=True)]
            bounds = constant(f"{part}_from", np.array(at)), constant(f"{part}_to", np.array(ends))
            nodes.append(helper.make_node("Slice", [f"{name}_rows", *bounds, along], [part]))
            slices.append(part)
        nodes.append(helper.make_node("Concat", slices, [f"{name}_windows"], axis=last))
        matrix = kernel.transpose(*range(2, last + 1), 1, 0).reshape(-1, len(kernel))
        weights = constant(f"{name}_weights", np.ascontiguousarray(matrix))
        found = [f"{name}_windows", weights]
        nodes.append(helper.make_node("MatMul", found, [f"{name}_product"]))
        result = f"{name}_product"
        if len(node.input) > 2 and node.input[2]:
            nodes.append(helper.make_node("Add", [result, node.input[2]], [f"{name}_sum"]))
            result = f"{name}_sum"
        back = [0, last, *range(1, last)]
        nodes.append(helper.make_node("Transpose", [result], [name], perm=back))
    _set_nodes(model, nodes)


def _plain_kernel(node: Any, constants: Mapping[str, Any]) -> NDArray[Any] | None:
    """The weights [out, in, …] of a convolution without steps, padding and groups."""
    from onnx import helper, numpy_helper

    if node.op_type != "Conv" or node.domain or node.input[1] not in constants:
        return None
    given = {it.name: helper.get_attribute_value(it) for it in node.attribute}
    steps = {*given.get("strides", [1]), *given.get("dilations", [1]), given.get("group", 1)}
    padded = any(given.get("pads", [0])) or given.get("auto_pad", b"NOTSET") not in UNPADDED
    kernel: NDArray[Any] = numpy_helper.to_array(constants[node.input[1]])
    return None if steps != {1} or padded or kernel.dtype != "float32" else kernel


def _set_nodes(model: Any, nodes: Sequence[Any]) -> None:
    """Replace a graph's nodes, and drop the constants that none of them reads."""
    used = {name for node in nodes for name in node.input} | {it.name for it in model.graph.output}
    kept = [it for it in model.graph.initializer if it.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)


def _weights(model: Any) -> Iterator[tuple[Any, Any, NDArray[Any]]]:
    """Each product with a constant matrix: its node, the matrix's record, and it as [in, out]."""
    from onnx import numpy_helper

    constants = {it.name: it for it in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type not in _MULTIPLIES or node.input[1] not in constants:
            continue
        matrix = numpy_helper.to_array(constants[node.input[1]])
        settings = {it.name: it for it in node.attribute}
        if matrix.ndim != 2 or matrix.dtype != "float32":
            continue
        if any(name in settings and settings[name].f != 1.0 for name in ("alpha", "beta")):
            continue
        if "transA" in settings and settings["transA"].i:
            continue
        turned = "transB" in settings and settings["transB"].i
        yield node, constants[node.input[1]], matrix.T if turned else matrix


def _prune(model: Any) -> None:
    import numpy as np
    from onnx import numpy_helper

    done = set()
    for _, record, _ in _weights(model):
        if record.name in done:
            continue
        matrix = numpy_helper.to_array(record).copy()
        matrix[np.abs(matrix) < np.quantile(np.abs(matrix), SPARSITY)] = 0
        record.CopyFrom(numpy_helper.from_array(matrix, record.name))
        done.add(record.name)


def _store_in_bits(model: Any, bits: int) -> None:
    """Replace products with constants by ``MatMulNBits``, and an Add where a Gemm has a third
    input.
    """
    from onnx import helper, numpy_helper

    nodes = []
    stored: dict[tuple[str, bool], tuple[str, str]] = {}
    products = {node.output[0]: (record, matrix) for node, record, matrix in _weights(model)}
    for node in model.graph.node:
        if node.output[0] not in products:
            nodes.append(node)
            continue
        record, matrix = products[node.output[0]]
        key = record.name, node.op_type == "Gemm"
        if key not in stored:
            names = tuple(f"{record.name}_{'g' if key[1] else 'm'}{it}" for it in ("_q", "_scale"))
            stored[key] = names[0], names[1]
            for name, array in zip(names, quantized_blocks(matrix, bits), strict=True):
                model.graph.initializer.append(numpy_helper.from_array(array, name))
        has_more = len(node.input) > 2 and node.input[2]
        product = f"{node.output[0]}_product" if has_more else node.output[0]
        nodes.append(
            helper.make_node(
                "MatMulNBits", [node.input[0], *stored[key]], [product], f"{node.name}_bits",
                domain=DOMAIN, K=matrix.shape[0], N=matrix.shape[1], bits=bits, block_size=BLOCK,
            )
        )  # fmt: skip
        if has_more:
            inputs = [product, node.input[2]]
            nodes.append(helper.make_node("Add", inputs, node.output[:1], f"{node.name}_add"))
    _set_nodes(model, nodes)
    if not any(it.domain == DOMAIN for it in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def quantized_blocks(matrix: NDArray[Any], bits: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A matrix [in, out] as ``MatMulNBits`` takes it: uint8[out, blocks, bytes], and the scales
    float32[out × blocks]. A block of inputs shares a scale; zero is the middle of the range.
    """
    import numpy as np

    rows, columns = matrix.shape
    blocks = -(-rows // BLOCK)
    padded = np.zeros((columns, blocks * BLOCK), np.float32)
    padded[:, :rows] = matrix.T
    grouped = padded.reshape(columns, blocks, BLOCK)
    middle = 1 << (bits - 1)
    scale = np.abs(grouped).max(axis=2, keepdims=True) / (middle - 1)
    scale[scale == 0] = 1.0
    levels = np.clip(np.rint(grouped / scale) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:  # the first of two is in the lower half of a byte
        levels = levels[:, :, 0::2] | levels[:, :, 1::2] << 4
    return np.ascontiguousarray(levels), scale.reshape(-1).astype(np.float32)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "card")
