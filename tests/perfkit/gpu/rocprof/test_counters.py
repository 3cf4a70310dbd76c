"""The formulas of traffic, each against a sum worked out by hand."""

import pytest

from perfkit.gpu.rocprof.counters import FORMULAS, Counters, traffic


def sums(text: str) -> Counters:
    """Counters summed over the channels, from `name=value` pairs."""
    pairs = (pair.split("=") for pair in text.split())
    return {f"{name}_sum": int(value) for name, value in pairs}


#: By generation: reads and writes of 32, 64 (and 128) bytes, and the bytes they are.
CASES = [
    ("gfx8", sums("TCC_MC_RDREQ=10 TCC_MC_WRREQ=3"), 320, 96),
    (
        "gfx9",
        # 4 reads of 32 bytes and 6 of 64; 5 writes of 32 and 2 of 64
        sums("TCC_EA_RDREQ=10 TCC_EA_RDREQ_32B=4 TCC_EA_WRREQ=7 TCC_EA_WRREQ_64B=2"),
        4 * 32 + 6 * 64,
        5 * 32 + 2 * 64,
    ),
    (
        "gfx906",
        sums(
            "TCC_EA_RDREQ=10 TCC_EA_RDREQ_32B=4 TCC_EA1_RDREQ=3 TCC_EA1_RDREQ_32B=1 "
            "TCC_EA_WRREQ=7 TCC_EA_WRREQ_64B=2 TCC_EA1_WRREQ=5 TCC_EA1_WRREQ_64B=5"
        ),
        (4 * 32 + 6 * 64) + (1 * 32 + 2 * 64),
        (5 * 32 + 2 * 64) + 5 * 64,
    ),
    (
        "gfx940",
        # of 10 reads 2 are of 128 bytes, 3 of 32, and so 5 of 64
        sums(
            "TCC_BUBBLE=2 TCC_EA0_RDREQ=10 TCC_EA0_RDREQ_32B=3 TCC_EA0_WRREQ=7 TCC_EA0_WRREQ_64B=2"
        ),
        2 * 128 + 5 * 64 + 3 * 32,
        5 * 32 + 2 * 64,
    ),
    (
        "gfx10+",
        sums(
            "GL2C_EA_RDREQ_32B=1 GL2C_EA_RDREQ_64B=2 GL2C_EA_RDREQ_96B=3 GL2C_EA_RDREQ_128B=4 "
            "GL2C_MC_WRREQ=7 GL2C_EA_WRREQ_64B=2"
        ),
        32 + 128 + 288 + 512,
        5 * 32 + 2 * 64,
    ),
    (
        "gfx12",
        sums("GL2C_EA_RDREQ_32B=1 GL2C_EA_RDREQ_64B=2 GL2C_EA_RDREQ_128B=4"),
        32 + 128 + 512,
        None,
    ),
]


@pytest.mark.parametrize(
    ("gfx", "counters", "fetched", "written"), CASES, ids=[case[0] for case in CASES]
)
def test_bytes_of_each_generation(
    gfx: str, counters: Counters, fetched: int, written: int | None
) -> None:
    reads, writes = traffic("fetched", counters), traffic("written", counters)
    assert (reads.size_bytes, writes.size_bytes) == (fetched, written)
    assert f"({gfx})" in (reads.how or "")


def test_a_read_of_96_bytes_that_is_unknown_is_no_sign_of_gfx12() -> None:
    counters = {**CASES[-1][1], "GL2C_EA_RDREQ_96B_sum": None}
    assert traffic("fetched", counters).size_bytes is None


def test_every_formula_has_a_case() -> None:
    assert {formula.gfx for formula in FORMULAS} == {case[0] for case in CASES}


def test_a_counter_that_is_missing_or_unknown_leaves_the_bytes_unknown() -> None:
    for _, counters, _, _ in CASES:
        for name in counters:
            flow = "written" if "WRREQ" in name else "fetched"
            absent = {k: v for k, v in counters.items() if k != name}
            for fewer in ({**counters, name: None}, absent):
                found = traffic(flow, fewer)
                has_less = "EA1" in name or (name.endswith("96B_sum") and fewer is absent)
                assert found.size_bytes is None or has_less, (name, found)
                assert not has_less or ";" in (found.how or ""), "a caveat says what it lacks"


def test_channels_add_up_only_if_all_are_there() -> None:
    channels = {f"TCC_MC_RDREQ[{i}]": i for i in range(16)}
    assert traffic("fetched", channels).size_bytes == 32 * 120
    assert traffic("fetched", {**channels, "TCC_MC_RDREQ_sum": 1}).size_bytes == 32
    assert traffic("fetched", {**channels, "TCC_MC_RDREQ[3]": None}).size_bytes is None
    del channels["TCC_MC_RDREQ[3]"]
    assert traffic("fetched", channels).size_bytes is None


def test_the_bare_name_is_the_sum_as_in_rocprofv3() -> None:
    assert traffic("fetched", {"TCC_MC_RDREQ": 2}).size_bytes == 64


def test_the_profilers_own_metric_comes_first_and_is_in_kib() -> None:
    counters = {"FETCH_SIZE": 1.5, "WriteSize": 2, "TCC_MC_RDREQ_sum": 1000}
    assert traffic("fetched", counters).size_bytes == 1536
    assert traffic("written", counters).size_bytes == 2048


def test_counters_that_contradict_each_other_give_no_bytes() -> None:
    found = traffic("fetched", {"TCC_EA_RDREQ_sum": 1, "TCC_EA_RDREQ_32B_sum": 9})
    assert found.size_bytes is None
    assert "below 0" in (found.how or "")


def test_half_the_counters_of_a_vega_20_give_a_note() -> None:
    found = traffic("fetched", {"TCC_EA_RDREQ_sum": 9, "TCC_EA_RDREQ_32B_sum": 1})
    assert "64·TCC_EA_RDREQ − 32·TCC_EA_RDREQ_32B" in (found.how or "")
    assert "one of two ports" in (found.how or "")
