"""Panels over one time axis: each is described, unknown values say so, and no peak is lost."""

import re

import pytest

from perfkit.report.figures.panels import Panel, panels

POWER = Panel("power", "W", {"power": [(0.0, 40.0), (1.0, None), (2.0, 44.0)]})
TASKS = Panel("tasks", "1/s", {"throughput": [(0.5, 1_500.0), (1.5, 1_600.0)]})


def test_every_panel_is_described_with_its_gaps() -> None:
    figure = panels([POWER, TASKS], title="a card", caption="made up")
    assert figure.alt == (
        "Timelines, a card. power. power: 40 to 44 W, 1 unknown. "
        "tasks. throughput: 1,500 to 1,600 1/s."
    )
    assert figure.svg.count(">seconds</text>") == 1
    assert "made up" in figure._repr_html_()


def test_a_panel_of_nothing_known_says_so_and_has_no_scale() -> None:
    unknown = Panel("temperature", "°C", {"edge": [(0.0, None), (2.0, None)]})
    svg = panels([unknown], title="a card").svg
    assert ">unknown</text>" in svg
    assert ">unknown</text>" not in panels([POWER], title="a card").svg


def test_a_line_of_nothing_known_is_named_so_in_the_legend() -> None:
    both = Panel("busy", "%", {"core": [(0.0, 11.0), (1.0, 12.0)], "memory": [(0.0, None)]})
    assert ">memory: unknown</text>" in panels([both], title="a card").svg


@pytest.mark.parametrize("rows", [[], [Panel("power", "W", {})]])
def test_without_a_series_there_is_no_picture(rows: list[Panel]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        panels(rows, title="a card")


def drawn(values: list[float | None]) -> str:
    return panels([Panel("load", "1", {"a": list(enumerate(values))})], title="x").svg


def test_a_gap_breaks_the_line() -> None:
    whole: list[float | None] = [1.0 + n % 2 for n in range(9)]
    broken = [None if n == 4 else value for n, value in enumerate(whole)]
    moves = [len(re.findall("M ", drawn(values))) for values in (whole, broken)]
    assert moves[1] == moves[0] + 1


def test_a_long_line_loses_no_peak_and_no_gap() -> None:
    calm: list[float | None] = [float(n % 5) for n in range(5_000)]
    peak, gap = calm.copy(), calm.copy()
    peak[2_501], gap[2_501] = 100.0, None
    assert ">100</text>" in drawn(peak)
    assert ">100</text>" not in drawn(calm)
    assert drawn(gap).count("M ") == drawn(calm).count("M ") + 1
    assert drawn(calm).count("L ") < 600


@pytest.mark.parametrize("names", ["ab", ["a name of some length", "another one", "a third name"]])
def test_the_names_of_lines_stand_above_their_panel_where_no_line_runs(names: list[str]) -> None:
    lines = {name: [(0.0, 1.0 + number), (1.0, 2.0)] for number, name in enumerate(names)}
    svg = panels([Panel("power", "W", lines)], title="a card").svg
    tops = [float(top) for top in re.findall(r'd="M \S+ \S+ L \S+ (\S+) " clip-path', svg)]
    for name in names:
        (at,) = re.findall(rf'y="([\d.]+)">{name}</text>', svg)
        assert float(at) < min(tops)
