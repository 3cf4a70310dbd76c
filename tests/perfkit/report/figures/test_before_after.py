"""Before and after as multiples of a target: more is better in every row, unknown is left out."""

import re
import xml.etree.ElementTree as ET

import pytest

from perfkit.evidence.samples import Interval
from perfkit.report.figures.before_after import Change, before_after

UNKNOWN = Interval(None, None, None, 0.95, "")


def figure(value: float, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value, low, high, 0.95, "")


RATE = Change("rate", "tasks/s", "higher", 100.0, figure(50.0, 40.0, 60.0), figure(200.0), "met")
DELAY = Change("delay", "ms", "lower", 5.0, figure(20.0, 10.0, None), figure(0.05), "met")


def test_a_multiple_above_one_is_good_in_every_row() -> None:
    rate, delay = RATE.multiple(RATE.before), DELAY.multiple(DELAY.before)
    assert (rate.value, rate.low, rate.high) == (0.5, 0.4, 0.6)
    assert (delay.value, delay.low, delay.high) == (0.25, None, 0.5)
    assert DELAY.multiple(DELAY.after).value == 100.0
    assert RATE.multiple(figure(0.0)).value is None


def test_each_row_says_both_figures_and_the_outcome() -> None:
    names = ("baseline", "optimised")
    drawn = before_after([RATE, DELAY], names=names, caption="Here.")
    assert drawn.alt == (
        "baseline and optimised, beside the target of each. rate: 50 tasks/s → 200 tasks/s, met. "
        "delay: 20 ms → 50 µs, met."
    )
    ET.fromstring(drawn.svg)
    for text in ("rate", "50 tasks/s → 200 tasks/s, met", "baseline", "optimised"):
        assert f">{text}</text>" in drawn.svg
    assert before_after([RATE, DELAY], names=names, caption="Here.") == drawn


def test_an_unknown_figure_has_no_mark() -> None:
    marks = [
        len(re.findall(r"<use ", before_after([row]).svg))
        for row in (RATE, Change("rate", "tasks/s", "higher", 100.0, RATE.before, UNKNOWN))
    ]
    assert marks[1] < marks[0]
    both = before_after([Change("rate", "tasks/s", "higher", 100.0, UNKNOWN, UNKNOWN)])
    assert "rate: unknown → unknown." in both.alt


def test_rows_without_a_target_cannot_be_drawn() -> None:
    for rows in ([], [Change("rate", "tasks/s", "higher", 0.0, UNKNOWN, UNKNOWN)]):
        with pytest.raises(ValueError, match="needs rows with targets above 0"):
            before_after(rows)
