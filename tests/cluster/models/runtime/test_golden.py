"""Answers are compared by what they mean, and odd ones are never the same."""

from typing import Any

import numpy as np
import pytest

from cluster.models.repository.manifest import ModelError
from cluster.models.runtime.golden import (
    difference,
    loss_points,
    read_tensors,
    write_tensors,
)

INFINITE = float("inf")


def out(*rows: Any, dtype: str = "float32") -> dict[str, Any]:
    return {"y": np.array(rows, dtype)}


@pytest.mark.parametrize(
    ("wanted", "found", "apart"),
    [
        (out([1, 2], [3, 4]), out([1, 2], [3, 4]), 0.0),
        (out([1, 2], [3, 4]), out([1, 2], [3, 5]), 0.25),
        (out(0.0), out(0.0), 0.0),
        (out(np.nan, np.inf), out(np.nan, np.inf), 0.0),
        (out(1.0), out(np.nan), INFINITE),
        (out(1.0), out(-np.inf), INFINITE),
        (out([1, 2]), out([1], [2]), INFINITE),
        (out(1.0), {}, INFINITE),
        (out(1, dtype="int64"), out(1, dtype="int64"), 0.0),
        (out(1, dtype="int64"), out(2, dtype="int64"), INFINITE),
        ({"y": np.array(["a"], object)}, {"y": np.array(["a"], object)}, 0.0),
        (out(dtype="float32"), out(dtype="float32"), 0.0),
    ],
)
def test_a_difference_is_relative_to_the_largest_number(
    wanted: Any, found: Any, apart: float
) -> None:
    assert difference(wanted, found) == pytest.approx(apart)


@pytest.mark.parametrize(
    ("wanted", "found", "what", "points"),
    [
        (out([1, 2], [3, 4]), out([10, 20], [3, 3.1]), "labels", 0.0),
        (out([1, 2], [3, 4]), out([2, 1], [3, 4]), "labels", 50.0),
        (out([1, 0], [0, 1]), out([2, 0], [0, 5]), "vectors", 0.0),
        (out([1, 0], [0, 1]), out([0, 1], [0, 1]), "vectors", 50.0),
        (out([1, 0], [0, 1]), out([1, 0.9], [0, 1]), "labels", 0.0),
        (out([1, 0], [0, 1]), out([0.9, 1], [0, 1]), "", 50.0),
        (out(10.0, 20.0), out(11.0, 19.0), "", 100 / 15),
        (out(1, 2, dtype="int64"), out(1, 3, dtype="int64"), "", 50.0),
        (out([1, 2]), out([1, np.nan]), "labels", INFINITE),
        (out([1, 2]), out([1, 2, 3]), "labels", INFINITE),
    ],
)
def test_a_loss_is_in_points_of_what_the_answer_means(
    wanted: Any, found: Any, what: str, points: float
) -> None:
    assert loss_points(wanted, found, what) == pytest.approx(points, abs=1e-6)


def test_tensors_come_back_from_a_file_and_objects_stay_out(tmp_path: Any) -> None:
    path = tmp_path / "some.npz"
    given = {**out([1, 2]), "text": np.array(["a", "bc"], object)}
    write_tensors(path, given)
    found = read_tensors(path)
    assert difference(given, found) == 0.0
    assert found["text"].dtype == object
    np.savez(path, y=np.array([{}], object))
    with pytest.raises(ModelError, match=r"can't read tensors from .*some\.npz: "):
        read_tensors(path)
    path.write_bytes(b"junk")
    with pytest.raises(ModelError, match="can't read tensors"):
        read_tensors(path)
