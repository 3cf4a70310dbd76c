"""BERT a second time, for tests: as the paper has it, in float64, one text, nothing folded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]


def embed(weights: dict[str, Array], ids: list[int], heads: int, eps: float) -> Array:
    """The vector of one text by its tokens, float64[hidden], of length 1."""
    special = pytest.importorskip("scipy.special")

    def w(name: str) -> Array:
        return weights[name].astype(np.float64)

    def linear(name: str, x: Array) -> Array:
        return x @ w(f"{name}.weight").T + w(f"{name}.bias")

    def normalize(name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return scaled * w(f"{name}.LayerNorm.weight") + w(f"{name}.LayerNorm.bias")

    x = weights["embeddings.word_embeddings.weight"][ids].astype(np.float64)
    x = x + w("embeddings.position_embeddings.weight")[: len(ids)]
    x = normalize("embeddings", x + w("embeddings.token_type_embeddings.weight")[0])
    layer = 0
    while (name := f"encoder.layer.{layer}") + ".output.dense.weight" in weights:
        parts = [linear(f"{name}.attention.self.{it}", x) for it in ("query", "key", "value")]
        attended = []
        for query, key, value in zip(*(np.split(it, heads, -1) for it in parts), strict=True):
            scores = query @ key.T / np.sqrt(query.shape[-1])
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            attended.append(shares / shares.sum(-1, keepdims=True) @ value)
        joined = linear(f"{name}.attention.output.dense", np.concatenate(attended, -1))
        x = normalize(f"{name}.attention.output", joined + x)
        inner = linear(f"{name}.intermediate.dense", x)
        inner = inner * (1 + special.erf(inner / np.sqrt(2))) / 2
        x = normalize(f"{name}.output", linear(f"{name}.output.dense", inner) + x)
        layer += 1
    mean: Array = x.mean(0)
    return mean / np.linalg.norm(mean)


HIDDEN, HEADS, INNER, WORDS, PLACES, EPS = 12, 3, 20, 30, 16, 1e-9


def save_tiny(folder: Path, seed: int = 1, **changes: object) -> dict[str, Array]:
    """A BERT of two layers with weights at random and its configuration; the weights."""
    from safetensors.numpy import save_file

    shapes = {
        "embeddings.word_embeddings.weight": (WORDS, HIDDEN),
        "embeddings.position_embeddings.weight": (PLACES, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm": (HIDDEN,),
    }
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        for part in ("query", "key", "value"):
            shapes[f"{layer}.attention.self.{part}"] = (HIDDEN, HIDDEN)
        shapes[f"{layer}.attention.output.dense"] = (HIDDEN, HIDDEN)
        shapes[f"{layer}.attention.output.LayerNorm"] = (HIDDEN,)
        shapes[f"{layer}.intermediate.dense"] = (INNER, HIDDEN)
        shapes[f"{layer}.output.dense"] = (HIDDEN, INNER)
        shapes[f"{layer}.output.LayerNorm"] = (HIDDEN,)
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in shapes.items():
        if name.startswith("embeddings.") and name.endswith(".weight"):
            weights[name] = rng.normal(size=shape).astype(np.float32)
            continue
        weights[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(size=shape[0]).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "max_position_embeddings": PLACES,
        "layer_norm_eps": EPS,
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return weights
