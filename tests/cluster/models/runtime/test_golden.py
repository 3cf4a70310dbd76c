"""Answers are compared by what they mean, and odd ones are never the same."""

from typing import Any

import numpy as np
import pytest

from cluster.models.repository.manifest import ModelError
from cluster.models.runtime.golden import (
    difference,
    is_comparable,
    read_groups,
    read_tensors,
    write_groups,
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


def test_groups_keep_their_order_and_their_names(tmp_path: Any) -> None:
    groups = [{f"x/{at}:0": np.full(2, at, "float32")} for at in range(12)]
    write_groups(tmp_path / "some.npz", groups)
    found = read_groups(tmp_path / "some.npz")
    assert [list(it) for it in found] == [list(it) for it in groups]
    assert [difference(*it) for it in zip(groups, found, strict=True)] == [0.0] * 12


@pytest.mark.parametrize(
    ("found", "comparable"),
    [
        (out([1, 2]), True),
        (out([1, np.nan]), False),
        (out([1, np.inf]), False),
        (out([1, 2, 3]), False),
        ({}, False),
    ],
)
def test_answers_with_other_shapes_or_no_numbers_are_not_judged(
    found: Any, comparable: bool
) -> None:
    assert is_comparable(out([1, 2]), found) is comparable
