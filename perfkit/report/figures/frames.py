"""Draws frames that stand below their callers, as inline SVG: for flame graphs and for icicles.

Profilers write such pictures as pages of their own with scripts in them; a report has to open
without either. So the picture is plain rectangles with a tooltip each, coloured by package. Frames
too narrow to see are left out, and so are those beyond a depth and a number that bound its size.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from perfkit.evidence.text import UNKNOWN
from perfkit.profile.flame import Frame
from perfkit.report.figures.charts import Figure
from perfkit.report.figures.plotting import BLUE, GREEN, ORANGE

WIDTH, ROW = 500.0, 18.0
#: Frames narrower than this, in units of WIDTH, cannot be seen.
NARROWEST = 1.0
#: Bounds of a picture: 250 frames are about 80 KB.
DEPTH_MAX, FRAMES_MAX = 40, 250
#: The width of one character of a label.
CHARACTER = 7.5
OTHER = "#8a8a8a"
#: By the first part of a file's path.
COLOURS = {"cluster": BLUE, "perfkit": GREEN, "zmq": ORANGE, "msgspec": ORANGE, "msgpack": ORANGE}


@dataclass
class Node:
    """What one frame weighs, in samples or seconds, and the frames it called."""

    weight: float = 0.0
    children: dict[Frame, Node] = field(default_factory=dict)


def draw_frames(root: Node, tell: Callable[[float], str]) -> tuple[str, str]:
    """The frames below `root` as SVG, and a sentence if some that could be seen are left out.

    `tell` puts a weight into words, for a frame's tooltip.
    """
    svg = ET.Element("svg", {"aria-hidden": "true", "font-size": "13"})
    waiting, rows, drawn, left_out = deque([(root, 0.0, 0)]), 0, 0, 0
    while waiting:
        node, left, depth = waiting.popleft()
        for frame, child in sorted(node.children.items(), key=lambda item: item[0].function):
            width = child.weight * WIDTH / root.weight
            if width >= NARROWEST and depth < DEPTH_MAX and drawn < FRAMES_MAX:
                _draw_box(svg, frame, left, depth * ROW, width, tell(child.weight))
                waiting.append((child, left, depth + 1))
                rows, drawn = max(rows, depth + 1), drawn + 1
            elif width >= NARROWEST:
                left_out += 1
            left += width
    _set_size(svg, ROW * rows)
    words = f" Left out: {left_out} frames below the last row or too many." if left_out else ""
    return ET.tostring(svg, encoding="unicode"), words


def gap(what: str, why: str, caption: str) -> Figure:
    """A picture that only says why there is nothing to draw."""
    svg = ET.Element("svg", {"aria-hidden": "true", "font-size": "13"})
    _write(svg, 0.0, 24.0, f"{UNKNOWN}: {why}")
    _set_size(svg, 40.0)
    return Figure(ET.tostring(svg, encoding="unicode"), f"{what}: {UNKNOWN}, {why}.", caption)


def _set_size(svg: ET.Element, height: float) -> None:
    box = {"width": f"{WIDTH:g}", "height": f"{height:g}", "viewBox": f"0 0 {WIDTH:g} {height:g}"}
    svg.attrib.update(box)


def _draw_box(
    svg: ET.Element, frame: Frame, left: float, top: float, width: float, told: str
) -> None:
    group = ET.SubElement(svg, "g")
    ET.SubElement(group, "title").text = f"{frame.function} ({frame.file}): {told}"
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
