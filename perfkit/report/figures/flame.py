"""Draws a flame graph: width is samples, a frame stands below the one that called it."""

from __future__ import annotations

from collections import Counter

from perfkit.evidence.text import quantity
from perfkit.profile.flame import Flame, Frame
from perfkit.report.figures.charts import Figure
from perfkit.report.figures.frames import Node, draw_frames, gap

HOTTEST = 5


def flame_graph(flame: Flame, caption: str = "") -> Figure:
    """The flame as a picture; one without samples is a gap that says why there are none."""
    root, own = Node(), Counter[Frame]()
    for stack, count in flame.stacks:
        node = root
        node.weight += count
        for frame in stack:
            node = node.children.setdefault(frame, Node())
            node.weight += count
        own.update(dict.fromkeys(stack[-1:], count))
    if not root.weight:
        why = flame.reason or "no sample found it at work"
        return gap(f"Flame graph of {flame.name}", why, caption)

    def percent(part: float) -> str:
        return quantity(100 * part / root.weight, "%")

    svg, left_out = draw_frames(root, lambda part: f"{percent(part)}, {quantity(part)} samples")
    hottest = "; ".join(
        f"{frame.function} ({frame.file}) {percent(count)}"
        for frame, count in own.most_common(HOTTEST)
        if count
    )
    samples = f"{quantity(root.weight)} samples at {flame.rate_hz} Hz"
    alt = f"Flame graph of {flame.name}, {samples}. Most often on top: {hottest}.{left_out}"
    return Figure(svg, alt, caption)
