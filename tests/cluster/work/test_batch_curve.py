"""A batch grows while it yields more items a second, on machines of known shape."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.work.batch_curve import BUCKETS_MAX, BatchCurve, BatchCurves

#: seconds of a run by its items, and the size that yields most items a second, of 1 to 64
MACHINES = {
    "a fixed cost": (lambda n: 0.010 + 0.001 * n, 64),
    "no gain at all": (lambda n: 0.006 * n, 1),
    "a loss": (lambda n: 0.006 * n**1.2, 1),
    "a gain that ends at eight": (lambda n: 0.010 if n <= 8 else 0.010 * n / 8, 8),
    "nothing but a fixed cost": (lambda n: 0.010, 64),
}


def late_sizes(seconds, most=64, runs=600, disturbed=0.0, first=1):
    """The sizes chosen after the first 100 runs, which are always as full as they may be. Other
    work makes some runs up to twice as slow.
    """
    curve, chance, sizes = BatchCurve(most, first), random.Random(0), []
    for _ in range(runs):
        sizes.append(curve.items)
        slower = 1 + chance.random() * (chance.random() < disturbed)
        curve.observe(curve.items, seconds(curve.items) * slower)
    return sizes[100:]


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("disturbed", "share"), [(0.0, 0.94), (0.5, 0.88)])
def test_it_yields_almost_as_much_as_the_best_size_would(name, disturbed, share):
    seconds, best = MACHINES[name]
    sizes = late_sizes(seconds, disturbed=disturbed)
    rate = sum(sizes) / sum(map(seconds, sizes))
    assert rate >= share * best / seconds(best)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("first", [1, 16])
def test_it_settles_where_items_a_second_stop_rising(name, first):
    seconds, best = MACHINES[name]
    sizes = late_sizes(seconds, first=first)
    assert max(set(sizes), key=sizes.count) == best


def test_it_follows_a_machine_that_changes():
    curve = BatchCurve(64)
    for seconds in (lambda n: 0.010 + 0.0001 * n, lambda n: 0.006 * n):
        for _ in range(200):
            curve.observe(curve.items, seconds(curve.items))
    assert curve.items <= 2


def test_a_model_that_takes_no_batch_gets_none():
    assert set(late_sizes(lambda n: 0.010, most=1)) == {1}
    assert max(late_sizes(lambda n: 0.010, most=20)) == 16


def test_half_empty_runs_decide_nothing():
    curve = BatchCurve(64)
    for _ in range(20):
        curve.observe(curve.items, 0.010)
    size = curve.items
    for _ in range(50):
        curve.observe(size // 2 + 1, 0.020)
    assert curve.items == size


def test_nothing_is_predicted_before_the_first_run():
    assert BatchCurve(8).predict_s(4) is None


@given(
    fixed_s=st.floats(0.0, 0.1),
    each_s=st.floats(1e-5, 0.1),
    sizes=st.lists(st.integers(1, 64), min_size=3, max_size=40),
    items=st.integers(1, 64),
)
def test_a_linear_machine_is_predicted_or_overrated(fixed_s, each_s, sizes, items):
    curve = BatchCurve(64)
    for size in sizes:
        curve.observe(size, fixed_s + each_s * size)
    right = fixed_s + each_s * items
    predicted = curve.predict_s(items)
    if len(set(sizes[-8:])) > 2:
        assert predicted == pytest.approx(right, rel=0.05)
    else:
        assert predicted is not None
        assert predicted >= 0.0


def test_a_curve_is_kept_for_each_bucket_and_the_oldest_is_forgotten():
    curves = BatchCurves(8)
    first = curves["0"]
    assert curves["0"] is first
    for bucket in range(BUCKETS_MAX):
        _ = curves[bucket]
    assert curves["0"] is not first
