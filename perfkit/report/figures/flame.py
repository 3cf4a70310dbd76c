"""Draws a flame graph as inline SVG: width is samples, a frame stands on the one that called it.

Profilers bring flame graphs as pages of their own with scripts in them; a report has to open
without either. So the picture is plain rectangles with a tooltip each, coloured by who wrote the
code, and frames too narrow to see are left out.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass, field

from perfkit.evidence.text import quantity
from perfkit.profile.flame import Flame, Frame
from perfkit.report.figures.charts import Figure
from perfkit.report.figures.plotting import BLUE, GREEN, ORANGE

WIDTH, ROW = 1_000.0, 17.0
#: Frames narrower than this, in units of WIDTH, cannot be seen.
NARROWEST = 2.0
#: A label needs so much room for each of its characters.
CHARACTER = 6.3
OTHER = "#8a8a8a"
#: By the first part of a file's path.
COLOURS = {"cluster": BLUE, "perfkit": GREEN, "zmq": ORANGE, "msgspec": ORANGE, "msgpack": ORANGE}
HOTTEST = 5


@dataclass
class _Node:
    samples: int = 0
    own: int = 0
    children: dict[Frame, _Node] = field(default_factory=dict)


def flame_graph(flame: Flame, caption: str = "") -> Figure:
    """The flame as a picture; one without samples is a gap that says why there are none."""
    root = _Node()
    for stack, count in flame.stacks:
        _grow(root, stack, count)
    if not root.samples:
        why = flame.reason or "no sample found it at work"
        return Figure(_gap(why), f"Flame graph of {flame.name}: unknown, {why}.", caption)
    boxes = list(_boxes(root, 0.0, 0, WIDTH / root.samples, root.samples))
    height = (1 + max(depth for depth, _ in boxes)) * ROW
    body = "".join(text for _, text in boxes)
    svg = (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" aria-hidden="true" '
        'style="width:100%;height:auto" font-size="10.5">' + body + "</svg>"
    )
    return Figure(svg, _description(flame, root), caption)


def _grow(root: _Node, stack: Iterable[Frame], count: int) -> None:
    node = root
    node.samples += count
    for frame in stack:
        node = node.children.setdefault(frame, _Node())
        node.samples += count
    node.own += count


def _boxes(
    node: _Node, left: float, depth: int, scale: float, whole: int
) -> Iterable[tuple[int, str]]:
    for frame, child in sorted(node.children.items(), key=lambda item: item[0].function):
        width = child.samples * scale
        if width >= NARROWEST:
            yield depth, _box(frame, child, left, depth, width, whole)
            yield from _boxes(child, left, depth + 1, scale, whole)
        left += width


def _box(frame: Frame, node: _Node, left: float, depth: int, width: float, whole: int) -> str:
    name, where = html.escape(frame.function), html.escape(frame.file)
    room = int(width / CHARACTER)
    shown = frame.function if len(frame.function) <= room else frame.function[: room - 1] + "…"
    top = depth * ROW
    at = f'x="{left + 3:.1f}" y="{top + 12:.1f}"'
    label = f'<text {at} fill="currentColor">{html.escape(shown)}</text>' if room >= 4 else ""
    share = f"{node.samples / whole:.1%}"
    return (
        f"<g><title>{name} ({where}): {share}, {node.samples} samples</title>"
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(0.5, width - 0.7):.1f}" '
        f'height="{ROW - 1:g}" rx="2" fill="{_colour(frame)}" fill-opacity="0.38"/>{label}</g>'
    )


def _colour(frame: Frame) -> str:
    return COLOURS.get(frame.file.split("/")[0], OTHER)


def _gap(why: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:g} 40" aria-hidden="true" style="width:100%;height:auto">'
        '<text x="4" y="24" font-size="13" fill="currentColor">'
        f"unknown: {html.escape(why)}</text></svg>"
    )


def _description(flame: Flame, root: _Node) -> str:
    own: dict[Frame, int] = {}
    _sum_own(root, own)
    hottest = sorted(own.items(), key=lambda item: -item[1])[:HOTTEST]
    told = "; ".join(f"{f.function} ({f.file}) {n / root.samples:.0%}" for f, n in hottest if n)
    lead = f"Flame graph of {flame.name}, {quantity(root.samples)} samples at {flame.rate_hz} Hz"
    return f"{lead}. Most often on top: {told}."


def _sum_own(node: _Node, own: dict[Frame, int]) -> None:
    for frame, child in node.children.items():
        own[frame] = own.get(frame, 0) + child.own
        _sum_own(child, own)
