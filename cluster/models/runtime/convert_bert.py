"""Converts a BERT sentence encoder's weights, such as those of ``minilm``, to an ONNX graph.

The package that ships the weights ships no graph, and the usual exporters need a gigabyte of
framework. So the graph is built here, node by node, after Devlin et al., *BERT* (NAACL 2019), with
the head of Reimers and Gurevych, *Sentence-BERT* (EMNLP 2019): the mean over a text's tokens,
scaled to length 1. Constants are folded: the query's weights include the scale of the attention;
query, key and value are one product; and the position embeddings include the type embedding of a
first sentence, the only one there is.

Run as ``python -m cluster.models.runtime.convert_bert WEIGHTS ONNX``, a process of its own, so that
its memory is given back. Needs onnx and safetensors (the extra ``[infer]``).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cluster.models.repository.manifest import ModelError, PositiveInt

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Raised with every change of the graph, so that older graphs are built again.
VERSION = 1

#: The version of the ONNX operators: the first with LayerNormalization.
OPSET = 17
IR_VERSION = 8

#: Added to the scores of padding before the softmax, so that its share of the attention is 0.
MASKED = -1e9


class BertConfig(msgspec.Struct, frozen=True):
    """The part of a BERT's ``config.json`` that shapes the graph."""

    model_type: Literal["bert"]
    hidden_act: Literal["gelu"]
    hidden_size: PositiveInt
    num_attention_heads: PositiveInt
    num_hidden_layers: PositiveInt
    max_position_embeddings: PositiveInt
    layer_norm_eps: float
    position_embedding_type: Literal["absolute"] = "absolute"


class BertGraph:
    """The graph of a BERT with these weights, by name, as a sentence encoder.

    It maps ``input_ids`` and ``attention_mask``, int64[texts, tokens], to ``embedding``,
    float32[texts, hidden]. Each node has one output, named after it.
    """

    def __init__(self, config: BertConfig, weights: dict[str, NDArray[Any]]) -> None:
        self._config = config
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: dict[str, NDArray[Any]] = {}

    def build(self) -> bytes:
        """The graph as an ONNX file.

        Raises:
            KeyError: weights are missing.
        """
        from onnx import TensorProto, helper, numpy_helper

        hidden = self._embeddings()
        mask = self._attention_mask()
        for layer in range(self._config.num_hidden_layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, mask)
        self._pool(hidden)
        describe = helper.make_tensor_value_info
        graph = helper.make_graph(
            self._nodes,
            "bert",
            [
                describe(name, TensorProto.INT64, ["texts", "tokens"])
                for name in ("input_ids", "attention_mask")
            ],
            [describe("embedding", TensorProto.FLOAT, ["texts", self._config.hidden_size])],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        content: bytes = model.SerializeToString()
        return content

    def _node(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; its output's name."""
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, name: str, value: Any, dtype: str = "float32") -> str:
        """Add a constant, or the same one again; its name."""
        import numpy as np

        self._constants[name] = np.asarray(value, dtype, order="C")
        return name

    def _linear(
        self, name: str, rows: str, weight: NDArray[Any] | None = None, bias: Any = None
    ) -> str:
        """A product with ``weight``, [outputs, inputs], and a sum; by default those of the name."""
        if weight is None:
            weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        factor = self._constant(f"{name}/w", weight.T)
        product = self._node("MatMul", f"{name}/product", rows, factor)
        return self._node("Add", name, product, self._constant(f"{name}/b", bias))

    def _normalize(self, name: str, rows: str) -> str:
        name = f"{name}.LayerNorm"
        weight, bias = (
            self._constant(f"{name}/{kind}", self._weights[f"{name}.{kind}"])
            for kind in ("weight", "bias")
        )
        eps = self._config.layer_norm_eps
        return self._node("LayerNormalization", name, rows, weight, bias, epsilon=eps)

    def _embeddings(self) -> str:
        weights = self._weights
        words = self._constant("words", weights["embeddings.word_embeddings.weight"])
        places = self._constant(
            "places",
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0],
        )
        word = self._node("Gather", "word", words, "input_ids")
        # A slice instead of a look-up: a range of positions keeps some providers from the graph.
        tokens = self._node("Shape", "tokens", "input_ids", start=1, end=2)
        first = self._constant("first", [0], "int64")
        place = self._node("Slice", "place", places, first, tokens, first)
        return self._normalize("embeddings", self._node("Add", "embedded", word, place))

    def _attention_mask(self) -> str:
        """The summand of each token's scores as others attend to it, [texts, 1, 1, tokens]."""
        real = self._node("Cast", "real", "attention_mask", to=1)
        absent = self._node("Sub", "absent", self._constant("one", 1), real)
        scores = self._node("Mul", "masked", absent, self._constant("minus", MASKED))
        return self._node("Unsqueeze", "mask", scores, self._constant("axes", [1, 2], "int64"))

    def _layer(self, layer: str, hidden: str, mask: str) -> str:
        attended = self._attention(f"{layer}.attention", hidden, mask)
        sum_ = self._node("Add", f"{layer}/attended", attended, hidden)
        hidden = self._normalize(f"{layer}.attention.output", sum_)
        inner = self._linear(f"{layer}.intermediate.dense", hidden)
        outer = self._linear(f"{layer}.output.dense", self._gelu(layer, inner))
        sum_ = self._node("Add", f"{layer}/changed", outer, hidden)
        return self._normalize(f"{layer}.output", sum_)

    def _attention(self, name: str, hidden: str, mask: str) -> str:
        """Each head's attention, side by side, after the output's product."""
        import numpy as np

        config = self._config
        size = config.hidden_size // config.num_attention_heads
        parts = [f"{name}.self.{part}" for part in ("query", "key", "value")]
        weight, bias = (
            np.stack([self._weights[f"{part}.{kind}"] for part in parts])
            for kind in ("weight", "bias")
        )
        weight[0] /= np.sqrt(size)
        bias[0] /= np.sqrt(size)
        wide = 3 * config.hidden_size
        joined = self._linear(
            f"{name}/joined", hidden, weight.reshape(wide, -1), bias.reshape(wide)
        )
        # [texts, tokens, 3 × hidden] to [3, texts, heads, tokens, size]
        shape = self._constant("heads", [0, 0, 3, config.num_attention_heads, size], "int64")
        split = self._node("Reshape", f"{name}/split", joined, shape)
        turned = self._node("Transpose", f"{name}/turned", split, perm=[2, 0, 3, 1, 4])
        query, key, value = (
            self._node("Gather", part, turned, self._constant(f"part{at}", at, "int64"))
            for at, part in enumerate(parts)
        )
        key = self._node("Transpose", f"{name}/key", key, perm=[0, 1, 3, 2])
        scores = self._node("MatMul", f"{name}/scores", query, key)
        scores = self._node("Add", f"{name}/seen", scores, mask)
        shares = self._node("Softmax", f"{name}/shares", scores, axis=-1)
        heads = self._node("MatMul", f"{name}/heads", shares, value)
        heads = self._node("Transpose", f"{name}/by_token", heads, perm=[0, 2, 1, 3])
        shape = self._constant("flat", [0, 0, config.hidden_size], "int64")
        flat = self._node("Reshape", f"{name}/flat", heads, shape)
        return self._linear(f"{name}.output.dense", flat)

    def _gelu(self, layer: str, x: str) -> str:
        """``x / 2 · (1 + erf(x / √2))``, Hendrycks and Gimpel (2016), in the form runtimes fuse."""
        root = self._constant("root", 2**0.5)
        error = self._node("Erf", f"{layer}/erf", self._node("Div", f"{layer}/div", x, root))
        plus = self._node("Add", f"{layer}/plus", error, self._constant("one", 1))
        product = self._node("Mul", f"{layer}/mul", x, plus)
        return self._node("Mul", f"{layer}/gelu", product, self._constant("half", 0.5))

    def _pool(self, hidden: str) -> None:
        axis = self._constant("token_axis", [1], "int64")
        last = self._constant("last", [-1], "int64")
        weight = self._node("Unsqueeze", "token_weight", "real", last)
        kept = self._node("Mul", "kept", hidden, weight)
        total = self._node("ReduceSum", "total", kept, axis, keepdims=0)
        count = self._node("ReduceSum", "count", weight, axis, keepdims=0)
        mean = self._node("Div", "mean", total, count)
        length = self._node("ReduceL2", "length", mean, axes=[-1], keepdims=1)
        self._node("Div", "embedding", mean, length)


def convert_bert(source: Path) -> bytes:
    """The graph of the weights in ``source``, by the configuration in the same folder.

    Raises:
        ModelError: `BertGraph` cannot build this kind of BERT. OSError: a file is missing.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = source.parent
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=BertConfig)
        pooling = msgspec.json.decode(
            (folder / "1_Pooling" / "config.json").read_bytes(), type=dict[str, bool | int]
        )
        if config.hidden_size % config.num_attention_heads:
            raise ModelError(
                f"hidden_size {config.hidden_size} is no multiple of its "
                f"{config.num_attention_heads} heads"
            )
        ways = {way for way, chosen in pooling.items() if chosen is True}
        if ways != {"pooling_mode_mean_tokens"}:
            raise ModelError(f"its tokens are pooled by {', '.join(sorted(ways))}, not by the mean")
        return BertGraph(config, load_file(source)).build()
    except (msgspec.DecodeError, SafetensorError) as error:
        raise ModelError(f"not a BERT that can be converted: {error}") from error
    except KeyError as error:
        raise ModelError(f"weights are missing: {error}") from error


def main(source: str, target: str) -> int:
    """Convert the weights in ``source`` to ``target``; 1, with the reason, if that fails."""
    try:
        Path(target).write_bytes(convert_bert(Path(source)))
    except ImportError as error:
        print(f"{error}; the extra [infer] has it: pip install 'perfkit[infer]'", file=sys.stderr)
    except (ModelError, OSError) as error:
        print(error, file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
