"""Stages of several runs on one scale: each run is told whole, an unknown stage is a gap."""

import pytest

from perfkit.report.figures.charts import Bar
from perfkit.report.figures.stages import side_by_side

ROWS = {
    "plain": [Bar("hop", 2.0), Bar("service", 1.0)],
    "fast": [Bar("hop", 1.0), Bar("service", None)],
}
WHOLE = {"plain": Bar("plain", 3.5, 3.0, 4.0), "fast": Bar("fast", None)}


def test_each_run_is_told_with_its_stages() -> None:
    figure = side_by_side(ROWS, WHOLE, "ms", caption="why")
    assert figure.alt == (
        "plain: 3.5 ms (3 to 4), of which hop 2 ms, service 1 ms. "
        "fast: unknown, of which hop 1 ms, service unknown."
    )
    assert figure.svg.count(">hop<") == 1, "one legend for all rows"
    assert "why" in figure._repr_html_()


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        side_by_side({}, {}, "ms")
