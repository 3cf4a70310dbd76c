"""Several runs of the same stages on one scale, so that a reader can compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfkit.evidence.text import estimate, quantity
from perfkit.report.figures.charts import Bar, Figure
from perfkit.report.figures.plotting import BAR, PALETTE, row_canvas, to_svg, whisker


def side_by_side(
    rows: Mapping[str, Sequence[Bar]], whole: Mapping[str, Bar], unit: str, *, caption: str = ""
) -> Figure:
    """A row for each run, made of its stages, with the `whole` of the run at its right.

    Stages of one name have one colour; an unknown one takes no room. The interval is that of the
    whole, whose median need not be the sum of the stages' medians. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("stages side by side need at least one row")
    from matplotlib.patches import Patch

    names = list(dict.fromkeys(stage.label for stages in rows.values() for stage in stages))
    colors = {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}
    texts = [estimate(whole[label], unit) for label in rows]
    with row_canvas(list(rows), texts) as (drawing, axes):
        for position, (label, stages) in enumerate(rows.items()):
            end = 0.0
            for stage in stages:
                width = stage.value or 0.0
                axes.barh(position, width, left=end, height=BAR, color=colors[stage.label])
                end += width
            known = whole[label]
            if known.value is not None:
                whisker(axes, position, known.value, (known.low, known.high))
        axes.set_xlim(left=0)
        axes.set_xlabel(unit)
        handles = [Patch(color=color, label=name) for name, color in colors.items()]
        drawing.legend(handles=handles, loc="outside lower center", ncols=3)
        svg = to_svg(drawing)
    told = [
        f"{label}: {text}, of which "
        + ", ".join(f"{stage.label} {quantity(stage.value, unit)}" for stage in stages)
        + "."
        for (label, stages), text in zip(rows.items(), texts, strict=True)
    ]
    return Figure(svg, " ".join(told), caption)
