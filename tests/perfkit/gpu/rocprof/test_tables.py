"""The tables of a profile: its top kernels, frames, JSON and the notebook's view."""

import json

import pandas as pd
import pytest

from perfkit.gpu.rocprof import Kernel, KernelProfile, Transfer, parse
from tests.perfkit.gpu.profiles import MADE_UP, V1

UNKNOWN = Kernel("unknown time", fetched_bytes=8, written_bytes=8)


def profile(*kernels: Kernel) -> KernelProfile:
    return KernelProfile(kernels, (), "a.csv", "made up")


def timed(name: str, duration_ns: int | None, fetched: int | None = None) -> Kernel:
    return Kernel(name, 1, duration_ns, fetched_bytes=fetched, written_bytes=fetched)


def test_the_top_is_by_total_time_and_adds_up_the_calls() -> None:
    saxpy, scale = parse(V1.encode()).top_kernels(5, peak_bytes_per_s=256e9).kernels
    assert saxpy.name.startswith("saxpy")
    assert (saxpy.calls, saxpy.timed_calls, saxpy.total_ns, saxpy.mean_ns) == (2, 2, 10_000, 5000)
    assert saxpy.time_share == pytest.approx(10_000 / 10_500)
    assert (saxpy.fetched_bytes, saxpy.written_bytes) == (2 * 524_288, 2 * 262_144)
    assert saxpy.bandwidth_bytes_per_s == pytest.approx(2 * 786_432 / 10e-6)
    assert saxpy.peak_share == pytest.approx(157.2864 / 256)
    assert scale.total_ns == 500


def test_a_figure_that_is_unknown_for_one_call_is_unknown_for_all() -> None:
    top = profile(timed("f", 10, 100), timed("f", None, 100), timed("f", 30), UNKNOWN).top_kernels()
    f, unknown = top.kernels
    assert (f.calls, f.timed_calls, f.total_ns, f.mean_ns) == (3, 2, 40, 20)
    assert (f.fetched_bytes, f.bandwidth_bytes_per_s) == (None, 200 * 1e9 / 10)
    assert (unknown.total_ns, unknown.mean_ns, unknown.time_share) == (None, None, None)
    assert (unknown.fetched_bytes, unknown.bandwidth_bytes_per_s, unknown.peak_share) == (
        8,
        None,
        None,
    )
    assert "3 (2 timed)" in top._repr_html_()


def test_a_duration_of_zero_has_no_bandwidth_and_no_share() -> None:
    (total,) = profile(timed("f", 0, 100)).top_kernels().kernels
    assert (total.total_ns, total.bandwidth_bytes_per_s, total.time_share) == (0, None, None)


def test_the_top_is_cut_and_says_of_how_many() -> None:
    top = profile(*(timed(f"k{i}", i) for i in range(30))).top_kernels(3)
    assert [total.name for total in top.kernels] == ["k29", "k28", "k27"]
    assert "Kernels that took the most time, 3 of 30" in top._repr_html_()
    assert list(top.to_frame()["total_ns"]) == [29, 28, 27]


@pytest.mark.parametrize(("n", "peak"), [(0, None), (1, 0.0), (1, -1.0), (1, float("nan"))])
def test_a_top_of_nothing_and_a_peak_of_nothing_are_refused(n: int, peak: float | None) -> None:
    with pytest.raises(ValueError, match=r"has to be"):
        profile().top_kernels(n, peak)


def test_the_frame_has_a_row_for_each_dispatch_and_a_column_for_each_counter() -> None:
    frame = parse(V1.encode()).to_frame()
    assert list(frame["duration_ns"]) == [4000, 500, 6000]
    assert list(frame["counters.TCC_MC_RDREQ_sum"]) == [16384, 100, 16384]
    assert frame["fetched_bytes"][1] == 3200
    assert pd.isna(profile(UNKNOWN).to_frame()["duration_ns"][0])


def test_the_frame_of_transfers_has_a_row_for_each_copy() -> None:
    frame = parse(MADE_UP["v3 copies"].encode()).transfers_frame()
    assert list(frame["duration_ns"]) == [900, 500]


@pytest.mark.parametrize("text", MADE_UP.values(), ids=MADE_UP)
def test_json_and_html_hold_every_profile(text: str) -> None:
    found = parse(text.encode(), "a<b.csv")
    read_back = json.loads(json.dumps(found.to_json(found.top_kernels()), allow_nan=False))
    assert [k["name"] for k in read_back["kernels"]] == [k.name for k in found.kernels]
    assert len(read_back["transfers"]) == len(found.transfers)
    assert "a&lt;b.csv" in found._repr_html_()


def test_the_view_of_a_long_profile_is_cut_and_says_so() -> None:
    long = KernelProfile((UNKNOWN,) * 50, (Transfer(None),), "a.csv", "made up", ("a note",))
    shown = long._repr_html_()
    assert shown.count("unknown time") == 20
    assert "The first 20 of 50" in shown
    assert "1 transfer" in shown
    assert "a note" in shown
