"""Trains and writes ``digits``: ``python -m tests.cluster.models.train_digits [FOLDER]``.

The data are the 1,797 handwritten digits bundled with scikit-learn (Alpaydin and Kaynak, *Optical
Recognition of Handwritten Digits*, UCI Machine Learning Repository, CC BY 4.0): 8 × 8 pixels, each
0 to 16. A fifth is held out and written beside the model, so that its accuracy can be asserted
wherever it is timed, without scikit-learn. The same seed on the same machine gives the same files;
another machine may differ in the last bit of a weight, but not in accuracy.

Needs scikit-learn and skl2onnx (the extra ``[dev]``).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.models.repository.manifest import ModelError
from cluster.models.samples import DIGITS

if TYPE_CHECKING:
    from numpy.typing import NDArray


SEED = 7
HELD_OUT_ROWS = 360
ACCURACY_MIN = 0.95
PIXEL_MAX = 16.0
HIDDEN = (128, 64)
EPOCHS_MAX = 200

#: The version of the ONNX operators, old enough for the runtimes of old cards.
OPSET = 15


class Split(NamedTuple):
    """Rows float32[N, 64] and labels int64[N], to train on and held out."""

    train_rows: NDArray[Any]
    held_out_rows: NDArray[Any]
    train_labels: NDArray[Any]
    held_out_labels: NDArray[Any]


def split_digits(seed: int = SEED) -> Split:
    """The bundled digits, shuffled by ``seed`` and split with equal shares of every label."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    rows, labels = load_digits(return_X_y=True)
    return Split(
        *train_test_split(
            rows.astype(np.float32),
            labels.astype(np.int64),
            test_size=HELD_OUT_ROWS,
            random_state=seed,
            stratify=labels,
        )
    )


def train_digits(split: Split, seed: int = SEED, epochs_max: int = EPOCHS_MAX) -> bytes:
    """A perceptron of two hidden layers as an ONNX file.

    It maps ``pixels``, float32[N, 64] of 0 to 16, to ``probabilities``, float32[N, 10].
    """
    import warnings

    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    network = MLPClassifier(
        HIDDEN, alpha=1e-3, batch_size=64, max_iter=epochs_max, random_state=seed
    )
    # With one thread sums are reproducible, and matrices this small gain nothing from more.
    with threadpool_limits(1), warnings.catch_warnings():
        # The accuracy decides whether it was trained enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(split.train_rows / PIXEL_MAX, split.train_labels)
    # It was trained on 0 to 1; the first layer takes the scale in.
    network.coefs_[0] /= PIXEL_MAX
    graph = to_onnx(
        network,
        initial_types=[("pixels", FloatTensorType([None, split.train_rows.shape[1]]))],
        name="digits",
        options={"zipmap": False},
        target_opset=OPSET,
    )
    # Not every provider has the operators that pick the label, so they are cut off.
    pruned = select_model_inputs_outputs(graph, outputs=["probabilities"])
    used = {name for node in pruned.graph.node for name in node.input}
    kept = [constant for constant in pruned.graph.initializer if constant.name in used]
    del pruned.graph.initializer[:]
    pruned.graph.initializer.extend(kept)
    content: bytes = pruned.SerializeToString()
    return content


def measure_accuracy(model: bytes, rows: NDArray[Any], labels: NDArray[Any]) -> float:
    """The share of ``rows``, float32[N, 64], that a model of `train_digits` labels correctly."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {session.get_inputs()[0].name: rows})
    return float((probabilities.argmax(axis=1) == labels).mean())


def write_digits(folder: Path = DIGITS, epochs_max: int = EPOCHS_MAX) -> float:
    """Train, and write ``model.onnx`` and ``held_out.npz``; the held-out accuracy.

    Raises:
        ModelError: the accuracy is below `ACCURACY_MIN`; nothing is written.
    """
    import numpy as np

    split = split_digits()
    model = train_digits(split, epochs_max=epochs_max)
    accuracy = measure_accuracy(model, split.held_out_rows, split.held_out_labels)
    if accuracy < ACCURACY_MIN:
        raise ModelError(
            f"not written: held-out accuracy {accuracy:.3f} is below {ACCURACY_MIN}; train longer"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    np.savez_compressed(
        folder / "held_out.npz",
        rows=split.held_out_rows.astype(np.uint8),
        labels=split.held_out_labels.astype(np.uint8),
    )
    return accuracy


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if sys.argv[1:] else DIGITS
    print(f"held-out accuracy {write_digits(chosen):.4f}")
