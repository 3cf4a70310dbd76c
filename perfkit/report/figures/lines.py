"""The lines of a timeline, alone or in panels: long ones thinned out, unknown values as gaps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perfkit.evidence.text import UNKNOWN, quantity
from perfkit.report.figures.plotting import colors
from perfkit.report.figures.svg import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A line of more points is thinned: thousands are slow to draw and large to keep.
LINE_POINTS_MAX = 480
#: Points of a line of at most so many are marked.
MARKED_POINTS_MAX = 40


def draw_lines(
    axes: Axes,
    series: Mapping[str, Sequence[tuple[float, float | None]]],
    unit: str,
    *,
    from_zero: bool,
) -> list[str]:
    """Draws the lines of a timeline and returns the sentence that describes each."""
    sentences = []
    for color, (name, points) in zip(colors(len(series)), series.items(), strict=True):
        known = [value for _, value in points if value is not None]
        drawn = _thinned(points)
        values = [math.nan if value is None else value for _, value in drawn]
        marker = "o" if len(drawn) <= MARKED_POINTS_MAX else None
        style: Any = {"color": color, "lw": 1.4, "marker": marker, "ms": 4}
        label = name if known else f"{name}: {UNKNOWN}"
        axes.plot([at for at, _ in drawn], values, label=label, **style)
        sentences.append(_timeline_sentence(name, known, len(points) - len(known), unit))
    axes.margins(x=0.01)
    if from_zero:
        axes.set_ylim(bottom=0)
    if len(series) > 1:
        axes.legend(loc="best", frameon=False, labelcolor=INK)
    return sentences


def _thinned(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """At most LINE_POINTS_MAX of the points: each stretch's extremes, and a gap if it has one."""
    if len(points) <= LINE_POINTS_MAX:
        return list(points)
    length = math.ceil(len(points) / (LINE_POINTS_MAX // 3))
    kept: list[tuple[float, float | None]] = []
    for start in range(0, len(points), length):
        known: list[tuple[float, int]] = []
        gaps: list[int] = []
        for place, (_, value) in enumerate(points[start : start + length], start):
            if value is None:
                gaps.append(place)
            else:
                known.append((value, place))
        places = {min(known)[1], max(known)[1]} if known else set()
        kept += [points[place] for place in sorted(places | set(gaps[:1]))]
    return kept


def _timeline_sentence(name: str, known: Sequence[float], gaps: int, unit: str) -> str:
    if not known:
        return f"{name}: {UNKNOWN}."
    lost = f", {gaps} unknown" if gaps else ""
    return f"{name}: {quantity(min(known))} to {quantity(max(known), unit)}{lost}."
