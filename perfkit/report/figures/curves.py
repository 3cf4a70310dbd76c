"""Draws curves: one figure over another, with bands for intervals and gaps for unknown values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.vocabulary.printable import count_of
from perfkit.evidence.text import UNKNOWN, quantity
from perfkit.report.figures.charts import Figure
from perfkit.report.figures.plotting import PALETTE, QUIET, canvas, to_svg

Column = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of a curve, unknown ones None; `low` and `high` bound `y` where they are given.

    A curve that was not measured `is_dashed`: an ideal, or a simulation.
    """

    label: str
    x: Column
    y: Column
    low: Column = ()
    high: Column = ()
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, in `unit`; `ticks` are places with their texts."""

    label: str
    unit: str = ""
    is_logarithmic: bool = False
    ticks: Mapping[float, str] | None = None

    @property
    def text(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def curves(
    rows: Sequence[Curve],
    x: Axis,
    y: Axis,
    *,
    title: str,
    marks: Mapping[str, float | None] | None = None,
    caption: str = "",
) -> Figure:
    """Every curve on the same axes; `marks` are places on the x axis by name, drawn as lines.

    Raises ValueError without a curve.
    """
    if not rows:
        raise ValueError("a picture of curves needs at least one")
    with canvas(3.2) as (drawing, axes):
        for number, row in enumerate(rows):
            color = PALETTE[number % len(PALETTE)]
            axes.plot(
                _known(row.x),
                _known(row.y),
                label=row.label,
                color=color,
                lw=1.5,
                ls="--" if row.is_dashed else "-",
                marker=None if row.is_dashed or len(row.x) > 24 else "o",
                ms=4,
            )
            if row.low and row.high:
                axes.fill_between(
                    _known(row.x), _known(row.low), _known(row.high), color=color, alpha=0.18, lw=0
                )
        for name, place in (marks or {}).items():
            if place is not None:
                axes.axvline(place, color=QUIET, lw=0.9, ls=(0, (4, 3)))
                axes.annotate(
                    name, (place, 1), xycoords=("data", "axes fraction"), xytext=(3, -9),
                    textcoords="offset points",
                )  # fmt: skip
        _scale(axes.xaxis, axes.set_xscale, x)
        _scale(axes.yaxis, axes.set_yscale, y)
        axes.set_xlabel(x.text)
        axes.set_ylabel(y.text)
        if len(rows) > 1:
            axes.legend(loc="best")
        svg = to_svg(drawing)
    told = " ".join(_sentence(row, x, y) for row in rows)
    places = "".join(
        f" {name}: {quantity(place, x.unit)}." for name, place in (marks or {}).items()
    )
    return Figure(svg, f"Curves of {title}. {told}{places}", caption)


def _known(column: Column) -> list[float]:
    return [math.nan if value is None else value for value in column]


def _scale(axis: object, set_scale: object, wanted: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    if wanted.is_logarithmic:
        set_scale("log")  # type: ignore[operator]
        axis.set_minor_formatter(NullFormatter())  # type: ignore[attr-defined]
    if wanted.ticks is not None:
        axis.set_ticks([*wanted.ticks], [*wanted.ticks.values()])  # type: ignore[attr-defined]
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))  # type: ignore[attr-defined]


def _sentence(row: Curve, x: Axis, y: Axis) -> str:
    """The ends of a curve and how many of its points are unknown."""
    points = [(at, value) for at, value in zip(row.x, row.y, strict=True) if value is not None]
    if not points:
        return f"{row.label}: {UNKNOWN}."
    (first_x, first), (last_x, last) = points[0], points[-1]
    gaps = len(row.x) - len(points)
    lost = f", {count_of(gaps, 'point')} unknown" if gaps else ""
    named = x.ticks or {}
    ends = (named.get(at or 0.0, quantity(at, x.unit)) for at in (first_x, last_x))
    return (
        f"{row.label}: {quantity(first, y.unit)} at {next(ends)} to {quantity(last, y.unit)} at "
        f"{next(ends)}{lost}."
    )
