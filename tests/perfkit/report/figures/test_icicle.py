"""An icicle of a real profile: widths are times, and its size is bounded."""

import re

from perfkit.profile.cpu import CpuProfile, Function, Table, profile_cpu
from perfkit.report.figures.frames import DEPTH_MAX, FRAMES_MAX, ROW, WIDTH
from perfkit.report.figures.icicle import icicle
from perfkit.report.page.selfcontained import find_external


def table(*calls: tuple[str, str, float], **own: float) -> Table:
    """A profile of calls (caller, called, seconds); `own` are the seconds of functions alone."""
    found: Table = {}

    def function(name: str) -> Function:
        return ("a.py", 1, name)

    for name, own_s in own.items():
        whole_s = own_s + sum(it[2] for it in calls if it[0] == name)
        callers = {function(a): (1, 1, 0.0, s) for a, b, s in calls if b == name}
        found[function(name)] = (1, 1, own_s, whole_s, callers)
    return found


def down(depth: int) -> int:
    return down(depth - 1) if depth else sum(range(10_000))


def boxes(svg: str) -> dict[str, float]:
    """Widths by function; of the widest, where a function has several."""
    found = re.findall(r"<title>(.*?) \(.*?</title><rect [^>]*width=\"([\d.]+)\"", svg)
    return {name: float(width) for name, width in reversed(found)}


def test_a_functions_time_is_divided_among_its_callers() -> None:
    calls = (("left", "leaf", 3.0), ("right", "leaf", 1.0), ("leaf", "deep", 2.0))
    svg = icicle(CpuProfile("two", table(*calls, left=0.0, right=0.0, leaf=2.0, deep=2.0))).svg
    widths = boxes(svg)
    assert (widths["left"], widths["right"]) == (0.75 * WIDTH - 0.7, 0.25 * WIDTH - 0.7)
    drawn = re.findall(r"<title>(leaf|deep) .*?width=\"([\d.]+)\"", svg)
    assert sorted((name, round(float(width) + 0.7)) for name, width in drawn) == [
        *(("deep", round(part * WIDTH / 2)) for part in (0.25, 0.75)),
        *(("leaf", round(part * WIDTH)) for part in (0.25, 0.75)),
    ]


def test_recursion_is_drawn_once_and_the_picture_is_self_contained() -> None:
    with profile_cpu("deep") as found:
        down(500)
    assert found.result is not None
    picture = icicle(found.result, "A caption.")
    assert len(re.findall(r"<title>down ", picture.svg)) == 1
    assert "Icicle of deep" in picture.alt
    assert find_external(picture._repr_html_()) == []
    assert "<script" not in picture.svg


def test_a_wide_and_a_deep_profile_are_cut_and_say_so() -> None:
    wide = icicle(CpuProfile("wide", table(**{f"f{n}": 1.0 for n in range(FRAMES_MAX + 50)})))
    assert wide.svg.count("<rect") == FRAMES_MAX
    assert "Left out: 50 frames" in wide.alt
    calls = [(f"f{n}", f"f{n + 1}", 1.0) for n in range(100)]
    own = {f"f{n}": 0.0 for n in range(100)}
    deep = icicle(CpuProfile("deep", table(*calls, **own, f100=1.0)))
    assert f'height="{DEPTH_MAX * ROW:g}"' in deep.svg
    assert "Left out: 1 frames" in deep.alt


def test_a_profile_without_time_is_a_gap() -> None:
    assert "unknown: the profile has no time" in icicle(CpuProfile("none", {})).svg


def test_a_circle_of_calls_has_a_beginning() -> None:
    calls = (("one", "two", 1.0), ("two", "one", 0.5))
    circle = icicle(CpuProfile("circle", table(*calls, one=1.0, two=0.5)))
    assert set(boxes(circle.svg)) == {"one", "two"}
