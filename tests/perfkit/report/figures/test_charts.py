"""Pictures: described in words, equal for equal figures, small, and honest about gaps."""

import math
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.report.figures.charts import (
    Bar,
    Figure,
    Stage,
    bars_with_intervals,
    hot_spots,
    latency_distribution,
    timeline,
    waterfall,
)
from perfkit.report.figures.svg import INK, QUIET

RNG = random.Random(7)
SAMPLES = [RNG.lognormvariate(0, 0.4) for _ in range(5_000)]
DRAWN: dict[str, Callable[[], Figure]] = {
    "one distribution": lambda: latency_distribution(SAMPLES, caption="5,000 <samples>"),
    "two distributions": lambda: latency_distribution(
        {"baseline": SAMPLES, "lossy": [*(x / 40 for x in SAMPLES[:950]), *[None] * 50], "none": []}
    ),
    "waterfall": lambda: waterfall(
        [("send", 12, 11, 13), Stage("queue $x$", None), ("worker", 80, 70, None)]
    ),
    "bars": lambda: bars_with_intervals(
        [Bar("coordinator", 62, 60, 64, 100), ("worker", 85, 80), ("API", None, None, None, 200)],
        "MB",
    ),
    "points": lambda: bars_with_intervals(
        [("throughput", 41_234, 40_000, 43_000, 1_000), ("other", None)], "tasks/s"
    ),
    "only unknown": lambda: bars_with_intervals([("API", None)], "MB"),
    "timeline": lambda: timeline(
        {"a": [(t / 10, None if 30 < t < 50 else t % 7) for t in range(120)], "b": [(0, None)]},
        "% CPU",
    ),
    "long timeline": lambda: timeline({"a": [(t, math.sin(t / 90)) for t in range(5_000)]}, "load"),
    "hot spots": lambda: hot_spots(
        [(f"module.Class.method_with_a_rather_long_name_{n}", 9 / n) for n in range(1, 9)]
        + [("unmeasured", None)]
    ),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=list(DRAWN))
def test_every_picture_fits_a_page(draw: Callable[[], Figure]) -> None:
    figure = draw()
    shown = figure._repr_html_()
    assert shown.startswith('<figure role="img" aria-label="')
    assert len(shown.encode()) < 20_000
    assert "http" not in shown
    assert INK not in shown
    assert QUIET not in shown
    assert "currentColor" in shown
    assert "font-family" not in shown
    assert "#ffffff" not in shown
    ET.fromstring(figure.svg)


@pytest.mark.parametrize("draw", DRAWN.values(), ids=list(DRAWN))
def test_equal_figures_give_equal_bytes(draw: Callable[[], Figure]) -> None:
    assert draw() == draw()


def test_pictures_on_one_page_share_no_ids() -> None:
    pictures = [DRAWN[name]().svg for name in ("waterfall", "bars", "timeline")]
    ids = [re.findall(r'\bid="([^"]+)"', picture) for picture in pictures]
    assert all(ids)
    flat = [name for some in ids for name in some]
    assert len(flat) == len(set(flat))
    for picture, own in zip(pictures, ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', picture)) == set(own)


def test_a_distribution_says_its_percentiles() -> None:
    figure = latency_distribution([float(n) for n in range(1, 102)], "ms")
    assert figure.alt == (
        "Distribution of latency. latency, 101 samples: p50 51 ms, p95 96 ms, p99 100 ms."
    )
    assert ">p95 96 ms</text>" in figure.svg


def test_lost_replies_count_as_slowest_and_are_said() -> None:
    figure = latency_distribution({"a": [1.0] * 96 + [None] * 4, "b": [None]}, "ms")
    assert (
        "a, 100 samples, 4 of them without a reply: p50 1 ms, p95 1 ms, p99 unknown." in figure.alt
    )
    assert "b: unknown." in figure.alt


def test_the_unknown_is_a_gap_that_says_so() -> None:
    for name in ("waterfall", "bars", "points", "hot spots"):
        assert ">unknown</text>" in DRAWN[name]().svg, name
    assert "queue $x$: unknown." in DRAWN["waterfall"]().alt
    assert "a: 0 to 6 % CPU, 19 unknown. b: unknown." in DRAWN["timeline"]().alt


def test_a_gap_breaks_the_line_of_a_timeline() -> None:
    whole = timeline({"a": [(t, 1.0 + t % 2) for t in range(9)]}, "x").svg
    broken = timeline({"a": [(t, None if t == 4 else 1.0 + t % 2) for t in range(9)]}, "x").svg
    moves = [len(re.findall("M ", svg)) for svg in (whole, broken)]
    assert moves[1] == moves[0] + 1


def test_values_far_apart_are_points_on_a_logarithmic_axis() -> None:
    assert "tasks/s (logarithmic)" in DRAWN["points"]().svg
    assert "logarithmic" not in DRAWN["bars"]().svg


def test_a_claim_stands_beside_what_was_measured() -> None:
    figure = bars_with_intervals([("RSS", 62, 60, 64, 100)], "MB", claim="in the plan")
    assert figure.alt == "Measured values. RSS: 62 MB (60 to 64), in the plan 100 MB."
    assert ">in the plan</text>" in figure.svg
    assert "diamond" not in bars_with_intervals([("RSS", 62)], "MB").svg


def test_only_the_most_expensive_spots_are_shown() -> None:
    alt = hot_spots([("a", 1.0), ("b", 3.0), ("c", None), ("d", 2.0)], top=3).alt
    assert alt == "The 3 most expensive by own time of 4. b: 3 s. d: 2 s. a: 1 s."


def test_a_long_line_loses_no_peak_and_no_gap() -> None:
    def drawn(values: list[float | None]) -> str:
        return timeline({"a": list(enumerate(values))}, "load").svg

    calm: list[float | None] = [float(n % 5) for n in range(5_000)]
    peak, gap = calm.copy(), calm.copy()
    peak[2_501], gap[2_501] = 100.0, None
    assert ">100</text>" in drawn(peak)
    assert ">100</text>" not in drawn(calm)
    assert drawn(gap).count("M ") == drawn(calm).count("M ") + 1
    assert drawn(calm).count("L ") < 600


def test_a_caption_is_shown_and_escaped() -> None:
    html = DRAWN["one distribution"]()._repr_html_()
    assert html.endswith("<figcaption>5,000 &lt;samples&gt;</figcaption></figure>")


def test_a_picture_can_be_saved_as_a_file(tmp_path: Path) -> None:
    path = DRAWN["bars"]().save(tmp_path / "bars.svg")
    assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: latency_distribution({}),
        lambda: waterfall([]),
        lambda: bars_with_intervals([], "x"),
        lambda: timeline({}, "x"),
        lambda: hot_spots([]),
    ],
)
def test_nothing_to_draw_is_an_error_that_says_so(draw: Callable[[], Figure]) -> None:
    with pytest.raises(ValueError, match="needs at least one"):
        draw()


@settings(max_examples=6)
@given(
    st.lists(
        st.tuples(
            st.text('aé_$\\{}<&" ', max_size=8),
            st.none() | st.floats(min_value=0, max_value=1e9),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_figures_can_be_drawn(rows: list[tuple[str, float | None]]) -> None:
    for figure in (
        hot_spots(rows),
        bars_with_intervals(rows, "x"),
        latency_distribution([value for _, value in rows]),
        waterfall([Stage(*row) for row in rows]),
    ):
        ET.fromstring(figure.svg)
