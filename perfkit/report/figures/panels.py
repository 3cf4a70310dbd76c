"""Timelines of one or several units below each other on one time axis, to see what moved together.

Long lines are thinned out, and unknown values are gaps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfkit.evidence.text import UNKNOWN, quantity
from perfkit.report.figures.charts import Figure, captioned
from perfkit.report.figures.plotting import PALETTE, stacked_canvas, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_INCHES, _LONE_PANEL_INCHES = 1.35, 2.3
#: How many characters a line of the legend has, and what a line's key takes of them.
_LEGEND_CHARACTERS, _KEY_CHARACTERS = 60, 6
#: A line of more points is thinned: thousands are slow to draw and large to keep.
LINE_POINTS_MAX = 480
#: A line of at most this many points has each of them marked.
MARKED_POINTS_MAX = 40

Points = Sequence[tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines of (seconds, value) by name, in `unit`; None is a gap. `name` is the quantity."""

    name: str
    unit: str
    series: Mapping[str, Points]


def panels(rows: Sequence[Panel], *, title: str, caption: str = "") -> Figure:
    """Each panel's lines from zero up, all over the same seconds.

    A line of more than LINE_POINTS_MAX points is drawn through the smallest and the largest value
    of short stretches, so no peak and no gap is lost. Raises ValueError when there is no panel, or
    one without a series.
    """
    if not rows or not all(row.series for row in rows):
        raise ValueError("a picture of panels needs at least one, and a series in each")
    from matplotlib.ticker import FuncFormatter

    sentences = []
    inches = _PANEL_INCHES * len(rows) if len(rows) > 1 else _LONE_PANEL_INCHES
    with stacked_canvas(0.5 + inches, len(rows)) as (drawing, stack):
        for axes, row in zip(stack, rows, strict=True):
            sentences.append(f"{row.name}. {' '.join(_draw_lines(axes, row))}")
            axes.set_ylabel(f"{row.name}\n({row.unit})")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
            if all(value is None for points in row.series.values() for _, value in points):
                axes.set_yticks([])
                axes.text(0.5, 0.5, UNKNOWN, transform=axes.transAxes, ha="center")
        stack[-1].set_xlabel("seconds")
        drawing.align_ylabels(stack)
        svg = to_svg(drawing)
    return Figure(svg, f"Timelines, {title}. " + " ".join(sentences), captioned(title, caption))


def _draw_lines(axes: Axes, panel: Panel) -> list[str]:
    """Draws the lines of a panel and returns the sentence that describes each."""
    sentences = []
    for number, (name, points) in enumerate(panel.series.items()):
        known = [value for _, value in points if value is not None]
        drawn = _thinned(points)
        axes.plot(
            [at for at, _ in drawn],
            [math.nan if value is None else value for _, value in drawn],
            label=name if known else f"{name}: {UNKNOWN}",
            color=PALETTE[number % len(PALETTE)],
            lw=1.4,
            marker="o" if len(drawn) <= MARKED_POINTS_MAX else None,
            ms=4,
        )
        gaps = len(points) - len(known)
        lost = f", {quantity(gaps)} unknown" if gaps else ""
        told = (
            f"{quantity(min(known))} to {quantity(max(known), panel.unit)}{lost}" if known else ""
        )
        sentences.append(f"{name}: {told or UNKNOWN}.")
    axes.margins(x=0.01)
    axes.set_ylim(bottom=0)
    if len(panel.series) > 1:
        # Above the lines: a low panel has no room beside them.
        fit = max(1, _LEGEND_CHARACTERS // (max(map(len, panel.series)) + _KEY_CHARACTERS))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(fit, len(panel.series)),
                    borderaxespad=0)  # fmt: skip
    return sentences


def _thinned(points: Points) -> Points:
    """At most LINE_POINTS_MAX of the points: each stretch's extremes, and a gap if it has one."""
    if len(points) <= LINE_POINTS_MAX:
        return points
    length = math.ceil(len(points) / (LINE_POINTS_MAX // 3))
    kept: list[tuple[float, float | None]] = []
    for start in range(0, len(points), length):
        stretch = points[start : start + length]
        known = [(value, place) for place, (_, value) in enumerate(stretch) if value is not None]
        gaps = [place for place, (_, value) in enumerate(stretch) if value is None]
        places = {min(known)[1], max(known)[1]} if known else set()
        kept += [stretch[place] for place in sorted(places | set(gaps[:1]))]
    return kept
