"""Draws figures of different units before and after, each as a multiple of its target.

A multiple is turned so that more is better in every row: of a latency it is the target over the
figure. One line, at 1, is then the target of all rows, and right of it is where a figure belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perfkit.evidence.samples import Interval
from perfkit.evidence.text import quantity
from perfkit.evidence.verdicts import Direction
from perfkit.report.figures.charts import Figure
from perfkit.report.figures.plotting import BLUE, ORANGE, QUIET, log_x, row_canvas, to_svg, whisker


@dataclass(frozen=True, slots=True)
class Change:
    """A figure in `unit` before and after, and its target; `outcome` is said after both."""

    label: str
    unit: str
    better: Direction
    goal: float
    before: Interval
    after: Interval
    outcome: str = ""

    @property
    def text(self) -> str:
        """The figure before and after, and the outcome."""
        both = " → ".join(quantity(end.value, self.unit) for end in (self.before, self.after))
        return f"{both}, {self.outcome}" if self.outcome else both

    def multiple(self, figure: Interval) -> Interval:
        """A figure over its target, or the other way round if less is better; unknown at 0."""
        value, low, high = (
            None if end is None or end <= 0 else end / self.goal
            for end in (figure.value, figure.low, figure.high)
        )
        if self.better == "lower":
            value, low, high = (None if end is None else 1 / end for end in (value, high, low))
        return Interval(value, low, high, figure.confidence, figure.method)


def before_after(
    rows: Sequence[Change], *, names: tuple[str, str] = ("before", "after"), caption: str = ""
) -> Figure:
    """A row for each figure: hollow before, filled after, on a logarithmic scale of multiples.

    An unknown figure is left out of its row, whose text says so. Raises ValueError without rows,
    and for a target that is not above 0.
    """
    if not rows or any(row.goal <= 0 for row in rows):
        raise ValueError("a picture of before and after needs rows with targets above 0")
    from matplotlib.lines import Line2D

    texts = [row.text for row in rows]
    ends = [1.0]
    with row_canvas([row.label for row in rows], texts) as (drawing, axes):
        log_x(axes)
        axes.axvline(1.0, color=QUIET, lw=1.0, ls=(0, (4, 3)))
        for position, row in enumerate(rows):
            before, after = row.multiple(row.before), row.multiple(row.after)
            if before.value is not None and after.value is not None:
                axes.plot([before.value, after.value], [position] * 2, color=QUIET, lw=1.0)
            for figure, color, fill in ((before, ORANGE, "none"), (after, BLUE, BLUE)):
                if figure.value is None:
                    continue
                whisker(axes, position, figure.value, (figure.low, figure.high))
                axes.plot(
                    [figure.value], [position], marker="o", ms=7, mfc=fill, mec=color, mew=1.8
                )
                ends += [end for end in (figure.value, figure.low, figure.high) if end is not None]
        axes.set_xlim(min(ends) / 1.6, max(ends) * 1.6)
        axes.set_xlabel("× the target, better to the right (logarithmic)")
        handles = [
            Line2D([], [], marker="o", ls="", mfc=fill, mec=color, mew=1.8, label=name)
            for name, color, fill in zip(names, (ORANGE, BLUE), ("none", BLUE), strict=True)
        ]
        axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        svg = to_svg(drawing)
    told = " ".join(f"{row.label}: {text}." for row, text in zip(rows, texts, strict=True))
    return Figure(svg, f"{names[0]} and {names[1]}, beside the target of each. {told}", caption)
