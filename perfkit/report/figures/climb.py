"""Draws the way from one figure to another, idea by idea, on a scale of factors.

Each rung's bar begins where the rung above it ended, so its length is the gain. Factors multiply,
so the scale is logarithmic and a bar of a given length is the same factor everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perfkit.evidence.text import quantity
from perfkit.report.figures.charts import Bar, Figure, captioned, sentence_case
from perfkit.report.figures.plotting import (
    BAR,
    BLUE,
    GREEN,
    ORANGE,
    VERMILION,
    log_x,
    row_canvas,
    to_svg,
    whisker,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def climb(
    rungs: Sequence[Bar], unit: str, *, control: str = "", title: str = "climb", caption: str = ""
) -> Figure:
    """The rungs from top to bottom; one that lost something points back, in another colour.

    `control` is the label of the row that repeats the first and is no rung. An unknown rung is a
    gap, and the next one begins where the last known ended. Raises ValueError unless the first rung
    is known and above 0.
    """
    if not rungs or not rungs[0].value or rungs[0].value <= 0:
        raise ValueError("a climb needs a first step that is known and above 0")
    first = before = rungs[0].value
    starts, texts = [], []
    for position, rung in enumerate(rungs):
        start = first if rung.label == control else before
        gained = "" if rung.value is None or not position else f", × {quantity(rung.value / start)}"
        starts.append(start)
        texts.append(quantity(rung.value, unit) + gained)
        before = before if rung.label == control or rung.value is None else rung.value
    with row_canvas([rung.label for rung in rungs], texts) as (drawing, axes):
        log_x(axes)
        for position, (rung, start) in enumerate(zip(rungs, starts, strict=True)):
            if rung.value is None:
                continue
            if position == 0 or rung.label == control:
                color = BLUE if position == 0 else ORANGE
                axes.plot([rung.value], [position], marker="o", ms=7, color=color)
            else:
                _draw_gain(axes, position, start, rung.value)
            whisker(axes, position, rung.value, (rung.low, rung.high))
        ends = [end for rung in rungs for end in (rung.value, rung.low, rung.high) if end]
        axes.set_xlim(min(ends) / 1.4, max(ends) * 1.4)
        axes.set_xlabel(f"{unit} (logarithmic)")
        svg = to_svg(drawing)
    lead = f"{sentence_case(title)} from {quantity(first, unit)} to {quantity(before, unit)}. "
    told = (f"{rung.label}: {text}." for rung, text in zip(rungs, texts, strict=True))
    return Figure(svg, lead + " ".join(told), captioned(title, caption))


def _draw_gain(axes: Axes, position: int, start: float, value: float) -> None:
    low, high = sorted((start, value))
    color = GREEN if value >= start else VERMILION
    axes.barh(position, high - low, left=low, height=BAR, color=color, alpha=0.75)
    axes.plot([value] * 2, [position - BAR / 2, position + BAR / 2], color=color, lw=2.4)
