"""Where ``minilm`` comes from: a BERT sentence encoder's weights, written as an ONNX graph.

The package that ships the weights ships no graph, and the usual exporters need a gigabyte of
framework. So the graph is built here, node by node, after Devlin et al., *BERT* (NAACL 2019), with
the head of Reimers and Gurevych, *Sentence-BERT* (EMNLP 2019): the mean over a text's tokens,
scaled to length 1. What can be computed once is computed here: the scale of the attention is part
of the query's weights, query, key and value are one product, and the type embedding of a first
sentence, the only one there is, is part of the position embeddings.

Run as ``python -m cluster.models.convert_bert WEIGHTS ONNX``, so that whoever needs the graph does
not keep the memory that it took to build. Needs onnx and safetensors (the extra ``[infer]``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cluster.models.manifest import ModelError, PositiveInt

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Counts up with every change of the graph: a graph that another version built is built anew.
VERSION = 1

#: Of the ONNX operators: the first with LayerNormalization.
OPSET = 17
IR_VERSION = 8

#: Added to the scores of what is padding, before the softmax: its share of the attention is 0.
MASKED = -1e9


class BertConfig(msgspec.Struct, frozen=True):
    """The part of a BERT's ``config.json`` that the graph depends on."""

    model_type: Literal["bert"]
    hidden_act: Literal["gelu"]
    hidden_size: PositiveInt
    num_attention_heads: PositiveInt
    num_hidden_layers: PositiveInt
    max_position_embeddings: PositiveInt
    layer_norm_eps: float
    position_embedding_type: Literal["absolute"] = "absolute"


class GraphBuilder:
    """Nodes and constants in the order they are added; each node has one output, named after it."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def add(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; its output's name."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any, dtype: str = "float32") -> str:
        """Add a constant, or the same one again; its name."""
        import numpy as np

        self.constants[name] = np.asarray(value, dtype, order="C")
        return name

    def linear(self, name: str, rows: str, weight: NDArray[Any], bias: NDArray[Any]) -> str:
        """A product with ``weight``, as the weights' file has it: [outputs, inputs]."""
        product = self.add("MatMul", f"{name}/product", rows, self.constant(f"{name}/w", weight.T))
        return self.add("Add", name, product, self.constant(f"{name}/b", bias))


class BertGraph:
    """The graph of a BERT of these weights, by name, as a sentence encoder.

    It maps ``input_ids`` and ``attention_mask``, int64[texts, tokens], to ``embedding``,
    float32[texts, hidden].
    """

    def __init__(self, config: BertConfig, weights: dict[str, NDArray[Any]]) -> None:
        self._config = config
        self._weights = weights
        self._graph = GraphBuilder()

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
        texts, ids = ["texts", "tokens"], TensorProto.INT64
        graph = helper.make_graph(
            self._graph.nodes,
            "bert",
            [
                helper.make_tensor_value_info("input_ids", ids, texts),
                helper.make_tensor_value_info("attention_mask", ids, texts),
            ],
            [
                helper.make_tensor_value_info(
                    "embedding", TensorProto.FLOAT, ["texts", self._config.hidden_size]
                )
            ],
            [numpy_helper.from_array(it, name) for name, it in self._graph.constants.items()],
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        content: bytes = model.SerializeToString()
        return content

    def _embeddings(self) -> str:
        graph, weights = self._graph, self._weights
        words = graph.constant("words", weights["embeddings.word_embeddings.weight"])
        places = graph.constant(
            "places",
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0],
        )
        word = graph.add("Gather", "word", words, "input_ids")
        # A slice and not a look-up: a range of positions keeps some providers from the graph.
        tokens = graph.add("Shape", "tokens", "input_ids", start=1, end=2)
        first = graph.constant("first", [0], "int64")
        place = graph.add("Slice", "place", places, first, tokens, first)
        return self._normalize("embeddings", graph.add("Add", "embedded", word, place))

    def _attention_mask(self) -> str:
        """What is added to each token's scores as others attend to it, [texts, 1, 1, tokens]."""
        graph = self._graph
        real = graph.add("Cast", "real", "attention_mask", to=1)
        absent = graph.add("Sub", "absent", graph.constant("one", 1), real)
        scores = graph.add("Mul", "masked", absent, graph.constant("minus", MASKED))
        return graph.add("Unsqueeze", "mask", scores, graph.constant("axes", [1, 2], "int64"))

    def _layer(self, layer: str, hidden: str, mask: str) -> str:
        graph = self._graph
        attended = self._attention(f"{layer}.attention", hidden, mask)
        sum_ = graph.add("Add", f"{layer}/attended", attended, hidden)
        hidden = self._normalize(f"{layer}.attention.output", sum_)
        inner = self._linear(f"{layer}.intermediate.dense", hidden)
        outer = self._linear(f"{layer}.output.dense", self._gelu(layer, inner))
        sum_ = graph.add("Add", f"{layer}/changed", outer, hidden)
        return self._normalize(f"{layer}.output", sum_)

    def _attention(self, name: str, hidden: str, mask: str) -> str:
        """Each head's attention, side by side, after the output's product."""
        import numpy as np

        graph, config = self._graph, self._config
        size = config.hidden_size // config.num_attention_heads
        parts = [f"{name}.self.{part}" for part in ("query", "key", "value")]
        weight, bias = (
            np.stack([self._weights[f"{part}.{kind}"] for part in parts])
            for kind in ("weight", "bias")
        )
        weight[0] /= np.sqrt(size)
        bias[0] /= np.sqrt(size)
        wide = 3 * config.hidden_size
        joined = graph.linear(
            f"{name}/joined", hidden, weight.reshape(wide, -1), bias.reshape(wide)
        )
        # [texts, tokens, 3 × hidden] to [3, texts, heads, tokens, size]
        shape = graph.constant("heads", [0, 0, 3, config.num_attention_heads, size], "int64")
        split = graph.add("Reshape", f"{name}/split", joined, shape)
        turned = graph.add("Transpose", f"{name}/turned", split, perm=[2, 0, 3, 1, 4])
        query, key, value = (
            graph.add("Gather", part, turned, graph.constant(f"part{at}", at, "int64"))
            for at, part in enumerate(parts)
        )
        key = graph.add("Transpose", f"{name}/key", key, perm=[0, 1, 3, 2])
        scores = graph.add("MatMul", f"{name}/scores", query, key)
        scores = graph.add("Add", f"{name}/seen", scores, mask)
        shares = graph.add("Softmax", f"{name}/shares", scores, axis=-1)
        heads = graph.add("MatMul", f"{name}/heads", shares, value)
        heads = graph.add("Transpose", f"{name}/by_token", heads, perm=[0, 2, 1, 3])
        shape = graph.constant("flat", [0, 0, config.hidden_size], "int64")
        flat = graph.add("Reshape", f"{name}/flat", heads, shape)
        return self._linear(f"{name}.output.dense", flat)

    def _gelu(self, layer: str, x: str) -> str:
        """``x / 2 · (1 + erf(x / √2))``, Hendrycks and Gimpel (2016), in the form runtimes fuse."""
        graph = self._graph
        root = graph.constant("root", 2**0.5)
        error = graph.add("Erf", f"{layer}/erf", graph.add("Div", f"{layer}/div", x, root))
        plus = graph.add("Add", f"{layer}/plus", error, graph.constant("one", 1))
        product = graph.add("Mul", f"{layer}/mul", x, plus)
        return graph.add("Mul", f"{layer}/gelu", product, graph.constant("half", 0.5))

    def _pool(self, hidden: str) -> None:
        graph = self._graph
        axis = graph.constant("token_axis", [1], "int64")
        last = graph.constant("last", [-1], "int64")
        weight = graph.add("Unsqueeze", "token_weight", "real", last)
        kept = graph.add("Mul", "kept", hidden, weight)
        total = graph.add("ReduceSum", "total", kept, axis, keepdims=0)
        count = graph.add("ReduceSum", "count", weight, axis, keepdims=0)
        mean = graph.add("Div", "mean", total, count)
        length = graph.add("ReduceL2", "length", mean, axes=[-1], keepdims=1)
        graph.add("Div", "embedding", mean, length)

    def _linear(self, name: str, rows: str) -> str:
        weights = self._weights
        return self._graph.linear(name, rows, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def _normalize(self, name: str, rows: str) -> str:
        name = f"{name}.LayerNorm"
        weight, bias = (
            self._graph.constant(f"{name}/{kind}", self._weights[f"{name}.{kind}"])
            for kind in ("weight", "bias")
        )
        eps = self._config.layer_norm_eps
        return self._graph.add("LayerNormalization", name, rows, weight, bias, epsilon=eps)


def convert_bert(source: Path) -> bytes:
    """The graph for the weights in ``source``, by the configuration in the folder around them.

    Raises:
        ModelError: it is not the kind of BERT that `BertGraph` builds. OSError: a file is missing.
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert; 1 if that cannot be done, and why."""
    import argparse  # a worker imports this module for its version alone

    parser = argparse.ArgumentParser(
        prog="python -m cluster.models.convert_bert",
        description="Write the ONNX graph of a BERT sentence encoder.",
    )
    parser.add_argument("source", type=Path, help="its weights, a file of safetensors")
    parser.add_argument("target", type=Path, help="the ONNX file to write")
    chosen = parser.parse_args(arguments)
    try:
        chosen.target.write_bytes(convert_bert(chosen.source))
    except ImportError as error:
        print(f"{error}; the extra [infer] has it: pip install 'perfkit[infer]'", file=sys.stderr)
    except (ModelError, OSError) as error:
        print(error, file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
