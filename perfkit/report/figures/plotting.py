"""The parts that every picture of a report is drawn with: canvas, style, labels, intervals.

Kept apart from the pictures so that all of them agree on how an interval, a row and an unknown
value look, and so that the style can change in one place. Colours are those of Okabe and Ito,
"Color Universal Design" (2008), which most colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from perfkit.evidence.text import quantity
from perfkit.report.figures.svg import INK, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", VERMILION)
#: Values further apart than this are drawn on a logarithmic axis.
LOG_FROM_RATIO = 30.0
_WIDTH_INCHES = 7.0
_ROW_INCHES = 0.34


class WithInterval(Protocol):
    """A value and the ends of its interval, each None where unknown."""

    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


@contextmanager
def canvas(height_inches: float) -> Iterator[tuple[Any, Axes]]:
    """A matplotlib figure and its axes in the report's style; no pyplot, no global state left."""
    with stacked_canvas(height_inches, 1) as (drawing, (axes,)):
        yield drawing, axes


@contextmanager
def stacked_canvas(height_inches: float, rows: int) -> Iterator[tuple[Any, list[Axes]]]:
    """The same with so many axes below each other, which share the horizontal one."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Drawing

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "perfkit",
        "font.family": ["DejaVu Sans"],
        "font.size": 9.5,
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": QUIET,
        "axes.labelcolor": INK,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.linewidth": 0.8,
    }
    with mpl.rc_context(style):
        drawing = Drawing(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        stack = list(drawing.subplots(rows, sharex=True, squeeze=False)[:, 0])
        for axes in stack:
            axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.8)
        yield drawing, stack


def whisker(axes: Axes, position: int, row: WithInterval, left: float) -> None:
    """The interval as a line with caps; a side that is not known is not drawn."""
    if row.value is None or (row.low is None and row.high is None):
        return
    for end in (row.low, row.high):
        if end is not None:
            axes.plot([left + row.value, left + end], [position] * 2, color=INK, lw=1.2)
            axes.plot([left + end], [position], color=INK, marker="|", ms=7, mew=1.2)


def label(axes: Axes, x: float, position: int, text: str, quiet: bool) -> None:
    """Words right of a value, in a quieter ink where they only say that it is unknown."""
    axes.annotate(
        text,
        (x, position),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=QUIET if quiet else INK,
        annotation_clip=False,
    )


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Labels the rows from top to bottom and leaves only what separates them."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def scale_x(axes: Axes, values: Sequence[float]) -> bool:
    """A logarithmic x axis where values are far apart and all positive; returns whether."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    positive = [value for value in values if value > 0]
    if len(positive) < max(2, len(values)) or max(positive) / min(positive) < LOG_FROM_RATIO:
        return False
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return True


def limit_x(axes: Axes, values: Sequence[float], logarithmic: bool) -> None:
    """An axis that holds all values, from 0 where it is linear."""
    if logarithmic:
        axes.set_xlim(min(values) / 1.6, max(values) * 1.6)
    else:
        axes.set_xlim(min([0.0, *values]), max([0.0, *values]) * 1.06 or 1.0)


def with_room(end: float) -> float:
    """An axis that ends far enough right of `end` for a label."""
    return end * 1.42 if end > 0 else 1.0


def colors(count: int) -> list[str]:
    """One colour per series; after the sixth they start again."""
    return [PALETTE[number % len(PALETTE)] for number in range(count)]


def height_of(rows: Sequence[object]) -> float:
    """Inches for a chart with one line per row."""
    return 0.8 + _ROW_INCHES * len(rows)
