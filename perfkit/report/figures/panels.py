"""Timelines of several units below each other on one time axis, to see what moved together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perfkit.evidence.text import UNKNOWN, quantity
from perfkit.report.figures.charts import Figure
from perfkit.report.figures.lines import draw_lines
from perfkit.report.figures.plotting import stacked_canvas
from perfkit.report.figures.svg import to_svg

_PANEL_INCHES = 1.35


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines of (seconds, value) by name, in `unit`; None is a gap. `name` says what is drawn."""

    name: str
    unit: str
    series: Mapping[str, Sequence[tuple[float, float | None]]]


def panels(rows: Sequence[Panel], *, title: str, caption: str = "") -> Figure:
    """Each panel's lines from zero up, all over the same seconds.

    Raises ValueError when there is no panel, or one without a series.
    """
    if not rows or not all(row.series for row in rows):
        raise ValueError("a picture of panels needs at least one, and a series in each")
    from matplotlib.ticker import FuncFormatter

    sentences = []
    with stacked_canvas(0.5 + _PANEL_INCHES * len(rows), len(rows)) as (drawing, stack):
        for axes, row in zip(stack, rows, strict=True):
            found = draw_lines(axes, row.series, row.unit, from_zero=True)
            sentences.append(f"{row.name}. {' '.join(found)}")
            axes.set_ylabel(f"{row.name}\n({row.unit})")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
            if all(value is None for points in row.series.values() for _, value in points):
                axes.set_yticks([])
                axes.text(0.5, 0.5, UNKNOWN, transform=axes.transAxes, ha="center")
        stack[-1].set_xlabel("seconds")
        drawing.align_ylabels(stack)
        svg = to_svg(drawing)
    return Figure(svg, f"Timelines, {title}. " + " ".join(sentences), caption)
