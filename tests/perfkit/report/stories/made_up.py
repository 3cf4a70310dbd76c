"""Made-up figures for the tests of stories."""

from typing import Any

from perfkit.evidence.results import Result
from perfkit.evidence.samples import Interval
from tests.perfkit.machine import HERE


def interval(value: float | None, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value, low, high, 0.95, "made up")


def result(
    experiment: str,
    value: float | None = 10.0,
    low: float | None = 9.0,
    high: float | None = 11.0,
    unit: str = "tasks/s",
    **facts: Any,
) -> Result:
    defaults = {"workers": 2, "tasks": 20, "samples": [10.0, 5.0]}
    return Result(
        experiment=experiment, spec="baseline", engine="zmq", value=value, low=low, high=high,
        unit=unit, environment=HERE, **{**defaults, **facts},
    )  # fmt: skip
