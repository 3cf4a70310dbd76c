"""Draws results, and only results: every picture comes from figures that were measured and saved.

Each function takes plain sequences, so no picture depends on how a figure was obtained, and returns
a Figure that a notebook shows by naming it. A picture carries its own description in words, made
from the same figures, for readers who can't see it. An unknown value is a gap that says so, never a
zero; every value that has an interval shows it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from cluster.vocabulary.printable import count_of
from perfkit.evidence.samples import percentile
from perfkit.evidence.text import Estimate, estimate, quantity
from perfkit.report.figures.plotting import (
    BAR,
    BLUE,
    ORANGE,
    PALETTE,
    QUIET,
    canvas,
    limit_x,
    middle_cut,
    row_canvas,
    scale_x,
    to_svg,
    whisker,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The class of an image that a page may put in line.
DRAWN = "perfkit-figure"
#: What makes an inline picture a file.
NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'
COLOURS = (
    "<style>:root{color:#1c2024;background:#fdfdfc;font-family:system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){:root{color:#e4e7e9;background:#15181b}}</style>"
)
#: What stays as it is in a data address.
PLAIN = " !$'()*+,-./:;=?@[]^_{|}~"
#: A distribution is drawn through this many of its quantiles.
QUANTILES = 250
#: The title of bars that say no more than that.
MEASURED = "measured"
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture as inline SVG, its description in words, and a caption below it.

    `alt` says what the picture shows, with its figures; `caption` may be empty.
    """

    svg: str
    alt: str
    caption: str = ""

    @property
    def file(self) -> str:
        """The picture as an SVG file, with colours of its own for a light and a dark screen."""
        return self.svg.replace("<svg", f"<svg{NAMESPACE}", 1).replace(">", f">{COLOURS}", 1)

    def _repr_html_(self) -> str:
        # An untrusted notebook shows no inline SVG, but does show an image.
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        image = f'alt="{html.escape(self.alt)}" src="{address(self.file)}"'
        return f'<figure><img class="{DRAWN}" {image}>{caption}</figure>'

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {
            "image/svg+xml": self.file,
            "text/html": self._repr_html_(),
            "text/plain": f"{self.caption}\n{self.alt}".strip(),
        }


@dataclass(frozen=True, slots=True)
class Bar:
    """One measured value with its interval, and its claim if there is one; unknown is None."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    claim: float | None = None

    @classmethod
    def of(cls, label: str, figure: Estimate, claim: float | None = None) -> Bar:
        """The bar of anything that has a value and an interval."""
        return cls(label, figure.value, figure.low, figure.high, claim)


def address(file: str) -> str:
    """An SVG file as the address of an image, to be written between double quotes."""
    return f"data:image/svg+xml,{quote(file, safe=PLAIN)}"


def latency_distribution(
    samples: Sequence[float | None], unit: str = "ms", *, title: str = "latency", caption: str = ""
) -> Figure:
    """The share of samples, in `unit`, at or below each latency; p50, p95 and p99 are marked.

    A None (a reply that never came) counts as slower than all others, so it keeps the curve below
    1. Percentiles are those of `perfkit.evidence.samples`; one that falls among the Nones is
    unknown. Raises ValueError without samples.
    """
    _require(samples, "a latency distribution needs at least one sample")
    known = sorted(value for value in samples if value is not None)
    found = {q: _percentile(known, len(samples), q) for q in PERCENTILES}
    with canvas(3.0) as (drawing, axes):
        step = max(1.0, (len(known) - 1) / QUANTILES)
        ranks = sorted({min(round(n * step), len(known) - 1) for n in range(QUANTILES + 1)})
        drawn = ranks if known else []
        shares = [(rank + 1) / len(samples) for rank in drawn]
        axes.plot([known[rank] for rank in drawn], shares, color=BLUE, lw=1.8)
        for q, value in found.items():
            if value is not None:
                _mark_percentile(axes, q, value, unit)
        axes.set_ylim(0, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.set_ylabel("share of samples")
        axes.set_xlabel(f"{title} ({unit})")
        scale_x(axes, known)
        svg = to_svg(drawing)
    missing = len(samples) - len(known)
    lost = f", {quantity(missing)} of them without a reply" if missing else ""
    parts = ", ".join(f"p{q} {quantity(value, unit)}" for q, value in found.items())
    alt = f"Distribution of {title}, {count_of(len(samples), 'sample')}{lost}: {parts}."
    return Figure(svg, alt, captioned(title, caption))


def waterfall(
    stages: Sequence[Bar],
    unit: str = "µs",
    *,
    title: str = "time of one task",
    caption: str = "",
) -> Figure:
    """Where the time goes: each stage begins where the known ones before it end.

    An unknown stage takes no room and says `unknown`. Raises ValueError without stages.
    """
    _require(stages, "a waterfall needs at least one stage")
    texts, end = [estimate(stage, unit) for stage in stages], 0.0
    with row_canvas([stage.label for stage in stages], texts) as (drawing, axes):
        for position, stage in enumerate(stages):
            if stage.value is not None:
                color = PALETTE[position % len(PALETTE)]
                axes.barh(position, stage.value, left=end, height=BAR, color=color)
                whisker(axes, position, stage.value, (stage.low, stage.high), end)
                end += stage.value
        axes.set_xlabel(f"{title} ({unit})")
        axes.set_xlim(left=0)
        svg = to_svg(drawing)
    lead = f"Waterfall of {title}, {quantity(end, unit)} in all known stages."
    return Figure(svg, f"{lead} {_sentences(stages, texts)}", captioned(title, caption))


def bars_with_intervals(
    bars: Sequence[Bar],
    unit: str,
    *,
    claim: str = "claimed",
    title: str = MEASURED,
    caption: str = "",
) -> Figure:
    """Measured values in `unit` with their intervals, each beside its claim.

    A claim is a hollow diamond; `claim` and `title` name the two in the legend. An unknown value is
    a gap that says `unknown`. Where values are more than LOG_FROM_RATIO apart the axis is
    logarithmic and values are points, since a bar's length would mean nothing. Raises ValueError
    without bars.
    """
    _require(bars, "a chart of bars needs at least one row")
    parts = [(bar.value, bar.low, bar.high, bar.claim) for bar in bars]
    known = [value for row in parts for value in row if value is not None]
    texts = [estimate(bar, unit) for bar in bars]
    with row_canvas([bar.label for bar in bars], texts) as (drawing, axes):
        logarithmic = scale_x(axes, known)
        _draw_bars(axes, bars, logarithmic)
        limit_x(axes, known, logarithmic)
        axes.set_xlabel(unit + (" (logarithmic)" if logarithmic else ""))
        if any(bar.claim is not None for bar in bars):
            _legend(axes, title, claim)
        svg = to_svg(drawing)
    told = [
        text if bar.claim is None else f"{text}, {claim} {quantity(bar.claim, unit)}"
        for bar, text in zip(bars, texts, strict=True)
    ]
    alt = f"{sentence_case(title)} values. {_sentences(bars, told)}"
    return Figure(svg, alt, captioned(title, caption))


def hot_spots(
    rows: Sequence[Bar],
    unit: str = "s",
    *,
    top: int = 10,
    title: str = "own time",
    caption: str = "",
) -> Figure:
    """The `top` most expensive entries of a profile, largest first, on a scale from 0.

    Unknown costs come last and say so. Raises ValueError without rows.
    """
    _require(rows, "a picture of hot spots needs at least one row")
    costs = [-math.inf if row.value is None else row.value for row in rows]
    order = sorted(range(len(rows)), key=costs.__getitem__, reverse=True)
    shown = [rows[place] for place in order[:top]]
    texts = [estimate(spot, unit) for spot in shown]
    with row_canvas([middle_cut(spot.label, 44) for spot in shown], texts) as (drawing, axes):
        _draw_bars(axes, shown, logarithmic=False)
        axes.set_xlabel(f"{title} ({unit})")
        axes.set_xlim(left=0)
        svg = to_svg(drawing)
    lead = f"The {len(shown)} most expensive by {title}"
    lead += f" of {len(rows)}." if len(rows) > len(shown) else "."
    return Figure(svg, f"{lead} {_sentences(shown, texts)}", captioned(title, caption))


def _sentences(bars: Sequence[Bar], texts: Sequence[str]) -> str:
    return " ".join(f"{bar.label}: {text}." for bar, text in zip(bars, texts, strict=True))


def _percentile(known: Sequence[float], count: int, q: float) -> float | None:
    """The q-th percentile of `count` samples, of which all but `known` are slower than these."""
    if math.ceil((count - 1) * q / 100) >= len(known):
        return None
    return percentile([*known, *[known[-1]] * (count - len(known))], q)


def _mark_percentile(axes: Axes, q: int, value: float, unit: str) -> None:
    axes.plot([value], [q / 100], marker="o", ms=4.5, color=BLUE)
    axes.axvline(value, color=QUIET, lw=0.8, ls=(0, (4, 3)))
    axes.annotate(
        f"p{q} {quantity(value, unit)}",
        (value, q / 100),
        xytext=(6, {50: -3, 95: -14, 99: 5}[q]),
        textcoords="offset points",
    )


def _draw_bars(axes: Axes, bars: Sequence[Bar], logarithmic: bool) -> None:
    for position, bar in enumerate(bars):
        if bar.value is not None:
            if logarithmic:
                axes.plot([bar.value], [position], marker="o", ms=7, color=BLUE)
            else:
                axes.barh(position, bar.value, height=BAR, color=BLUE)
            whisker(axes, position, bar.value, (bar.low, bar.high))
        if bar.claim is not None:
            axes.plot([bar.claim], [position], marker="D", ms=7, mfc="none", mec=ORANGE, mew=1.8)


def _legend(axes: Axes, title: str, claim: str) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="s", ls="", color=BLUE, label=title),
        Line2D([], [], marker="D", ls="", mfc="none", mec=ORANGE, mew=1.8, label=claim),
    ]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


def captioned(title: str, caption: str) -> str:
    """A caption that opens with the picture's title, so that no two pictures have the same."""
    if not caption or title == MEASURED or title.lower() in caption.lower():
        return caption
    return f"{sentence_case(title)}. {caption}"


def sentence_case(text: str) -> str:
    """`text` with a capital at its beginning; the rest stays: RSS is no Rss."""
    return text[:1].upper() + text[1:]


def _require(rows: Sequence[object], message: str) -> None:
    if not rows:
        raise ValueError(message)
