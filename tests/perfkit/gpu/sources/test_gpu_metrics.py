"""What the fields of a table mean: units, zeros and partitions, revision by revision."""

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.gpu.device.schema import PLAUSIBLE_RANGES, SAMPLED_FIELDS, Found, PowerKind
from perfkit.gpu.metrics.layouts import LAYOUTS, Revision
from perfkit.gpu.metrics.table import MetricsError, parse_table
from perfkit.gpu.sources.gpu_metrics import interpret
from tests.perfkit.gpu.trees import table_of, table_v1_3, table_v1_9

#: Offset, code and value of some members of each layout, counted by hand from the structures,
#: and what they are in the schema's units.
BY_HAND: Mapping[tuple[Revision, int], tuple[list[tuple[int, str, int]], dict[str, float]]] = {
    ((1, 0), 80): (
        [(16, "H", 51), (28, "H", 77), (34, "H", 120), (54, "H", 1500), (68, "I", 9),
         (72, "H", 2000), (74, "B", 16), (75, "B", 80)],
        {"temp_edge_c": 51, "gpu_busy_pct": 77, "power_w": 120, "sclk_hz": 1_500_000_000,
         "throttle_bits": 9, "fan_rpm": 2000, "pcie_width": 16, "pcie_speed_gts": 8.0},
    ),
    ((1, 1), 96): (
        [(4, "H", 51), (16, "H", 77), (22, "H", 120), (54, "H", 1500), (58, "H", 945),
         (68, "I", 9), (74, "H", 16), (76, "H", 160)],
        {"temp_edge_c": 51, "gpu_busy_pct": 77, "power_w": 120, "sclk_hz": 1_500_000_000,
         "mclk_hz": 945_000_000, "throttle_bits": 9, "pcie_width": 16, "pcie_speed_gts": 16.0},
    ),
    ((1, 2), 104): (
        [(6, "H", 66), (8, "H", 70), (18, "H", 33), (72, "H", 900)],
        {"temp_junction_c": 66, "temp_memory_c": 70, "mem_busy_pct": 33, "fan_rpm": 900},
    ),
    ((1, 3), 120): (
        [(68, "I", 9), (106, "H", 1025), (112, "Q", 1 << 40)],
        {"voltage_mv": 1025, "throttle_bits": 1 << 40},
    ),
    ((1, 4), 288): (
        [(4, "H", 66), (6, "H", 70), (10, "H", 750), (12, "H", 99), (14, "H", 55),
         (24, "Q", 65_536_000), (40, "I", 2), (48, "H", 16), (50, "H", 320), (250, "H", 2100),
         (280, "H", 1300)],
        {"temp_junction_c": 66, "temp_memory_c": 70, "power_w": 750, "gpu_busy_pct": 99,
         "mem_busy_pct": 55, "energy_j": 1000.0, "throttle_bits": 2, "pcie_width": 16,
         "pcie_speed_gts": 32.0, "sclk_hz": 2_100_000_000, "mclk_hz": 1_300_000_000},
    ),
    ((1, 5), 360): (
        [(4, "H", 66), (10, "H", 750), (88, "Q", 65_536), (320, "H", 2100), (352, "H", 1300)],
        {"temp_junction_c": 66, "power_w": 750, "energy_j": 1.0, "sclk_hz": 2_100_000_000,
         "mclk_hz": 1_300_000_000},
    ),
    ((1, 6), 384): (
        [(4, "H", 66), (88, "Q", 65_536), (128, "I", 4), (136, "H", 16), (138, "H", 320),
         (336, "H", 2100), (376, "H", 1300)],
        {"temp_junction_c": 66, "energy_j": 1.0, "throttle_bits": 4, "pcie_width": 16,
         "pcie_speed_gts": 32.0, "sclk_hz": 2_100_000_000, "mclk_hz": 1_300_000_000},
    ),
    ((1, 6), 1_664): (
        [(10, "H", 120), (12, "H", 1), (16, "Q", 65_536), (60, "H", 16), (62, "H", 320),
         (264, "H", 0), (266, "H", 160), (304, "H", 900)],
        {"power_w": 120, "gpu_busy_pct": 1, "energy_j": 1.0, "pcie_width": 16,
         "pcie_speed_gts": 32.0, "sclk_hz": 160_000_000, "mclk_hz": 900_000_000},
    ),
    ((1, 7), 2_208): (
        [(10, "H", 120), (24, "Q", 65_536), (68, "H", 16), (70, "H", 320), (296, "H", 2100),
         (336, "H", 1300)],
        {"power_w": 120, "energy_j": 1.0, "pcie_width": 16, "pcie_speed_gts": 32.0,
         "sclk_hz": 2_100_000_000, "mclk_hz": 1_300_000_000},
    ),
    ((1, 8), 3_872): (
        [(6, "H", 70), (14, "H", 55), (24, "Q", 65_536), (70, "H", 320), (310, "H", 2100)],
        {"temp_memory_c": 70, "mem_busy_pct": 55, "energy_j": 1.0, "pcie_speed_gts": 32.0,
         "sclk_hz": 2_100_000_000},
    ),
    ((2, 0), 120): (
        [(16, "H", 4512), (40, "H", 2550), (44, "H", 15_250), (80, "H", 1600), (84, "H", 1200),
         (112, "I", 3)],
        {"temp_edge_c": 45.12, "gpu_busy_pct": 25.5, "power_w": 15.25, "sclk_hz": 1_600_000_000,
         "mclk_hz": 1_200_000_000, "throttle_bits": 3},
    ),
    ((2, 1), 120): (
        [(4, "H", 4512), (28, "H", 2550), (40, "H", 15_250), (76, "H", 1600), (108, "I", 3)],
        {"temp_edge_c": 45.12, "gpu_busy_pct": 25.5, "power_w": 15.25, "sclk_hz": 1_600_000_000,
         "throttle_bits": 3},
    ),
    ((2, 2), 128): (
        [(108, "I", 3), (120, "Q", 1 << 33)],
        {"throttle_bits": 1 << 33},
    ),
    ((2, 3), 152): ([(4, "H", 400), (120, "Q", 7)], {"temp_edge_c": 4.0, "throttle_bits": 7}),
    ((2, 4), 168): (
        [(28, "H", 10_000), (156, "H", 900)],
        {"gpu_busy_pct": 100.0, "voltage_mv": 900},
    ),
    ((3, 0), 264): (
        [(4, "H", 6150), (42, "H", 8700), (112, "I", 65_000), (174, "H", 1600)],
        {"temp_edge_c": 61.5, "gpu_busy_pct": 87.0, "power_w": 65.0, "sclk_hz": 1_600_000_000},
    ),
}  # fmt: skip


def readings(data: bytes, chip: str = "", percent: float | None = None) -> Found:
    found = Found()
    interpret(parse_table(data), SAMPLED_FIELDS, found, chip, lambda file: percent)
    return found


def value_or_reason(found: Found, name: str) -> float | str:
    """What a table gave for a field; the reason without the name of the member."""
    if name in found.values:
        return found.values[name].value
    return found.troubles[name].text.rpartition(": ")[2]


@pytest.mark.parametrize(("revision", "size"), LAYOUTS)
def test_a_table_is_read_at_the_offsets_of_its_layout(revision: Revision, size: int) -> None:
    members, expected = BY_HAND[revision, size]
    values = readings(table_of(revision, size, members)).values
    told = {name: reading.value for name, reading in values.items()}
    told.pop("gpu_busy_avg_pct", None)
    assert told == expected


def test_a_table_of_attributes_is_read_by_their_units() -> None:
    table = table_v1_9(
        (2, 2, 0, "H", [59]), (3, 2, 3, "H", [705]), (10, 2, 4, "H", [100]),
        (10, 2, 5, "H", [0xFFFF]), (0, 6, 7, "Q", [65_536]), (0, 2, 16, "H", [16]),
        (7, 2, 17, "H", [320]), (1, 2, 33, "H", [1262, 1317]), (1, 2, 37, "H", [1300]),
    )  # fmt: skip
    values = readings(table, "Aqua Vanjaram MI300").values
    told = {name: reading.value for name, reading in values.items()}
    assert told == {
        "temp_junction_c": 59, "power_w": 705, "gpu_busy_pct": 100, "gpu_busy_avg_pct": 100,
        "energy_j": 1.0, "pcie_width": 16, "pcie_speed_gts": 32.0, "sclk_hz": 1_262_000_000,
        "mclk_hz": 1_300_000_000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "chip"),
    [
        (table_v1_3(energy_accumulator=1 << 20), "Navi 21"),
        (table_v1_9((0, 6, 7, "Q", [1 << 20])), ""),
    ],
)
def test_energy_without_a_documented_unit_is_unknown(table: bytes, chip: str) -> None:
    told = value_or_reason(readings(table, chip), "energy_j")
    assert told == "1,048,576 in a unit that is not documented"


# Zeros that stand for unknown


@pytest.mark.parametrize(
    ("member", "name"),
    [
        ("temperature_edge", "temp_edge_c"),
        ("temperature_mem", "temp_memory_c"),
        ("average_socket_power", "power_w"),
        ("current_gfxclk", "sclk_hz"),
        ("current_uclk", "mclk_hz"),
        ("current_fan_speed", "fan_rpm"),
        ("voltage_gfx", "voltage_mv"),
        ("pcie_link_width", "pcie_width"),
    ],
)
def test_a_zero_that_no_running_card_has_is_unknown_with_a_reason(member: str, name: str) -> None:
    found = readings(table_v1_3(temperature_hotspot=50, **{member: 0}))
    assert found.values.keys() == {"temp_junction_c"}
    assert found.troubles[name].text.startswith(f"gpu_metrics:v1.3:{member}: 0")


def test_a_clock_that_is_not_filled_gives_way_to_the_average() -> None:
    table = table_of((1, 3), 120, [(40, "H", 1200), (54, "H", 0)])
    assert readings(table).values["sclk_hz"].source == "gpu_metrics:v1.3:average_gfxclk"


def test_no_zero_counts_in_a_table_that_is_not_filled() -> None:
    hollow = table_v1_3(
        average_socket_power=0, current_gfxclk=0, average_gfx_activity=0, throttle_status=0
    )
    assert readings(hollow).values == {}
    idle = table_v1_3(temperature_edge=40, average_gfx_activity=0, throttle_status=0)
    assert readings(idle).values["gpu_busy_pct"].value == 0
    assert readings(idle).values["throttle_bits"].value == 0


@pytest.mark.parametrize(("revision", "size", "at"), [((1, 4), 288, 40), ((1, 6), 384, 128)])
def test_the_status_that_the_driver_never_fills_is_unknown(
    revision: Revision, size: int, at: int
) -> None:
    found = readings(table_of(revision, size, [(4, "H", 50), (at, "I", 0)]))
    assert "whether or not" in str(value_or_reason(found, "throttle_bits"))


@pytest.mark.parametrize(("revision", "size"), [((1, 6), 1_664), ((1, 8), 3_872), ((3, 0), 264)])
def test_counters_of_throttled_time_are_no_status(revision: Revision, size: int) -> None:
    found = readings(table_of(revision, size, [(4, "H", 5_000)]))
    text = "counters of throttled time, which say nothing of this moment"
    assert value_or_reason(found, "throttle_bits") == text


# Units that are not certain


@pytest.mark.parametrize(
    ("revision", "size", "at", "chip", "raw", "file", "expected"),
    [
        # the driver's file decides, whatever the chip
        ((2, 3), 152, 28, "Van Gogh", 97, 97, 97),
        ((2, 1), 120, 28, "Phoenix", 79, 0, 0.79),
        ((2, 2), 128, 28, "", 42, 41, 42),
        ((2, 2), 128, 28, "Renoir", 60, 62, 60),
        ((3, 0), 264, 42, "Strix", 79, 0, 0.79),
        ((3, 0), 264, 42, "Strix", 79, 80, 79),
        ((1, 3), 120, 16, "Navi 21", 8_700, 87, 87),
        ((1, 3), 120, 16, "Navi 21", 79, 1, 0.79),
        # then the chip
        ((2, 3), 152, 28, "Van Gogh", 97, None, 97),
        ((2, 2), 128, 28, "Renoir", 97, None, 0.97),
        ((2, 1), 120, 28, "Hawk Point", 50, 25, 0.5),
        ((1, 3), 120, 16, "Navi 21", 79, 20, 79),
        ((1, 8), 3_872, 12, "MI350", 50, 0, 50),
        # then nothing
        ((2, 2), 128, 28, "", 97, None, "97, which may be % or hundredths of %"),
        ((2, 2), 128, 28, "Cyan Skillfish", 97, None, "97, which may be % or hundredths of %"),
        ((3, 0), 264, 42, "Strix", 97, None, "97, which may be % or hundredths of %"),
        # above 100 it can't be percent
        ((3, 0), 264, 42, "Strix", 8_700, None, 87),
        ((2, 3), 152, 28, "Van Gogh", 8_700, None, 87),
        ((1, 3), 120, 16, "Navi 21", 8_700, None, "8,700 is not within 0 … 100"),
        # nothing to decide
        ((2, 2), 128, 28, "", 0, None, 0),
    ],
)
def test_utilisation_is_in_the_unit_that_the_file_or_the_chip_says(
    revision: Revision, size: int, at: int, chip: str, raw: int, file: float | None,
    expected: float | str,
) -> None:  # fmt: skip
    found = readings(table_of(revision, size, [(at, "H", raw)]), chip, file)
    assert value_or_reason(found, "gpu_busy_avg_pct") == expected


@pytest.mark.parametrize(
    ("revision", "size", "at", "chip", "raw", "expected"),
    [
        ((2, 1), 120, 40, "Renoir", 15, "15, which may be W or mW"),
        ((2, 1), 120, 40, "", 15, "15, which may be W or mW"),
        ((2, 1), 120, 40, "Renoir", 15_000, 15),
        ((2, 4), 168, 40, "Van Gogh", 450, 0.45),
        ((1, 3), 120, 22, "Navi 21", 15, 15),
    ],
)
def test_watts_that_may_be_milliwatts_are_not_guessed(
    revision: Revision, size: int, at: int, chip: str, raw: int, expected: float | str
) -> None:
    found = readings(table_of(revision, size, [(at, "H", raw)]), chip)
    assert value_or_reason(found, "power_w") == expected


@pytest.mark.parametrize(("revision", "size"), [((2, 1), 120), ((3, 0), 264)])
def test_degrees_that_may_be_hundredths_are_not_guessed(revision: Revision, size: int) -> None:
    found = readings(table_of(revision, size, [(4, "H", 55)]))
    assert value_or_reason(found, "temp_edge_c") == "55, which may be °C or hundredths of °C"


# Partitions


def test_power_is_that_of_the_socket() -> None:
    found = readings(table_of((1, 4), 288, [(10, "H", 300)]))
    assert found.values["power_w"].kind is PowerKind.SOCKET


def test_the_first_partition_that_has_a_clock_gives_it() -> None:
    found = readings(table_of((1, 4), 288, [(254, "H", 1900)]))
    assert found.values["sclk_hz"].value == 1_900_000_000


def test_without_a_figure_for_the_card_the_mean_of_its_partitions_is_its_own() -> None:
    busy = [(306, "H", 2), (312, "I", 100), (316, "I", 80), (480, "I", 0), (484, "I", 0)]
    found = readings(table_of((1, 6), 1_664, busy))
    assert found.values["gpu_busy_pct"].value == 45
    assert found.values["gpu_busy_pct"].source == "gpu_metrics:v1.6:partitions"
    assert value_or_reason(readings(table_of((1, 6), 1_664, [*busy, (12, "H", 50)])),
                           "gpu_busy_pct") == 50  # fmt: skip


def test_partitions_that_differ_are_told_one_by_one() -> None:
    busy = [(12, "H", 50), (306, "H", 2), (312, "I", 100), (480, "I", 0)]
    found = readings(table_of((1, 6), 1_664, busy))
    assert found.values["gpu_busy_avg_pct"].value == 50
    assert found.troubles["gpu_busy_avg_pct"].text == (
        "gpu_metrics:v1.6: partitions are busy 100, 0 %"
    )
    alike = [(12, "H", 50), (306, "H", 2), (312, "I", 50), (480, "I", 51)]
    assert "gpu_busy_avg_pct" not in readings(table_of((1, 6), 1_664, alike)).troubles


@given(st.sampled_from([*LAYOUTS]), st.data())
def test_nothing_implausible_comes_out_of_random_bytes(
    layout: tuple[Revision, int], data: st.DataObject
) -> None:
    revision, size = layout
    body = data.draw(st.binary(min_size=size - 4, max_size=size - 4))
    try:
        found = readings(struct.pack("<HBB", size, *revision) + body)
    except MetricsError:
        assert not any(body)
        return
    for name, reading in found.values.items():
        low, high = PLAUSIBLE_RANGES[name]
        assert low <= reading.value <= high
