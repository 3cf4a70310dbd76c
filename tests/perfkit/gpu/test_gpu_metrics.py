"""Every revision of the binary table, by the offsets of the kernel's C structures."""

import struct
from collections.abc import Mapping
from contextlib import suppress
from ctypes import sizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.gpu.gpu_metrics import (
    LAYOUTS,
    MetricsError,
    Revision,
    interpret,
    parse_table,
    structure,
)
from perfkit.gpu.schema import PLAUSIBLE_RANGES, SAMPLED_FIELDS, Found, PowerKind

#: Offset, code and value of some members of each revision, counted by hand from the structures,
#: and what they are in the schema's units.
BY_HAND: Mapping[Revision, tuple[list[tuple[int, str, int]], dict[str, float]]] = {
    (1, 0): (
        [(16, "H", 51), (28, "H", 77), (34, "H", 120), (54, "H", 1500), (68, "I", 9),
         (72, "H", 2000), (74, "B", 16), (75, "B", 80)],
        {"temp_edge_c": 51, "gpu_busy_pct": 77, "power_w": 120, "sclk_hz": 1_500_000_000,
         "throttle_bits": 9, "fan_rpm": 2000, "pcie_width": 16, "pcie_speed_gts": 8.0},
    ),
    (1, 1): (
        [(4, "H", 51), (16, "H", 77), (22, "H", 120), (54, "H", 1500), (58, "H", 945),
         (68, "I", 9), (74, "H", 16), (76, "H", 160)],
        {"temp_edge_c": 51, "gpu_busy_pct": 77, "power_w": 120, "sclk_hz": 1_500_000_000,
         "mclk_hz": 945_000_000, "throttle_bits": 9, "pcie_width": 16, "pcie_speed_gts": 16.0},
    ),
    (1, 2): (
        [(6, "H", 66), (8, "H", 70), (18, "H", 33), (72, "H", 900)],
        {"temp_junction_c": 66, "temp_memory_c": 70, "mem_busy_pct": 33, "fan_rpm": 900},
    ),
    (1, 3): (
        [(68, "I", 9), (106, "H", 1025), (112, "Q", 1 << 40)],
        {"voltage_mv": 1025, "throttle_bits": 1 << 40},
    ),
    (1, 4): (
        [(4, "H", 66), (6, "H", 70), (10, "H", 750), (12, "H", 99), (14, "H", 55),
         (24, "Q", 65_536_000), (48, "H", 16), (50, "H", 320), (250, "H", 2100), (280, "H", 1300)],
        {"temp_junction_c": 66, "temp_memory_c": 70, "power_w": 750, "gpu_busy_pct": 99,
         "mem_busy_pct": 55, "energy_j": 1000.0, "pcie_width": 16, "pcie_speed_gts": 32.0,
         "sclk_hz": 2_100_000_000, "mclk_hz": 1_300_000_000},
    ),
    (1, 5): (
        [(4, "H", 66), (10, "H", 750), (88, "Q", 65_536), (320, "H", 2100), (352, "H", 1300)],
        {"temp_junction_c": 66, "power_w": 750, "energy_j": 1.0, "sclk_hz": 2_100_000_000,
         "mclk_hz": 1_300_000_000},
    ),
    (2, 0): (
        [(16, "H", 4512), (40, "H", 2550), (44, "H", 15_250), (80, "H", 1600), (84, "H", 1200),
         (112, "I", 3)],
        {"temp_edge_c": 45.12, "gpu_busy_pct": 25.5, "power_w": 15.25, "sclk_hz": 1_600_000_000,
         "mclk_hz": 1_200_000_000, "throttle_bits": 3},
    ),
    (2, 1): (
        [(4, "H", 4512), (28, "H", 2550), (40, "H", 15_250), (76, "H", 1600), (108, "I", 3)],
        {"temp_edge_c": 45.12, "gpu_busy_pct": 25.5, "power_w": 15.25, "sclk_hz": 1_600_000_000,
         "throttle_bits": 3},
    ),
    (2, 2): (
        [(108, "I", 3), (120, "Q", 1 << 33)],
        {"throttle_bits": 1 << 33},
    ),
    (2, 3): ([(4, "H", 100), (120, "Q", 7)], {"temp_edge_c": 1.0, "throttle_bits": 7}),
    (2, 4): (
        [(28, "H", 10_000), (156, "H", 1), (156, "H", 900)],
        {"gpu_busy_pct": 100.0, "voltage_mv": 900},
    ),
    (3, 0): (
        [(4, "H", 6150), (42, "H", 87), (112, "I", 65_000)],
        {"temp_edge_c": 61.5, "gpu_busy_pct": 87, "power_w": 65.0},
    ),
}  # fmt: skip


def table(revision: Revision, members: list[tuple[int, str, int]]) -> bytes:
    size = LAYOUTS[revision][0]
    data = bytearray(b"\xff" * size)
    struct.pack_into("<HBB", data, 0, size, *revision)
    for offset, code, value in members:
        struct.pack_into(f"<{code}", data, offset, value)
    return bytes(data)


def readings(data: bytes) -> Found:
    found = Found()
    interpret(parse_table(data), SAMPLED_FIELDS, found)
    return found


@pytest.mark.parametrize("revision", LAYOUTS)
def test_a_layout_has_the_size_that_the_kernel_gives_it(revision: Revision) -> None:
    assert sizeof(structure(revision)) == LAYOUTS[revision][0]


@pytest.mark.parametrize("revision", LAYOUTS)
def test_a_table_is_read_at_the_offsets_of_its_revision(revision: Revision) -> None:
    members, expected = BY_HAND[revision]
    told = {name: r.value for name, r in readings(table(revision, members)).values.items()}
    told.pop("gpu_busy_avg_pct", None)
    assert told == expected


@pytest.mark.parametrize("revision", LAYOUTS)
def test_all_ones_are_not_available(revision: Revision) -> None:
    found = readings(table(revision, []))
    assert (found.values, found.troubles) == ({}, {})


def test_padding_behind_a_table_is_no_part_of_it() -> None:
    padded = table((1, 3), [(4, "H", 51)]) + bytes(3976)
    assert readings(padded).values["temp_edge_c"].value == 51


@pytest.mark.parametrize("offset", [4, 6, 74, 76, 106])
def test_a_zero_that_no_chip_has_is_unknown(offset: int) -> None:
    assert readings(table((1, 3), [(offset, "H", 0), (112, "Q", 1)])).values.keys() == {
        "throttle_bits"
    }


def test_watts_that_may_be_milliwatts_are_not_guessed() -> None:
    found = readings(table((2, 1), [(40, "H", 15)]))
    assert found.values == {}
    assert found.troubles["power_w"].text == "gpu_metrics:v2.1: 15, which may be W or mW"


def test_hundredths_of_old_firmware_are_refused() -> None:
    found = readings(table((3, 0), [(42, "H", 8700)]))
    assert "gpu_busy_pct" in found.troubles
    assert "gpu_busy_pct" not in found.values


def test_power_is_that_of_the_socket() -> None:
    found = readings(table((1, 4), [(10, "H", 300)]))
    assert found.values["power_w"].kind is PowerKind.SOCKET


def test_the_first_partition_that_has_a_clock_gives_it() -> None:
    found = readings(table((1, 4), [(254, "H", 1900)]))
    assert found.values["sclk_hz"].value == 1_900_000_000


@given(st.sampled_from([*LAYOUTS]), st.data())
def test_nothing_implausible_comes_out_of_random_bytes(
    revision: Revision, data: st.DataObject
) -> None:
    size = LAYOUTS[revision][0]
    body = data.draw(st.binary(min_size=size - 4, max_size=size - 4))
    try:
        found = readings(struct.pack("<HBB", size, *revision) + body)
    except MetricsError:
        assert not any(body)
        return
    for name, reading in found.values.items():
        low, high = PLAUSIBLE_RANGES[name]
        assert low <= reading.value <= high


@given(st.binary(max_size=400))
def test_random_bytes_are_a_table_or_an_error(data: bytes) -> None:
    with suppress(MetricsError):
        assert parse_table(data).revision in LAYOUTS
