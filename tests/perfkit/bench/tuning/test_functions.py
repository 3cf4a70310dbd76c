"""A function of the user's as a load: checked before a search, and named in what it finds."""

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from cluster.spec import BASELINE
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.tuning import tune
from perfkit.bench.tuning.functions import UnfitFunction, function_load
from perfkit.bench.tuning.loads import Load, NoSuchLoad
from perfkit.bench.tuning.trials import running
from perfkit.bench.workloads.load import ExperimentError, WrongResult

LOCK = threading.Lock()
COUNTED = count()


def spread(number: int) -> dict[str, Any]:
    """Has what no `==` compares: an array and NaN."""
    return {"array": np.arange(number), "none": float("nan")}


def fails_at_two(number: int) -> float:
    return 1 / (number - 2)


def counts(number: int) -> int:
    return next(COUNTED)


async def later(number: int) -> int:
    return number


def locked(number: int) -> int:
    with LOCK:
        return number


@pytest.fixture(scope="module")
def load() -> Load:
    return function_load(spread, range(5), "latency", tasks=7, workers=1)


def test_its_calls_run_on_a_cluster_and_are_checked(load: Load) -> None:
    assert load.text == (
        "latency, latency_p95: 7 tasks of spread, function "
        "tests.perfkit.bench.tuning.test_functions.spread, items 5"
    )
    assert [*load.work.payloads] == [0, 1, 2, 3, 4, 0, 1]
    assert load.once_s > 0
    with running(load, BASELINE, 1, 0.0) as block:
        assert block() > 0
    with pytest.raises(WrongResult, match="spread task 3 of 7 gave 0 instead of "):
        load.work.check([*load.work.expected[:3], 0, *load.work.expected[4:]])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("function", "items", "words"),
    [
        (fails_at_two, [3, 2], "fails for 2 (item 2 of 2): ZeroDivisionError: "),
        (counts, [5], "returned 0 and then 1 for 5 (item 1 of 1): results are compared"),
    ],
)
def test_a_function_that_fails_or_varies_is_refused_with_the_item(
    function: Callable[[int], Any], items: list[int], words: str
) -> None:
    with pytest.raises(UnfitFunction) as refused:
        function_load(function, items, workers=1)
    assert words in str(refused.value)
    if function is fails_at_two:
        assert "return 1 / (number - 2)" in str(refused.value)


def test_what_needs_no_cluster_is_refused_before_one_starts(load: Load) -> None:
    wrong: list[tuple[Callable[[], object], type[ClusterError], str]] = [
        (lambda: function_load(later, [1]), UnfitFunction, "later is a coroutine function"),
        (lambda: function_load(spread, []), UnfitFunction, "1 to 100,000 items, not none"),
        (lambda: function_load(spread, count()), UnfitFunction, "not more"),
        (lambda: function_load(spread, 3), UnfitFunction, "a list or another iterable, not 3"),  # type: ignore[arg-type]
        (lambda: function_load(spread, [1, {2}]), UnfitFunction, "item 2 of 2: spread: argument 1"),
        (lambda: function_load(spread, [1], "mixed"), NoSuchLoad, "a function takes throughput"),
        (lambda: function_load(locked, [1]), ClusterError, "its variable 'LOCK' is a lock"),
        (lambda: tune(spread, [1]), ExperimentError, "tune(BASELINE, function_load("),  # type: ignore[arg-type]
        (lambda: tune(BASELINE, [1]), ExperimentError, "a load of make_load or function_load"),  # type: ignore[arg-type]
        (
            lambda: tune(BASELINE, replace(load, once_s=60.0)),
            ExperimentError,
            "5 minutes are too few: the work takes 1 min",
        ),
    ]
    for call, kind, words in wrong:
        with pytest.raises(kind) as refused:
            call()
        assert words in str(refused.value)
