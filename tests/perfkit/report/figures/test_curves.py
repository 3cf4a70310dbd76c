"""Curves: described by their ends, with gaps for unknown values, and marks on the axis."""

import pytest

from perfkit.report.figures.curves import Axis, Curve, curves

MEASURED = Curve("measured", [1.0, 10.0, 100.0], [1.0, None, 0.8], [0.9, None, 0.7], [1, None, 0.9])
IDEAL = Curve("ideal", [1.0, 1_000.0], [1.0, 1.0], is_dashed=True)
WORKERS, RATE = Axis("workers", is_logarithmic=True), Axis("rate", "tasks/s")


def test_every_curve_is_described_with_its_ends_and_its_gaps() -> None:
    figure = curves([MEASURED, IDEAL], WORKERS, RATE, title="scaling", caption="made up")
    assert figure.alt == (
        "Curves of scaling. measured: 1 tasks/s at 1 to 0.8 tasks/s at 100, 1 point unknown. "
        "ideal: 1 tasks/s at 1 to 1 tasks/s at 1,000."
    )
    assert figure.caption.endswith("made up")
    assert ">ideal</text>" in figure.svg
    assert ">rate (tasks/s)</text>" in figure.svg


def test_only_what_was_not_measured_is_dashed() -> None:
    dashed = [
        curves([row], WORKERS, RATE, title="x").svg.count("dasharray: 5")
        for row in (MEASURED, IDEAL)
    ]
    assert dashed[0] < dashed[1]


def test_a_mark_that_is_unknown_is_said_to_be_and_is_not_drawn() -> None:
    marks = {"knee": None, "fault": 10.0}
    figure = curves([MEASURED], WORKERS, RATE, title="load", marks=marks)
    assert figure.alt.endswith("knee: unknown. fault: 10.")
    assert ">fault</text>" in figure.svg
    assert ">knee</text>" not in figure.svg


def test_ticks_have_their_own_texts() -> None:
    axis = Axis("percentile", ticks={0.0: "fastest", 1.0: "p90"})
    figure = curves([Curve("a", [0.0, 1.0], [1.0, 2.0])], axis, RATE, title="latency")
    assert ">p90</text>" in figure.svg
    assert "1 tasks/s at fastest to 2 tasks/s at p90" in figure.alt


def test_without_a_curve_there_is_no_picture() -> None:
    with pytest.raises(ValueError, match="at least one"):
        curves([], WORKERS, RATE, title="nothing")
