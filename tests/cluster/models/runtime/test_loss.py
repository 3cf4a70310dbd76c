"""A loss is in points of what the answers mean, with an interval that decides."""

from typing import Any

import numpy as np
import pytest

from cluster.models.runtime.loss import (
    COUNT_MIN,
    Loss,
    of_grades,
    of_labels,
    of_numbers,
    of_vectors,
    spearman,
    worst_of,
)


@pytest.mark.parametrize(
    ("a", "b", "rho"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 99], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        # Equal numbers share a rank: 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / np.sqrt(4.5 * 5)),
        ([1, 1], [1, 1], 1.0),
        ([1, 1], [1, 2], 0.0),
    ],
)
def test_a_rank_correlation_is_spearmans(a: list[float], b: list[float], rho: float) -> None:
    assert spearman(np.array(a), np.array(b)) == pytest.approx(rho)


@pytest.mark.parametrize(
    ("count", "changed", "verdict"),
    [
        (764, 0, "inconclusive"),
        (765, 0, "within"),
        (765, 1, "inconclusive"),
        (3000, 5, "within"),
        (100, 10, "beyond"),
        (0, 0, "inconclusive"),
    ],
)
def test_half_a_point_is_told_from_enough_labels_only(
    count: int, changed: int, verdict: str
) -> None:
    loss = of_labels(["a"] * count, ["b"] * changed + ["a"] * (count - changed))
    assert loss.points == pytest.approx(100 * changed / max(count, 1))
    assert loss.verdict(0.5) == verdict


def test_an_interval_of_labels_is_wilsons() -> None:
    loss = of_labels(range(10), [0, 1, 2, 3, 4, 5, 6, 7, 0, 0])
    assert (loss.points, loss.count) == (20.0, 10)
    assert (loss.low, loss.high) == pytest.approx((5.67, 50.98), abs=0.01)


@pytest.fixture(scope="module")
def graded() -> tuple[Any, Any]:
    """Cosines of families of pairs, which follow their grades, and the grades."""
    grades = np.tile([2, 1, 0, 0], (150, 1))
    noise = np.random.default_rng(0).normal(0, 0.15, grades.shape)
    return grades * 0.4 + noise, grades


@pytest.mark.parametrize(
    ("noise", "verdict"),
    [(0.0, "within"), (0.005, "within"), (0.06, "inconclusive"), (0.5, "beyond")],
)
def test_a_loss_of_graded_pairs_grows_with_their_noise(
    graded: tuple[Any, Any], noise: float, verdict: str
) -> None:
    cosines, grades = graded
    other = cosines + np.random.default_rng(1).normal(0, 1, cosines.shape) * noise
    loss = of_grades(cosines, other, grades)
    assert loss.low <= loss.points <= loss.high
    assert loss.accuracy_points == pytest.approx(100 * spearman(other.ravel(), grades.ravel()))
    assert loss.verdict(0.5) == verdict


def test_vectors_are_judged_by_the_order_of_their_pairs_and_not_by_their_direction() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    turned, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))
    assert of_vectors(vectors, 3 * vectors @ turned).high == pytest.approx(0.0, abs=1e-6)
    loss = of_vectors(vectors, vectors + np.random.default_rng(2).normal(size=(40, 8)))
    assert loss.verdict(0.5) == "beyond"
    assert loss.count == 40 * 39 / 2


def test_few_rows_prove_nothing() -> None:
    rows = np.arange(COUNT_MIN - 1.0)
    assert of_numbers(rows, rows) == Loss(0.0, 0.0, 100.0, len(rows))
    assert of_numbers(np.arange(20.0), np.arange(20.0)).verdict(0.0) == "within"
    assert of_numbers(np.ones(20), np.full(20, 1.1)).points == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("wanted", "found", "what", "points"),
    [
        ([[1.0, 2], [3, 4]], [[10, 20], [3, 3.1]], "labels", 0.0),
        ([[1.0, 2], [3, 4]], [[2, 1], [3, 4]], "labels", 50.0),
        ([[1.0, 2], [3, 4]], [[2, 1], [3, 4]], "", 50.0),
        ([[1.0, 0], [0, 1]], [[2, 0], [0, 5]], "vectors", 0.0),
        ([10.0, 20.0], [11.0, 19.0], "", 100 / 15),
        (["a", "b"], ["a", "c"], "", 50.0),
    ],
)
def test_an_unknown_graph_is_judged_by_its_worst_output(
    wanted: Any, found: Any, what: str, points: float
) -> None:
    own, other = ({"fine": np.zeros((2, 0)), "y": np.array(it)} for it in (wanted, found))
    assert worst_of([own], [other], what).points == pytest.approx(points, abs=1e-6)
