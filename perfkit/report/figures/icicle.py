"""Draws a CPU profile as an icicle: width is time, a function stands below the one that called it.

cProfile keeps how long each caller waited for each function, and no stacks. So a function's time is
divided among its callers as gprof does it: what it calls takes the same part below each of them (S.
Graham, P. Kessler, M. McKusick, "gprof: a call graph execution profiler", SIGPLAN Notices 17, 1982;
snakeviz draws the same). A function that is on the stack already is not drawn again below itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from perfkit.evidence.text import quantity
from perfkit.profile.cpu import BUILT_IN, CpuProfile, Function, Table
from perfkit.profile.flame import Frame
from perfkit.profile.paths import short_path
from perfkit.report.figures.charts import Figure
from perfkit.report.figures.frames import (
    DEPTH_MAX,
    NARROWEST,
    WIDTH,
    Node,
    draw_frames,
    gap,
)

HOTTEST = 5


def icicle(profile: CpuProfile, caption: str = "") -> Figure:
    """The profile as a picture of bounded size; one without time is a gap that says so."""
    root = _tree(profile.table)
    if not root.weight:
        return gap(f"Icicle of {profile.name}", "the profile has no time", caption)

    def share(part_s: float) -> str:
        return f"{quantity(part_s * 1e3, 'ms')}, {quantity(100 * part_s / root.weight, '%')}"

    svg, left_out = draw_frames(root, share)
    hottest = "; ".join(
        f"{it.function} ({it.file}) {share(it.own_s)}" for it in profile.top(HOTTEST)
    )
    whole = quantity(root.weight * 1e3, "ms")
    alt = f"Icicle of {profile.name}, {whole}. Most own time: {hottest}.{left_out}"
    return Figure(svg, alt, caption)


def _tree(table: Table) -> Node:
    """The calls as a tree, down to what can be seen."""
    calls: defaultdict[Function, dict[Function, float]] = defaultdict(dict)
    for function, (_, _, _, _, callers) in table.items():
        for caller, counts in callers.items():
            calls[caller][function] = counts[3]
    tops = [function for function, counts in table.items() if not counts[4]]
    if not tops and table:  # everything is called from within a circle
        tops = [max(table, key=lambda function: table[function][3])]
    root = Node(sum(table[function][3] for function in tops))
    for function in tops:
        total_s = table[function][3]
        _grow(root, function, total_s, (function,), table, calls, root.weight * NARROWEST / WIDTH)
    return root


def _grow(
    parent: Node,
    function: Function,
    part_s: float,
    stack: tuple[Function, ...],
    table: Table,
    calls: Mapping[Function, Mapping[Function, float]],
    least_s: float,
) -> None:
    node = parent.children.setdefault(_frame(function), Node())
    node.weight += part_s
    total_s = table[function][3]
    if len(stack) > DEPTH_MAX or total_s <= 0:
        return
    below = {it: s for it, s in calls.get(function, {}).items() if it not in stack}
    # The parts may add up to a little more than the whole, as each is rounded by the clock.
    scale = part_s / max(total_s, sum(below.values()))
    for called, called_s in below.items():
        if called_s * scale >= least_s:
            _grow(node, called, called_s * scale, (*stack, called), table, calls, least_s)


def _frame(function: Function) -> Frame:
    file, _, name = function
    return Frame(name, BUILT_IN if file == "~" else short_path(file))
