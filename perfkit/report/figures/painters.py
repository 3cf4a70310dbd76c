"""Which picture each result has: what `.plot()` of any result returns.

A few kinds have a picture of their own. Another result is drawn as bars of the figures it names,
with their intervals; one without figures to compare, as its text.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import singledispatch
from textwrap import TextWrapper
from typing import cast

from cluster.vocabulary.printable import count_of
from perfkit.bench.calls.latency import LatencyReport
from perfkit.evidence.results import Result
from perfkit.evidence.showing import Showable
from perfkit.profile.cpu import CpuProfile
from perfkit.profile.flame import Flame
from perfkit.profile.latency import Waterfall
from perfkit.profile.watch import MEASURES, MemorySeries
from perfkit.report.figures.charts import (
    Bar,
    Figure,
    bars_with_intervals,
    latency_distribution,
    waterfall,
)
from perfkit.report.figures.flame import flame_graph
from perfkit.report.figures.icicle import icicle
from perfkit.report.figures.panels import Panel, panels

#: More bars than this are not read.
BARS_MAX = 20
LINE, CHARACTER = 17.0, 7.3
LINES_MAX, CHARACTERS_MAX = 60, 110
_wrapped = TextWrapper(
    CHARACTERS_MAX, subsequent_indent="  ", replace_whitespace=False, drop_whitespace=False
).wrap


@singledispatch
def picture(result: object) -> Figure:
    """The picture of a result; raises TypeError for anything else."""
    if not isinstance(result, Showable):
        raise TypeError(f"{type(result).__name__} is not a result, so it has no picture.")
    unit, figures = result._figures()
    if not figures:
        return text(result)
    bars = [Bar.of(name, figure) for name, figure in figures[:BARS_MAX]]
    return bars_with_intervals(bars, unit, caption=next(iter(result._sheets())).caption)


@picture.register
def _(result: CpuProfile) -> Figure:
    return icicle(result)


@picture.register
def _(result: Flame) -> Figure:
    return flame_graph(result)


@picture.register
def _(result: Waterfall) -> Figure:
    return waterfall([Bar.of(stage.stage, stage.p50_ms) for stage in result.stages], "ms")


@picture.register
def _(result: LatencyReport) -> Figure:
    unit, scale = result.unit
    title = f"time of one call of {result.name}"
    return latency_distribution([it * scale for it in result.samples_s], unit, title=title)


@picture.register
def _(result: MemorySeries) -> Figure:
    if not result.samples:
        return text(result)
    lines = {
        name.upper(): [
            (at_s, None if sample[place] is None else cast(int, sample[place]) / 2**20)
            for at_s, sample in zip(result.at_s, result.samples, strict=True)
        ]
        for place, name in enumerate(MEASURES)
    }
    return panels([Panel("memory", "MiB", lines)], title=f"memory of {result.role}")


@picture.register
def _(result: Result) -> Figure:
    if len(result.samples) < 2:
        return bars_with_intervals([Bar.of(result.experiment, result)], result.unit)
    return latency_distribution(result.samples, result.unit, title=result.experiment)


def text(result: Showable) -> Figure:
    """A result's text as a picture; long lines go on in the next, and long texts end early."""
    words = str(result)
    lines = [part for line in words.splitlines() for part in _wrapped(line) or [""]]
    if len(lines) > LINES_MAX:
        lines[LINES_MAX - 1 :] = [f"… and {count_of(len(lines) - LINES_MAX + 1, 'more line')}"]
    width = CHARACTER * max(map(len, lines), default=1)
    height = LINE * len(lines) + 6
    svg = ET.Element(
        "svg",
        {
            "aria-hidden": "true",
            "style": "font:12px monospace",
            "width": f"{width:g}",
            "height": f"{height:g}",
            "viewBox": f"0 0 {width:g} {height:g}",
        },
    )
    for row, line in enumerate(lines, 1):
        at = {"x": "0", "y": f"{row * LINE:g}", "fill": "currentColor", "xml:space": "preserve"}
        ET.SubElement(svg, "text", at).text = line
    return Figure(ET.tostring(svg, encoding="unicode"), words)
