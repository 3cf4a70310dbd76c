"""Draws the way from one figure to another, idea by idea, on a scale of factors.

Each rung begins where the one below it ended, so that its bar is what it added. Factors multiply,
so the scale is logarithmic and a bar of a given length is the same factor wherever it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfkit.evidence.text import measured, quantity
from perfkit.report.figures.charts import Figure
from perfkit.report.figures.plotting import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILION,
    canvas,
    height_of,
    label_rows,
)
from perfkit.report.figures.svg import INK, QUIET, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR = 0.56


@dataclass(frozen=True, slots=True)
class Step:
    """One rung: its figure with its interval; None is unknown. `control` is no rung but a repeat of
    the first, drawn beside it.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    control: bool = False


def climb(steps: Sequence[Step], unit: str, *, title: str = "climb", caption: str = "") -> Figure:
    """The steps from top to bottom; a step that lost something points back, in another colour.

    An unknown step is a gap, and the next one begins where the last known ended. Raises ValueError
    unless the first step is known and above 0.
    """
    if not steps or not steps[0].value or steps[0].value <= 0:
        raise ValueError("a climb needs a first step that is known and above 0")
    first = before = steps[0].value
    sentences = []
    with canvas(height_of(steps) + 0.2) as (drawing, axes):
        axes.set_xscale("log")
        for position, step in enumerate(steps):
            start = first if step.control else before
            text = _text(step, start, position == 0, unit)
            sentences.append(f"{step.name}: {text}.")
            _draw(axes, position, step, start, position == 0)
            axes.text(
                1.02,
                position,
                text,
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=8.5,
                color=QUIET if step.value is None else INK,
            )
            before = before if step.control or step.value is None else step.value
        _finish(axes, steps, unit)
        svg = to_svg(drawing)
    lead = f"{title.capitalize()} from {quantity(first, unit)} to {quantity(before, unit)}. "
    return Figure(svg, lead + " ".join(sentences), caption)


def _text(step: Step, start: float, is_first: bool, unit: str) -> str:
    if step.value is None:
        return measured(None, unit)
    gained = "" if is_first else f", × {step.value / start:.3g}"
    return f"{quantity(_rounded(step.value), unit)}{gained}"


def _rounded(value: float) -> float:
    """To three digits: the scale has room for no more."""
    return float(f"{value:.3g}")


def _draw(axes: Axes, position: int, step: Step, start: float, is_first: bool) -> None:
    if step.value is None:
        return
    if is_first or step.control:
        axes.plot(
            [step.value], [position], marker="o", ms=7, color=ORANGE if step.control else BLUE
        )
    else:
        low, high = sorted((start, step.value))
        colour = GREEN if step.value >= start else VERMILION
        axes.barh(position, high - low, left=low, height=_BAR, color=colour, alpha=0.75)
        axes.plot(
            [step.value] * 2, [position - _BAR / 2, position + _BAR / 2], color=colour, lw=2.4
        )
    for end in (step.low, step.high):
        if end is not None:
            axes.plot([step.value, end], [position] * 2, color=INK, lw=1.2)
            axes.plot([end], [position], color=INK, marker="|", ms=7, mew=1.2)


def _finish(axes: Axes, steps: Sequence[Step], unit: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    ends = [end for step in steps for end in (step.value, step.low, step.high) if end]
    axes.set_xlim(min(ends) / 1.4, max(ends) * 1.4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    label_rows(axes, [step.name for step in steps])
    axes.set_xlabel(f"{unit} (logarithmic)")
