"""The committed digits model is what its script makes, and the script makes nothing that is bad."""

from pathlib import Path

import numpy as np
import pytest

from cluster.models.inference import ModelRepository
from cluster.models.samples import held_out_digits
from cluster.models.train_digits import (
    ACCURACY_MIN,
    FOLDER,
    main,
    measure_accuracy,
    split_digits,
    train_digits,
)

pytest.importorskip("onnxruntime")
pytest.importorskip("skl2onnx")
pytest.importorskip("sklearn")


def test_the_held_out_rows_are_those_of_the_split_and_no_others() -> None:
    split = split_digits()
    rows, labels = held_out_digits()
    assert np.array_equal(rows, split.held_out_rows)
    assert np.array_equal(labels, split.held_out_labels)
    assert len(split.train_rows) + len(rows) == 1797
    assert np.bincount(labels, minlength=10).min() >= 30


def test_training_again_gives_a_model_of_the_same_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    again = (tmp_path / "model.onnx").read_bytes()
    committed = (FOLDER / "model.onnx").read_bytes()
    rows, labels = held_out_digits()
    accuracy = measure_accuracy(committed, rows, labels)
    assert accuracy >= ACCURACY_MIN
    # Another processor's arithmetic may tip a row or two.
    assert abs(measure_accuracy(again, rows, labels) - accuracy) < 0.02
    assert len(again) == len(committed)
    assert (tmp_path / "held_out.npz").read_bytes() == (FOLDER / "held_out.npz").read_bytes()
    assert capsys.readouterr().out.startswith("held-out accuracy 0.9")


def test_the_same_seed_gives_the_same_bytes() -> None:
    split = split_digits()
    first = train_digits(split, seed=1, epochs_max=2)
    assert train_digits(split, seed=1, epochs_max=2) == first
    assert train_digits(split, seed=2, epochs_max=2) != first


def test_a_model_that_learned_too_little_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "new"), "--epochs", "1"]) == 1
    assert "is below 0.95" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_what_it_writes_can_be_served(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    assert main(["--out", str(folder), "--seed", "3", "--epochs", "20"]) == 0
    (folder / "model.toml").write_bytes((FOLDER / "model.toml").read_bytes())
    assert ModelRepository(tmp_path).load("digits").labels == tuple(range(10))
