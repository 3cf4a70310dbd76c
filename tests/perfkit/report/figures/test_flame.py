"""A flame graph as plain SVG: widths are samples, and nothing in it fetches or runs anything."""

import re

from perfkit.profile.flame import Flame, Frame
from perfkit.report.figures.flame import flame_graph
from perfkit.report.figures.frames import WIDTH
from perfkit.report.page.selfcontained import find_external

RUN, TURN = (
    Frame("run", "cluster/shells/coordinator.py"),
    Frame("<listcomp>", "perfkit/optimized/codec.py"),
)
FLAME = Flame("x", (((RUN,), 25), ((RUN, TURN), 75), ((RUN, Frame("rare", "zmq/a.py")), 0)))


def test_a_frame_is_as_wide_as_its_samples() -> None:
    svg = flame_graph(FLAME).svg
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', svg)]
    assert widths == [WIDTH - 0.7, 0.75 * WIDTH - 0.7]
    assert "&lt;listcomp&gt; (perfkit/optimized/codec.py): 75 %, 75 samples" in svg
    assert "rare" not in svg


def test_it_is_self_contained_and_described() -> None:
    shown = flame_graph(FLAME, "A caption.")._repr_html_()
    assert find_external(shown) == []
    assert "<script" not in shown
    assert "Most often on top: &lt;listcomp&gt; (perfkit/optimized/codec.py) 75 %" in shown
    assert "A caption." in shown


def test_without_samples_it_is_a_gap_that_says_why() -> None:
    refused = flame_graph(Flame("x", reason="ptrace is not allowed"))
    assert "unknown: ptrace is not allowed" in refused.svg
    assert "ptrace is not allowed" in refused.alt
    assert "no sample" in flame_graph(Flame("x")).alt
