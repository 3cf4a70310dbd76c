"""The way up as a picture: factors from rung to rung, a control that is no rung, and gaps."""

import pytest

from perfkit.report.figures.charts import Bar
from perfkit.report.figures.climb import climb

RUNGS = [
    Bar("baseline", 10.0, 9.0, 11.0),
    Bar("baseline again", 11.0),
    Bar("runs", 1_000.0, 900.0, 1_100.0),
    Bar("packed", None),
    Bar("all", 500.0),
]


def test_each_rung_is_told_as_a_factor_of_the_last_known_one() -> None:
    figure = climb(RUNGS, "tasks/s", control="baseline again", title="throughput", caption="why")
    assert figure.alt == (
        "Throughput from 10 tasks/s to 500 tasks/s. baseline: 10 tasks/s. "
        "baseline again: 11 tasks/s, × 1.1. runs: 1,000 tasks/s, × 100. packed: unknown. "
        "all: 500 tasks/s, × 0.5."
    )
    assert "tasks/s (logarithmic)" in figure.svg
    assert "<figcaption>Throughput. why" in figure._repr_html_()


@pytest.mark.parametrize("rungs", [[], [Bar("x", None)], [Bar("x", 0.0)]])
def test_a_climb_begins_somewhere(rungs: list[Bar]) -> None:
    with pytest.raises(ValueError, match="known and above 0"):
        climb(rungs, "tasks/s")
