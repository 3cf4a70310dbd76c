"""Every layout by the offsets of the kernel's C structures, and attributes by their encoding."""

import struct
from contextlib import suppress
from ctypes import sizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.gpu.metrics.layouts import LAYOUTS, Revision, structure
from perfkit.gpu.metrics.table import MetricsError, parse_table
from tests.perfkit.gpu.trees import table_of, table_v1_3, table_v1_9


@pytest.mark.parametrize(("revision", "size"), LAYOUTS)
def test_a_layout_has_the_size_that_the_kernel_gives_it(revision: Revision, size: int) -> None:
    assert sizeof(structure(revision, size)) == size


@pytest.mark.parametrize(("revision", "size"), LAYOUTS)
def test_all_ones_are_not_available(revision: Revision, size: int) -> None:
    table = parse_table(table_of(revision, size, []))
    assert {number for name in table.members for number in table.numbers(name)} == set()
    assert table.partitions() == ()


def test_padding_behind_a_table_is_no_part_of_it() -> None:
    padded = table_v1_3(temperature_edge=51) + bytes(3976)
    assert parse_table(padded).members["temperature_edge"] == 51


def test_the_two_layouts_of_1_6_are_told_apart_by_their_size() -> None:
    """The short one has the video engines before the energy, the other one partitions."""
    short = parse_table(table_of((1, 6), 384, [(88, "Q", 1), (376, "H", 2)]))
    other = parse_table(table_of((1, 6), 1_664, [(16, "Q", 1), (304, "H", 2)]))
    for table in (short, other):
        assert table.numbers("energy_accumulator") == (1,)
        assert table.numbers("current_uclk") == (2,)


@pytest.mark.parametrize(
    ("revision", "size", "count_at", "first_at", "each"),
    [
        ((1, 6), 1_664, 306, 312, 168),
        ((1, 7), 2_208, 338, 344, 232),
        ((1, 8), 3_872, 338, 344, 440),
    ],
)
def test_as_many_partitions_are_told_as_there_are(
    revision: Revision, size: int, count_at: int, first_at: int, each: int
) -> None:
    dies = [(first_at, "I", 90), (first_at + 4, "I", 80), (first_at + each, "I", 10)]
    unused = [(first_at + 2 * each, "I", 50)]
    table = parse_table(table_of(revision, size, [(count_at, "H", 2), *dies, *unused]))
    assert table.partitions() == ((90, 80), (10,))


def test_an_attribute_is_read_by_its_id_and_type() -> None:
    table = parse_table(
        table_v1_9(
            (2, 2, 0, "H", [42]),
            (0, 6, 7, "Q", [1 << 40]),
            (1, 2, 33, "H", [0xFFFF, 2_100]),
            (2, 3, 1, "h", [-1]),
            (10, 4, 40, "I", [7, 0xFFFFFFFF, 9]),
        )
    )
    assert table.members == {
        "temperature_hotspot": (42,),
        "energy_accumulator": (1 << 40,),
        "current_gfxclk": (None, 2_100),
        "temperature_mem": (None,),
        "gfx_busy_inst": (7, None, 9),
    }
    assert table.partitions() == ((7,), (9,))


#: Unit, type, code, first id, how many attributes like it, and values of each, in the order of
#: `SMU_13_0_6_METRICS_FIELDS` in the kernel's swsmu/smu13/smu_v13_0_6_ppt.h.
MI300 = (
    (2, 2, "H", 0, 3, 1), (3, 2, "H", 3, 1, 1), (10, 2, "H", 4, 2, 1), (8, 6, "Q", 6, 1, 1),
    (0, 6, "Q", 7, 1, 1), (4, 6, "Q", 8, 1, 1), (0, 4, "I", 9, 7, 1), (0, 2, "H", 16, 1, 1),
    (7, 2, "H", 17, 1, 1), (0, 2, "H", 18, 1, 1), (6, 2, "H", 19, 1, 1), (10, 4, "I", 20, 2, 1),
    (10, 6, "Q", 22, 1, 1), (8, 6, "Q", 23, 1, 1), (0, 6, "Q", 24, 3, 1), (0, 4, "I", 27, 2, 1),
    (9, 6, "Q", 29, 2, 8), (0, 2, "H", 31, 1, 8), (5, 6, "Q", 32, 1, 1), (1, 2, "H", 33, 1, 8),
    (1, 2, "H", 34, 3, 4), (1, 2, "H", 37, 1, 1), (0, 4, "I", 39, 1, 1), (10, 4, "I", 40, 1, 8),
    (10, 2, "H", 41, 1, 40), (10, 2, "H", 42, 1, 4), (10, 6, "Q", 43, 1, 8), (0, 6, "Q", 44, 4, 8),
)  # fmt: skip


def test_the_attributes_of_an_mi300_make_the_size_that_such_a_card_gives() -> None:
    """47 attributes in 1,150 bytes were reported of an MI300X with amdgpu 6.16."""
    attributes = [
        (unit, kind, first + number, code, [first + number] * values)
        for unit, kind, code, first, count, values in MI300
        for number in range(count)
    ]
    data = table_v1_9(*attributes)
    assert (len(attributes), len(data)) == (47, 1_150)
    told = parse_table(data)
    assert told.numbers("curr_socket_power") == (3,)
    assert told.numbers("current_gfxclk") == (33,) * 8
    assert told.partitions() == ((40,),) * 8


def test_attributes_that_are_not_used_are_stepped_over() -> None:
    table = parse_table(table_v1_9((0, 0, 900, "B", [1, 2, 3]), (3, 2, 3, "H", [194])))
    assert table.members == {"curr_socket_power": (194,)}


def test_an_attribute_in_another_unit_is_left_out() -> None:
    assert parse_table(table_v1_9((4, 2, 3, "H", [194]))).members == {}


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (table_v1_9((3, 2, 3, "H", [194]), count=2), "attributes do not fit into 18 bytes"),
        (table_v1_9((3, 8, 3, "H", [194])), "type 8 of an attribute is not known"),
        (struct.pack("<HBB", 6, 1, 9) + b"\1\0", "attributes do not fit into 6 bytes"),
        (table_of((1, 6), 312, [(16, "Q", 1)]), "312 bytes where v1.6 has 384 or 1664"),
        (table_v1_9((3, 2, 3, "H", [194]))[:-1], "cut off after 17 of 18 bytes"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table: bytes, reason: str) -> None:
    with pytest.raises(MetricsError, match=f"^{reason}$"):
        parse_table(table)


@given(st.binary(max_size=400))
def test_random_bytes_are_a_table_or_an_error(data: bytes) -> None:
    with suppress(MetricsError):
        parse_table(data)


@given(st.binary(max_size=200), st.integers(-1, 20))
def test_random_attributes_are_a_table_or_an_error(data: bytes, count: int) -> None:
    with suppress(MetricsError):
        parse_table(struct.pack("<HBBi", 8 + len(data), 1, 9, count) + data)
