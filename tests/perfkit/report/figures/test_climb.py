"""The way up as a picture: factors from rung to rung, a control that is no rung, and gaps."""

import pytest

from perfkit.report.figures.climb import Step, climb

STEPS = [
    Step("baseline", 10.0, 9.0, 11.0),
    Step("baseline again", 11.0, control=True),
    Step("runs", 1_000.0, 900.0, 1_100.0),
    Step("packed", None),
    Step("all", 500.0),
]


def test_each_rung_is_told_as_a_factor_of_the_last_known_one() -> None:
    alt = climb(STEPS, "tasks/s", title="throughput").alt
    assert alt.startswith("Throughput from 10 tasks/s to 500 tasks/s. ")
    assert "baseline again: 11 tasks/s, × 1.1." in alt
    assert "runs: 1,000 tasks/s, × 100." in alt
    assert "packed: unknown." in alt
    assert "all: 500 tasks/s, × 0.5." in alt


def test_the_picture_says_that_it_is_logarithmic() -> None:
    figure = climb(STEPS, "tasks/s", caption="why")
    assert "tasks/s (logarithmic)" in figure.svg
    assert "<figcaption>why" in figure._repr_html_()


@pytest.mark.parametrize("steps", [[], [Step("x", None)], [Step("x", 0.0)]])
def test_a_climb_begins_somewhere(steps: list[Step]) -> None:
    with pytest.raises(ValueError, match="known and above 0"):
        climb(steps, "tasks/s")
