"""The committed digits model is what its script makes, and a bad model is not written."""

from pathlib import Path

import numpy as np
import pytest

from cluster.models.repository.manifest import ModelError
from cluster.models.samples import DIGITS, held_out_digits
from tests.cluster.models.train_digits import (
    ACCURACY_MIN,
    measure_accuracy,
    split_digits,
    train_digits,
    write_digits,
)


@pytest.fixture(autouse=True, scope="module")
def _trainer() -> None:
    """What trains is imported by the tests, not where they are collected: it takes 2 s."""
    for package in ("onnxruntime", "skl2onnx", "sklearn"):
        pytest.importorskip(package)


def test_the_held_out_rows_are_those_of_the_split_and_no_others() -> None:
    split = split_digits()
    rows, labels = held_out_digits()
    assert np.array_equal(rows, split.held_out_rows)
    assert np.array_equal(labels, split.held_out_labels)
    assert len(split.train_rows) + len(rows) == 1797
    assert np.bincount(labels, minlength=10).min() >= 30


def test_training_again_gives_an_equally_good_model(tmp_path: Path) -> None:
    write_digits(tmp_path)
    again = (tmp_path / "model.onnx").read_bytes()
    committed = (DIGITS / "model.onnx").read_bytes()
    rows, labels = held_out_digits()
    accuracy = measure_accuracy(committed, rows, labels)
    assert accuracy >= ACCURACY_MIN
    # Another processor's arithmetic may tip a row or two.
    assert abs(measure_accuracy(again, rows, labels) - accuracy) < 0.02
    assert len(again) == len(committed)
    assert (tmp_path / "held_out.npz").read_bytes() == (DIGITS / "held_out.npz").read_bytes()


def test_the_same_seed_gives_the_same_bytes() -> None:
    split = split_digits()
    first = train_digits(split, seed=1, epochs_max=2)
    assert train_digits(split, seed=1, epochs_max=2) == first
    assert train_digits(split, seed=2, epochs_max=2) != first


def test_a_model_that_learned_too_little_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is below 0.95; train longer"):
        write_digits(tmp_path / "new", epochs_max=1)
    assert not (tmp_path / "new").exists()
