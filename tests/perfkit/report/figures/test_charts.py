"""Pictures: described in words, equal for equal figures, small, and honest about gaps."""

import math
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import cache
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.report.figures.charts import (
    Bar,
    Figure,
    bars_with_intervals,
    hot_spots,
    latency_distribution,
    waterfall,
)
from perfkit.report.figures.climb import climb
from perfkit.report.figures.panels import Panel, panels
from perfkit.report.figures.plotting import FONT_PT, INK, QUIET

RNG = random.Random(7)
SAMPLES = [RNG.lognormvariate(0, 0.4) for _ in range(5_000)]
LINE = {"a": [(t / 10, None if 30 < t < 50 else t % 7) for t in range(120)], "b": [(0, None)]}
WAVE = {"a": [(t, 1 + math.sin(t / 90)) for t in range(5_000)]}
DRAWN: dict[str, Callable[[], Figure]] = {
    "distribution": lambda: latency_distribution(SAMPLES, caption="5,000 <samples>"),
    "lossy distribution": lambda: latency_distribution([*SAMPLES[:950], *[None] * 50]),
    "lost": lambda: latency_distribution([None]),
    "waterfall": lambda: waterfall(
        [Bar("send", 12, 11, 13), Bar("queue $x$", None), Bar("worker", 80, 70)]
    ),
    "bars": lambda: bars_with_intervals(
        [Bar("coordinator", 62, 60, 64, 100), Bar("worker", 85, 80), Bar("API", None, claim=200)],
        "MB",
    ),
    "points": lambda: bars_with_intervals(
        [Bar("throughput", 41_234, 40_000, 43_000, 1_000), Bar("other", None)], "tasks/s"
    ),
    "only unknown": lambda: bars_with_intervals([Bar("API", None)], "MB"),
    "panels": lambda: panels([Panel("busy", "%", LINE)], title="CPU"),
    "long panels": lambda: panels([Panel("load", "1", WAVE)], title="load"),
    "hot spots": lambda: hot_spots(
        [Bar(f"module.Class.method_with_a_rather_long_name_{n}", 9 / n) for n in range(1, 9)]
        + [Bar("unmeasured", None)]
    ),
    "climb": lambda: climb([Bar("baseline", 10, 9, 11), Bar("runs", 100), Bar("all", 50)], "1/s"),
}


@cache
def drawn(name: str) -> Figure:
    return DRAWN[name]()


@pytest.mark.parametrize("name", list(DRAWN))
def test_pictures_fit_a_page_and_equal_figures_draw_equally(name: str) -> None:
    figure = drawn(name)
    assert DRAWN[name]() == figure
    shown = figure._repr_html_()
    assert shown.startswith('<figure><img class="perfkit-figure" alt="')
    assert len(shown.encode()) < 24_000
    assert "currentColor" in figure.svg
    for word in ("http", INK, QUIET, "font-family", "#ffffff"):
        assert word not in figure.svg
    ET.fromstring(figure.svg)
    sizes = map(float, re.findall(r"font-size: ([\d.]+)px", figure.svg))
    assert min(sizes, default=FONT_PT) >= FONT_PT


@pytest.mark.parametrize("name", list(DRAWN))
def test_pictures_are_images_with_a_type_of_their_own(name: str) -> None:
    figure = drawn(name)
    bundle = figure._repr_mimebundle_()
    assert list(bundle) == ["image/svg+xml", "text/html", "text/plain"]
    file = ET.fromstring(bundle["image/svg+xml"])
    assert file.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme" in bundle["image/svg+xml"]
    # An untrusted JupyterLab takes inline SVG out of HTML and leaves an image in.
    assert "<svg" not in bundle["text/html"]
    source = re.search(r'src="data:image/svg\+xml,([^"]*)"', bundle["text/html"])
    assert source is not None
    assert unquote(source[1]) == bundle["image/svg+xml"]
    assert figure.alt in bundle["text/plain"]


def test_a_caption_opens_with_the_title_so_that_none_is_twice() -> None:
    first, second = (
        waterfall([Bar("send", 1)], title=f"time, {spec}", caption="Medians.") for spec in "ab"
    )
    assert (first.caption, second.caption) == ("Time, a. Medians.", "Time, b. Medians.")
    assert hot_spots([Bar("a", 1)], title="RSS", caption="By RSS.").caption == "By RSS."
    assert bars_with_intervals([Bar("a", 1)], "s", caption="Alone.").caption == "Alone."


def test_long_labels_and_texts_get_a_line_each() -> None:
    wide = hot_spots([Bar("a" * 44, 1.0, 0.5, 1.5), Bar("b", 0.5)])
    narrow = hot_spots([Bar("a", 1.0, 0.5, 1.5), Bar("b", 0.5)])
    height = re.compile(r'viewBox="0 0 360 ([\d.]+)"')
    tall, low = (float(height.findall(figure.svg)[0]) for figure in (wide, narrow))
    assert tall > low
    assert f">{'a' * 44}</text>" in wide.svg
    assert ">1 s (0.5 to 1.5)</text>" in wide.svg


def test_pictures_on_one_page_share_no_ids() -> None:
    pictures = [drawn(name).svg for name in ("waterfall", "bars", "panels")]
    ids = [re.findall(r'\bid="([^"]+)"', picture) for picture in pictures]
    assert all(ids)
    flat = [name for some in ids for name in some]
    assert len(flat) == len(set(flat))
    for picture, own in zip(pictures, ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', picture)) == set(own)


def test_a_distribution_says_its_percentiles() -> None:
    figure = latency_distribution([float(n) for n in range(1, 102)], "ms")
    assert figure.alt == ("Distribution of latency, 101 samples: p50 51 ms, p95 96 ms, p99 100 ms.")
    assert ">p95 96 ms</text>" in figure.svg


def test_lost_replies_count_as_slowest_and_are_said() -> None:
    alt = latency_distribution([1.0] * 96 + [None] * 4, "ms").alt
    assert "100 samples, 4 of them without a reply: p50 1 ms, p95 1 ms, p99 unknown." in alt
    assert "p50 unknown" in drawn("lost").alt


def test_the_unknown_is_a_gap_that_says_so() -> None:
    for name in ("waterfall", "bars", "points", "hot spots"):
        assert ">unknown</text>" in drawn(name).svg, name
    assert "queue $x$: unknown." in drawn("waterfall").alt
    assert "a: 0 to 6 %, 19 unknown. b: unknown." in drawn("panels").alt


def test_values_far_apart_are_points_on_a_logarithmic_axis() -> None:
    assert "tasks/s (logarithmic)" in drawn("points").svg
    assert "logarithmic" not in drawn("bars").svg


def test_a_claim_stands_beside_the_measured_value_and_a_caption_is_escaped() -> None:
    bar = Bar("RSS", 62, 60, 64, 100)
    figure = bars_with_intervals([bar], "MB", claim="in the plan", caption="a <b>")
    assert figure.alt == "Measured values. RSS: 62 MB (60 to 64), in the plan 100 MB."
    assert ">in the plan</text>" in figure.svg
    assert figure._repr_html_().endswith("a &lt;b&gt;</figcaption></figure>")


def test_only_the_most_expensive_spots_are_shown() -> None:
    rows = [Bar("a", 1.0), Bar("b", 3.0), Bar("c", None), Bar("d", 2.0)]
    alt = hot_spots(rows, top=3).alt
    assert alt == "The 3 most expensive by own time of 4. b: 3 s. d: 2 s. a: 1 s."


@pytest.mark.parametrize("draw", [latency_distribution, waterfall, bars_with_intervals, hot_spots])
def test_nothing_to_draw_is_an_error_that_says_so(draw: Callable[..., Figure]) -> None:
    with pytest.raises(ValueError, match="needs at least one"):
        draw([], "x")


@settings(max_examples=4)
@given(
    st.lists(
        st.builds(
            Bar,
            st.text('aé_$\\{}<&" ', max_size=8),
            st.none() | st.floats(min_value=0, max_value=1e9),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_figures_can_be_drawn(rows: list[Bar]) -> None:
    for figure in (
        hot_spots(rows),
        bars_with_intervals(rows, "x"),
        latency_distribution([row.value for row in rows]),
        waterfall(rows),
    ):
        ET.fromstring(figure.svg)
