"""Draws results, and only results: every picture comes from figures that were measured and saved.

Each function takes plain sequences, so that no picture depends on how a figure was obtained, and
returns a Figure that a notebook shows by naming it. A picture carries its own description in
words, made from the same figures, for readers who can't see it. What is unknown is a gap that says
so, never a zero; every value that has an interval shows it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit.evidence.text import UNKNOWN, measured, quantity
from perfkit.report.figures.lines import draw_lines
from perfkit.report.figures.plotting import (
    BLUE,
    ORANGE,
    PALETTE,
    canvas,
    colors,
    height_of,
    label,
    label_rows,
    limit_x,
    scale_x,
    whisker,
    with_room,
)
from perfkit.report.figures.svg import INK, QUIET, as_file, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A distribution is drawn through this many of its quantiles.
QUANTILES = 250
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture as inline SVG, its description in words, and a caption below it.

    `alt` says what the picture shows, with its figures; `caption` may be empty.
    """

    svg: str
    alt: str
    caption: str = ""

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return (
            f'<figure role="img" aria-label="{html.escape(self.alt)}">{self.svg}{caption}</figure>'
        )

    def save(self, path: Path | str) -> Path:
        """Write the picture alone as an SVG file and return its path."""
        target = Path(path)
        target.write_text(as_file(self.svg), encoding="utf-8")
        return target


@dataclass(frozen=True, slots=True)
class Bar:
    """One measured value beside its claim; None is unknown (`claim` None: nothing was claimed)."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    claim: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a sequence and how long it takes; None is unknown."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


def latency_distribution(
    samples: Mapping[str, Sequence[float | None]] | Sequence[float | None],
    unit: str = "ms",
    *,
    title: str = "latency",
    caption: str = "",
) -> Figure:
    """The share of samples at or below each latency, with p50, p95 and p99 marked.

    `samples` in `unit` are one series or several by name. A None among them (a reply that never
    came) counts as slower than all others, so it keeps its curve below 1. Percentiles are linear
    interpolations (definition 7 of Hyndman and Fan, 1996); one that falls among the Nones is
    unknown. Raises ValueError when there is no series.
    """
    series = dict(samples) if isinstance(samples, Mapping) else {title: samples}
    if not series:
        raise ValueError("a latency distribution needs at least one series of samples")
    sentences = []
    known = [value for values in series.values() for value in values if value is not None]
    with canvas(3.0) as (drawing, axes):
        for color, (name, values) in zip(colors(len(series)), series.items(), strict=True):
            sentences.append(_draw_distribution(axes, name, values, unit, color, len(series) == 1))
        axes.set_ylim(0, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.set_ylabel("share of samples")
        axes.set_xlabel(f"{title} ({unit})")
        scale_x(axes, known)
        if len(series) > 1:
            axes.legend(loc="lower right", frameon=False, labelcolor=INK)
        svg = to_svg(drawing)
    return Figure(svg, f"Distribution of {title}. " + " ".join(sentences), caption)


def waterfall(
    stages: Sequence[Stage | tuple[str, float | None, float | None, float | None]],
    unit: str = "µs",
    *,
    title: str = "time of one task",
    caption: str = "",
) -> Figure:
    """Where the time goes: each stage begins where the known ones before it end.

    A stage is a Stage or (name, value, low, high) in `unit`. An unknown stage takes no room and
    says `unknown`. Raises ValueError when there are no stages.
    """
    rows = [stage if isinstance(stage, Stage) else Stage(*stage) for stage in stages]
    _require(rows, "a waterfall needs at least one stage")
    end, sentences = 0.0, []
    with canvas(height_of(rows)) as (drawing, axes):
        for position, stage in enumerate(rows):
            text = measured(stage.value, unit, stage.low, stage.high)
            sentences.append(f"{stage.name}: {text}.")
            color = PALETTE[position % len(PALETTE)]
            if stage.value is not None:
                axes.barh(position, stage.value, left=end, height=0.62, color=color)
                whisker(axes, position, stage, end)
            start, end = end, end + (stage.value or 0.0)
            right = end if stage.value is not None else start
            reach = max(right, start + (stage.high or 0.0)) if stage.value is not None else right
            label(axes, reach, position, text, stage.value is None)
        label_rows(axes, [stage.name for stage in rows])
        axes.set_xlabel(f"{title} ({unit})")
        axes.set_xlim(0, with_room(end))
        svg = to_svg(drawing)
    total = quantity(end, unit)
    lead = f"Waterfall of {title}, {total} in all known stages. "
    return Figure(svg, lead + " ".join(sentences), caption)


def bars_with_intervals(
    rows: Sequence[Bar | tuple[Any, ...]],
    unit: str,
    *,
    claim: str = "claimed",
    title: str = "measured",
    caption: str = "",
) -> Figure:
    """Measured values with their intervals, each beside what was claimed for it.

    A row is a Bar or (label, value, low, high, claim), later parts optional, in `unit`. A claim is
    a hollow diamond; `claim` and `title` name the two in the legend. An unknown value is a gap that
    says `unknown`. Where values are more than LOG_FROM_RATIO apart the axis is logarithmic and
    values are points, since a bar's length would mean nothing. Raises ValueError without rows.
    """
    bars = [row if isinstance(row, Bar) else Bar(*row) for row in rows]
    _require(bars, "a chart of bars needs at least one row")
    parts = [(bar.value, bar.low, bar.high, bar.claim) for bar in bars]
    known = [value for row in parts for value in row if value is not None]
    sentences = []
    with canvas(height_of(bars) + 0.25) as (drawing, axes):
        logarithmic = scale_x(axes, known)
        for position, bar in enumerate(bars):
            text = measured(bar.value, unit, bar.low, bar.high)
            said = "" if bar.claim is None else f", {claim} {quantity(bar.claim, unit)}"
            sentences.append(f"{bar.label}: {text}{said}.")
            _draw_bar(axes, position, bar, logarithmic)
            # Beside a claim's diamond the text would read as the claim's, so it has a column.
            axes.text(
                1.02,
                position,
                text,
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=8.5,
                color=QUIET if bar.value is None else INK,
            )
        label_rows(axes, [bar.label for bar in bars])
        limit_x(axes, known, logarithmic)
        axes.set_xlabel(unit + (" (logarithmic)" if logarithmic else ""))
        if any(bar.claim is not None for bar in bars):
            _legend(axes, title, claim)
        svg = to_svg(drawing)
    return Figure(svg, f"{title.capitalize()} values. " + " ".join(sentences), caption)


def timeline(
    series: Mapping[str, Sequence[tuple[float, float | None]]],
    unit: str,
    *,
    title: str = "over time",
    caption: str = "",
    from_zero: bool = False,
) -> Figure:
    """Values over time, one line per series of (seconds, value); an unknown value is a gap.

    A series of few points shows each of them. `from_zero` shows a spread in proportion.

    A series of more than LINE_POINTS_MAX points is drawn through the smallest and the largest
    value of short stretches, so that no peak and no gap is lost. Raises ValueError when there is
    no series.
    """
    _require(list(series), "a timeline needs at least one series")
    with canvas(2.8) as (drawing, axes):
        sentences = draw_lines(axes, series, unit, from_zero=from_zero)
        axes.set_xlabel("seconds")
        axes.set_ylabel(unit)
        svg = to_svg(drawing)
    return Figure(svg, f"Timeline, {title}. " + " ".join(sentences), caption)


def hot_spots(
    rows: Sequence[Bar | tuple[Any, ...]],
    unit: str = "s",
    *,
    top: int = 10,
    title: str = "own time",
    caption: str = "",
) -> Figure:
    """The `top` most expensive entries of a profile, largest first, on a scale from 0.

    A row is a Bar or (name, cost, low, high), the ends optional, in `unit`. Unknown costs come
    last and say so. Raises ValueError when there are no rows.
    """
    _require(rows, "a picture of hot spots needs at least one row")
    spots = [row if isinstance(row, Bar) else Bar(*row) for row in rows]
    spots.sort(key=lambda spot: -math.inf if spot.value is None else spot.value, reverse=True)
    shown = spots[:top]
    texts = [measured(spot.value, unit, spot.low, spot.high) for spot in shown]
    with canvas(height_of(shown)) as (drawing, axes):
        for position, (spot, text) in enumerate(zip(shown, texts, strict=True)):
            if spot.value is not None:
                axes.barh(position, spot.value, height=0.62, color=BLUE)
                whisker(axes, position, spot, 0.0)
            reach = max(spot.value or 0.0, spot.high or 0.0)
            label(axes, reach, position, text, spot.value is None)
        label_rows(axes, [_middle_cut(spot.label) for spot in shown])
        axes.set_xlabel(f"{title} ({unit})")
        axes.set_xlim(0, with_room(max(max(s.value or 0.0, s.high or 0.0) for s in shown)))
        svg = to_svg(drawing)
    sentences = (f"{spot.label}: {text}." for spot, text in zip(shown, texts, strict=True))
    left_out = len(rows) - len(shown)
    lead = f"The {len(shown)} most expensive by {title}"
    lead += f" of {len(rows)}. " if left_out else ". "
    return Figure(svg, lead + " ".join(sentences), caption)


def _draw_distribution(
    axes: Axes,
    name: str,
    values: Sequence[float | None],
    unit: str,
    color: str,
    alone: bool,
) -> str:
    """Draws one curve and its percentiles, and returns the sentence that describes it."""
    ordered = sorted(value for value in values if value is not None)
    if not ordered:
        axes.plot([], [], color=color, label=f"{name}: {UNKNOWN}")
        return f"{name}: {UNKNOWN}."
    count, missing = len(values), len(values) - len(ordered)
    step = max(1.0, (len(ordered) - 1) / QUANTILES)
    steps = math.ceil((len(ordered) - 1) / step)
    ranks = sorted({min(round(number * step), len(ordered) - 1) for number in range(steps + 1)})
    shares = [(rank + 1) / count for rank in ranks]
    axes.plot([ordered[rank] for rank in ranks], shares, color=color, label=name, lw=1.8)
    found = {q: _percentile(ordered, count, q) for q in PERCENTILES}
    for q, value in found.items():
        if value is None:
            continue
        axes.plot([value], [q / 100], marker="o", ms=4.5, color=color)
        if alone:
            axes.axvline(value, color=QUIET, lw=0.8, ls=(0, (4, 3)))
            axes.annotate(
                f"p{q} {quantity(value, unit)}",
                (value, q / 100),
                xytext=(6, {50: -3, 95: -14, 99: 5}[q]),
                textcoords="offset points",
            )
    parts = ", ".join(f"p{q} {quantity(value, unit)}" for q, value in found.items())
    lost = f", {missing:,} of them without a reply" if missing else ""
    return f"{name}, {count:,} samples{lost}: {parts}."


def _percentile(ordered: Sequence[float], count: int, q: float) -> float | None:
    """The q-th percentile of `count` samples whose known ones are `ordered`, the rest beyond."""
    position = (count - 1) * q / 100
    below, above = math.floor(position), math.ceil(position)
    if above >= len(ordered):
        return None
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _draw_bar(axes: Axes, position: int, bar: Bar, logarithmic: bool) -> None:
    if bar.value is not None:
        if logarithmic:
            axes.plot([bar.value], [position], marker="o", ms=7, color=BLUE)
        else:
            axes.barh(position, bar.value, height=0.56, color=BLUE)
        whisker(axes, position, bar, 0.0)
    if bar.claim is not None:
        axes.plot([bar.claim], [position], marker="D", ms=7, mfc="none", mec=ORANGE, mew=1.8)


def _legend(axes: Axes, title: str, claim: str) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="s", ls="", color=BLUE, label=title),
        Line2D([], [], marker="D", ls="", mfc="none", mec=ORANGE, mew=1.8, label=claim),
    ]
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        labelcolor=INK,
    )


def _middle_cut(name: str, longest: int = 44) -> str:
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def _require(rows: Sequence[object], message: str) -> None:
    if not rows:
        raise ValueError(message)
