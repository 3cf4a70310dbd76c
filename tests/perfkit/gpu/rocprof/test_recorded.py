"""Profiles of real cards, with values read by hand from the files.

MI100 under rocprof v1 (ROCm 5.7.1) and rocprofv3's two generations of columns; the files are not
part of the project.
"""

import pytest

from perfkit.gpu.rocprof import KernelProfile, read
from tests.perfkit.gpu.trees import RECORDINGS

FOLDER = RECORDINGS / "rocprof"
ADDITION = "void addition_kernel<float>(float*, float const*, float const*, int, int)"
DIVIDE = "divide_kernel(float*, float const*, float const*, int, int)"
SUBTRACT = "subtract_kernel(float*, float const*, float const*, int, int)"
VECCOPY = "vecCopy(double*, double*, double*, int, int)"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recorded profiles in {FOLDER}")


def recorded(name: str) -> KernelProfile:
    return read(FOLDER / name)


def times(profile: KernelProfile) -> list[tuple[str, int | None, int | None]]:
    return [(kernel.name, kernel.start_ns, kernel.duration_ns) for kernel in profile.kernels]


V1_TIMES = [
    (VECCOPY, 2829564995003981, 24320),
    (VECCOPY, 2829564995115821, 19040),
    (VECCOPY, 2829564995155181, 19040),
]


@pytest.mark.parametrize("name", ["timestamps.csv", "SQ_LEVEL_WAVES.csv", "pmc_perf.csv"])
def test_v1_times(name: str) -> None:
    profile = recorded(f"v1/{name}")
    assert times(profile) == V1_TIMES
    assert {(k.grid, k.workgroup, k.device) for k in profile.kernels} == {((1048576,), (256,), "2")}


def test_v1_without_times() -> None:
    assert times(recorded("v1/pmc_dispatch_info.csv")) == [(VECCOPY, None, None)] * 3


def test_v1_counters_of_an_mi100_and_the_bytes_that_follow() -> None:
    profile = recorded("v1/pmc_perf.csv")
    first, second, third = profile.kernels
    assert first.counters["TCC_EA_RDREQ_sum"] == 131284
    assert first.counters["TCC_EA_WRREQ_64B_sum"] == 131072
    # No read was of 32 bytes and every write of 64.
    assert [k.fetched_bytes for k in profile.kernels] == [131284 * 64, 131243 * 64, 131270 * 64]
    assert [k.written_bytes for k in profile.kernels] == [131072 * 64, 86366 * 64, 86432 * 64]
    assert first.bandwidth_bytes_per_s == pytest.approx(690.41e9, rel=1e-4)
    assert "wave_size" not in " ".join(first.counters)
    assert len(first.counters) == 978 - 11 - 16 - 2  # less those of the dispatch and the times
    assert (second.counters["SQ_WAVES"], third.counters["SQC_ICACHE_MISSES"]) == (16384, 0)


def test_v1_other_counters() -> None:
    first = recorded("v1/SQ_LEVEL_WAVES.csv").kernels[0]
    assert (first.counters["SQ_WAVES"], first.counters["SQ_ACCUM_PREV_HIRES"]) == (16384, 100650916)
    assert "DispatchNs" not in first.counters
    assert first.fetched_bytes is None


def test_v3_trace_of_2024() -> None:
    profile = recorded("v3_2024/kernel_trace.csv")
    assert len(profile.kernels) == 7
    assert times(profile)[:3] == [
        (ADDITION, 8819330200067564, 48744),
        (ADDITION, 8819330200118678, 100895),
        (SUBTRACT, 8819330200120456, 103265),
    ]
    assert profile.kernels[0].grid == (1024, 1024, 1)
    assert (profile.kernels[1].device, profile.kernels[1].queue) == ("1", "2")


def test_v3_counters_of_2024_have_no_times() -> None:
    profile = recorded("v3_2024/counter_collection.csv")
    assert [k.dispatch for k in profile.kernels] == ["1", "2", "5", "9", "13", "3", "6"]
    assert {k.counters["SQ_WAVES"] for k in profile.kernels} == {16384}
    assert {k.duration_ns for k in profile.kernels} == {None}


def test_v3_copies_of_2024() -> None:
    assert [
        (t.direction, t.source, t.destination, t.duration_ns)
        for t in recorded("v3_2024/memory_copy_trace.csv").transfers
    ] == [("host_to_device", "0", "1", 563880), ("device_to_host", "1", "0", 581800)]


def test_v3_trace_of_2025() -> None:
    profile = recorded("v3_2025/kernel_trace.csv")
    assert len(profile.kernels) == 9
    assert times(profile)[:2] == [
        (ADDITION, 1550151853029637, 12800),
        (DIVIDE, 1550151853064037, 11200),
    ]
    assert (profile.kernels[0].device, profile.kernels[0].workgroup) == ("Agent 4", (64, 1, 1))
    # 12800 + 11400 + 9840 and 11200 + 12440, of 96160 in all
    top = profile.top_kernels(2).kernels
    assert [(t.name, t.calls, t.total_ns) for t in top] == [
        (ADDITION, 3, 34040),
        (DIVIDE, 2, 23640),
    ]
    assert top[0].time_share == pytest.approx(34040 / 96160)


def test_v3_counters_of_2025_have_times() -> None:
    profile = recorded("v3_2025/counter_collection.csv")
    assert times(profile)[0] == (ADDITION, 3200098838431081, 52151)
    assert [k.counters for k in profile.kernels] == [{"SQ_WAVES": 16384}] * 4
    assert profile.kernels[3].grid == (1048576,)


def test_v3_copies_of_2025() -> None:
    assert [
        (t.direction, t.start_ns, t.duration_ns)
        for t in recorded("v3_2025/memory_copy_trace.csv").transfers
    ] == [
        ("host_to_device", 1057963336487172, 77040),
        ("host_to_device", 1057963336783973, 75361),
        ("device_to_host", 1057963497396292, 75440),
        ("device_to_host", 1057963498099125, 101321),
    ]


@pytest.mark.parametrize(
    "name",
    ["v1/timestamps.csv", "v1/SQ_LEVEL_WAVES.csv", "v3_2024/kernel_trace.csv"]
    + [f"v3_2025/{kind}.csv" for kind in ("kernel_trace", "memory_copy_trace")],
)
def test_a_file_without_defects_needs_no_notes(name: str) -> None:
    assert recorded(name).notes == ()
