"""Where ``digits`` comes from: ``python -m cluster.models.train_digits`` trains and writes it.

The data are the 1,797 handwritten digits bundled with scikit-learn (Alpaydin and Kaynak, *Optical
Recognition of Handwritten Digits*, UCI Machine Learning Repository, CC BY 4.0): 8 × 8 pixels, each
0 to 16. A fifth is held out, never trained on, and written beside the model, so that its accuracy
can be asserted wherever it is timed, without scikit-learn. The same seed on the same machine gives
the same files; another machine's arithmetic may differ in the last bit of a weight, but not in what
the model is worth.

Needs scikit-learn and skl2onnx (the extra ``[dev]``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.models.manifest import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "digits"
SEED = 7
HELD_OUT_ROWS = 360
ACCURACY_MIN = 0.95
PIXEL_MAX = 16.0
HIDDEN = (128, 64)
EPOCHS_MAX = 200

#: Of the ONNX operators; old enough for the runtimes that still drive old cards.
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
    # One thread: the sums come out the same each time, and matrices so small gain nothing by more.
    with threadpool_limits(1), warnings.catch_warnings():
        # Whether it was trained enough is judged by its accuracy.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(split.train_rows / PIXEL_MAX, split.train_labels)
    # It learned on numbers of 0 to 1; folded into the first layer, the scale costs nothing later.
    network.coefs_[0] /= PIXEL_MAX
    graph = to_onnx(
        network,
        initial_types=[("pixels", FloatTensorType([None, split.train_rows.shape[1]]))],
        name="digits",
        options={"zipmap": False},
        target_opset=OPSET,
    )
    # The argmax over the labels is ours to take: what computes it here is not in every provider.
    pruned = select_model_inputs_outputs(graph, outputs=["probabilities"])
    used = {name for node in pruned.graph.node for name in node.input}
    kept = [constant for constant in pruned.graph.initializer if constant.name in used]
    del pruned.graph.initializer[:]
    pruned.graph.initializer.extend(kept)
    content: bytes = pruned.SerializeToString()
    return content


def measure_accuracy(model: bytes, rows: NDArray[Any], labels: NDArray[Any]) -> float:
    """The share of ``rows``, float32[N, 64], that a model of `train_digits` labels right."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {session.get_inputs()[0].name: rows})
    return float((probabilities.argmax(axis=1) == labels).mean())


def write_digits(folder: Path, model: bytes, split: Split) -> float:
    """Write ``model.onnx`` and ``held_out.npz`` if the model is good enough; its held-out accuracy.

    Raises:
        ModelError: the accuracy is below `ACCURACY_MIN`; nothing is written.
    """
    import numpy as np

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write, and say how good it is; 1 if it is not good enough."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.models.train_digits",
        description="Train the digits model on scikit-learn's bundled digits and write its files.",
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    parser.add_argument("--seed", type=int, default=SEED, help="of the split and of the training")
    parser.add_argument("--epochs", type=int, default=EPOCHS_MAX, help="at most so many")
    chosen = parser.parse_args(arguments)
    split = split_digits(chosen.seed)
    model = train_digits(split, chosen.seed, chosen.epochs)
    try:
        accuracy = write_digits(chosen.out, model, split)
    except ModelError as error:
        print(error)
        return 1
    right = round(accuracy * HELD_OUT_ROWS)
    print(
        f"held-out accuracy {accuracy:.4f} ({right} of {HELD_OUT_ROWS} rows), {len(model):,} bytes"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
