"""The parts that every picture of a report is drawn with: canvas, style, rows, intervals.

All pictures agree on how an interval, a row and an unknown value look, and the style can change in
one place. Colours are those of Okabe and Ito, "Color Universal Design" (2008), which most
colour-blind readers can tell apart.

matplotlib's own SVG names the schema's host, shares ids between pictures and is black on white. So
`to_svg` leaves the text to the page's font, takes the ink from the text around the picture, and
gives equal bytes for equal figures.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perfkit.evidence.text import UNKNOWN, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

#: Stand-ins for the page's own colours; no picture uses them for anything else.
INK = "#0a0b0c"
QUIET = "#0d0e0f"
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", VERMILION)
#: Values further apart than this are drawn on a logarithmic axis.
LOG_FROM_RATIO = 30.0
#: A phone shows a picture of this width at three quarters of its size: its text stays above 9 px.
_WIDTH_INCHES = 5.0
FONT_PT = 9.5
#: A row's bar, as a part of the row; inches of a row, and of each line of text above the bar.
BAR = 0.36
_ROW_INCHES, _LINE_INCHES = 0.27, 0.19
#: Characters of the usual text size that fit beside each other.
_LINE_CHARACTERS = 58


@contextmanager
def canvas(height_inches: float) -> Iterator[tuple[Any, Axes]]:
    """A matplotlib figure and its axes in the report's style; no pyplot, no global state left."""
    with stacked_canvas(height_inches, 1) as (drawing, (axes,)):
        yield drawing, axes


@contextmanager
def stacked_canvas(height_inches: float, rows: int) -> Iterator[tuple[Any, list[Axes]]]:
    """The same with `rows` axes below each other, which share the horizontal one."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Drawing

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "perfkit",
        "font.family": ["DejaVu Sans"],
        "font.size": FONT_PT,
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
        "legend.frameon": False,
        "legend.labelcolor": INK,
    }
    with mpl.rc_context(style):
        drawing = Drawing(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        stack = list(drawing.subplots(rows, sharex=True, squeeze=False)[:, 0])
        for axes in stack:
            axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.8)
        yield drawing, stack


@contextmanager
def row_canvas(labels: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[Any, Axes]]:
    """A canvas with a row for each value, from top to bottom: label and text, below them a bar.

    So both have the width of the picture: they are on one line where all fit, else on two. A row's
    bar is centred on its number and BAR high.
    """
    shown = [middle_cut(label, _LINE_CHARACTERS) for label in labels]
    fits = all(
        len(label) + len(text) < _LINE_CHARACTERS for label, text in zip(shown, texts, strict=True)
    )
    row = _ROW_INCHES + _LINE_INCHES * (1 if fits else 2)
    line = _LINE_INCHES / row
    with canvas(0.6 + row * len(labels)) as (drawing, axes):
        axes.set_yticks([])
        axes.set_ylim(len(labels) - 1 + BAR, -BAR / 2 - line * (1.2 if fits else 2.2))
        axes.spines["left"].set_visible(False)
        for position, (label, text) in enumerate(zip(shown, texts, strict=True)):
            first = position - BAR / 2 - line * 0.65
            style: Any = {"transform": axes.get_yaxis_transform(), "va": "center"}
            axes.text(0, first if fits else first - line, label, **style)
            axes.text(
                1 if fits else 0,
                first,
                text,
                ha="right" if fits else "left",
                color=QUIET if text == UNKNOWN else INK,
                **style,
            )
        yield drawing, axes


def middle_cut(text: str, longest: int) -> str:
    """The beginning and the end of a text that is longer than `longest` characters."""
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def whisker(
    axes: Axes,
    position: int,
    value: float,
    ends: tuple[float | None, float | None],
    left: float = 0.0,
) -> None:
    """The interval of a value as a line with caps; an unknown end is not drawn."""
    for end in ends:
        if end is not None:
            axes.plot([left + value, left + end], [position] * 2, color=INK, lw=1.2)
            axes.plot([left + end], [position], color=INK, marker="|", ms=7, mew=1.2)


def log_x(axes: Axes) -> None:
    """Makes the x axis logarithmic, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def scale_x(axes: Axes, values: Sequence[float]) -> bool:
    """A logarithmic x axis where values are far apart and all positive; returns whether."""
    positive = [value for value in values if value > 0]
    if len(positive) < max(2, len(values)) or max(positive) / min(positive) < LOG_FROM_RATIO:
        return False
    log_x(axes)
    return True


def limit_x(axes: Axes, values: Sequence[float], logarithmic: bool) -> None:
    """An axis that holds all values, from 0 where it is linear."""
    if logarithmic:
        axes.set_xlim(min(values) / 1.6, max(values) * 1.6)
    else:
        axes.set_xlim(min([0.0, *values]), max([0.0, *values]) * 1.06 or 1.0)


def to_svg(drawing: Drawing) -> str:
    """The drawing as one `<svg>` element without namespace, prologue, metadata or font names."""
    text = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    drawing.savefig(text, format="svg", metadata=no_metadata, transparent=True)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*</defs>", "", svg)
    svg = _with_own_ids(svg.replace("xlink:href=", "href="))
    svg = re.sub(r"\s*font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    # Nobody sees a hundredth of a point.
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = re.sub(r'<path d="[^"]*" style="fill: none"/>', "", svg)
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(rf"(fill|stroke): {QUIET}", r"\1: currentColor; \1-opacity: 0.65", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><")
    return _with_own_root(svg).strip()


def _with_own_root(svg: str) -> str:
    """The root element with its size as a view box only, so that the page can scale it."""
    end = svg.index(">")
    root, rest = svg[:end], svg[end:]
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', root)
    if box is None:
        raise ValueError("matplotlib wrote an SVG without a view box")
    width, height = box[1], box[2]
    return (
        f'<svg width="{width}pt" height="{height}pt" viewBox="0 0 {width} {height}" '
        'aria-hidden="true" '
        f'stroke-linejoin="round"{rest}'
    )


def _with_own_ids(svg: str) -> str:
    """Drops ids without a reference and gives the others a prefix made from the picture itself."""
    wanted = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    prefix = hashlib.sha256(svg.encode()).hexdigest()[:6]

    def renamed(match: re.Match[str]) -> str:
        return f' id="{prefix}{match[1]}"' if match[1] in wanted else ""

    svg = re.sub(r'\s+id="([^"]*)"', renamed, svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)
