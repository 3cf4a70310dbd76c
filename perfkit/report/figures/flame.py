"""Draws a flame graph as inline SVG: width is samples, a frame stands below the one that called it.

Profilers write flame graphs as pages of their own with scripts in them; a report has to open
without either. So the picture is plain rectangles with a tooltip each, coloured by package, and
frames too narrow to see are left out.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field

from perfkit.evidence.text import UNKNOWN, quantity
from perfkit.profile.flame import Flame, Frame
from perfkit.report.figures.charts import Figure
from perfkit.report.figures.plotting import BLUE, GREEN, ORANGE

WIDTH, ROW = 500.0, 18.0
#: Frames narrower than this, in units of WIDTH, cannot be seen.
NARROWEST = 1.0
#: The width of one character of a label.
CHARACTER = 7.5
OTHER = "#8a8a8a"
#: By the first part of a file's path.
COLOURS = {"cluster": BLUE, "perfkit": GREEN, "zmq": ORANGE, "msgspec": ORANGE, "msgpack": ORANGE}
HOTTEST = 5


@dataclass
class _Node:
    samples: int = 0
    children: dict[Frame, _Node] = field(default_factory=dict)


def flame_graph(flame: Flame, caption: str = "") -> Figure:
    """The flame as a picture; one without samples is a gap that says why there are none."""
    root, own = _Node(), Counter[Frame]()
    for stack, count in flame.stacks:
        node = root
        node.samples += count
        for frame in stack:
            node = node.children.setdefault(frame, _Node())
            node.samples += count
        own.update(dict.fromkeys(stack[-1:], count))
    svg = ET.Element("svg", {"aria-hidden": "true", "font-size": "13"})
    if not root.samples:
        why = flame.reason or "no sample found it at work"
        _write(svg, 0.0, 24.0, f"{UNKNOWN}: {why}")
        alt, height = f"Flame graph of {flame.name}: {UNKNOWN}, {why}.", 40.0
    else:
        height = ROW * _draw(svg, root, 0.0, 0, root.samples)
        hottest = "; ".join(
            f"{frame.function} ({frame.file}) {_percent(count, root.samples)}"
            for frame, count in own.most_common(HOTTEST)
            if count
        )
        samples = f"{quantity(root.samples)} samples at {flame.rate_hz} Hz"
        alt = f"Flame graph of {flame.name}, {samples}. Most often on top: {hottest}."
    box = {"width": f"{WIDTH:g}", "height": f"{height:g}", "viewBox": f"0 0 {WIDTH:g} {height:g}"}
    svg.attrib.update(box)
    return Figure(ET.tostring(svg, encoding="unicode"), alt, caption)


def _draw(svg: ET.Element, node: _Node, left: float, depth: int, whole: int) -> int:
    """Draws what `node` calls, from `left` on; returns how many rows the picture has there."""
    rows = depth
    for frame, child in sorted(node.children.items(), key=lambda item: item[0].function):
        width = child.samples * WIDTH / whole
        if width >= NARROWEST:
            _draw_box(svg, frame, child.samples, left, depth * ROW, width, whole)
            rows = max(rows, depth + 1, _draw(svg, child, left, depth + 1, whole))
        left += width
    return rows


def _draw_box(
    svg: ET.Element, frame: Frame, samples: int, left: float, top: float, width: float, whole: int
) -> None:
    group = ET.SubElement(svg, "g")
    share = f"{_percent(samples, whole)}, {quantity(samples)} samples"
    ET.SubElement(group, "title").text = f"{frame.function} ({frame.file}): {share}"
    box = {"x": left, "y": top, "width": max(0.5, width - 0.7), "height": ROW - 1, "rx": 2}
    color = {"fill": COLOURS.get(frame.file.split("/")[0], OTHER), "fill-opacity": "0.38"}
    ET.SubElement(group, "rect", {name: f"{at:.1f}" for name, at in box.items()} | color)
    room = int(width / CHARACTER)
    name = frame.function
    if room >= 4:
        _write(group, left + 3, top + 13, name if len(name) <= room else f"{name[: room - 1]}…")


def _write(parent: ET.Element, left: float, top: float, text: str) -> None:
    at = {"x": f"{left:.1f}", "y": f"{top:.1f}", "fill": "currentColor"}
    ET.SubElement(parent, "text", at).text = text


def _percent(part: int, whole: int) -> str:
    return quantity(100 * part / whole, "%")
