"""Figures as text: rounded the same everywhere, and never an unknown as a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.evidence.samples import Interval
from perfkit.evidence.text import duration, estimate, interval, measured, percent, quantity, size


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "unknown"),
        ("about 15", "ms", "about 15"),
        (0, "ms", "0 ms"),
        (0.0123456, "ms", "12.35 µs"),
        (0.0004228, "ms", "423 ns"),
        (12_345.6, "ms", "12.35 s"),
        (0.05, "ms per task", "50 µs per task"),
        (0.25, "ms", "0.25 ms"),
        (1_310.4, "×", "1,310 ×"),
        (123.456, "%", "123 %"),
        (20_000, "MiB/s", "19.53 GiB/s"),
        (1e-12, "s", "0.001 ns"),
        (41_234.5, "tasks/s", "41,234 tasks/s"),
        (1.50, "", "1.5"),
        (-3, "°C", "-3 °C"),
        (float("inf"), "s", "inf s"),
        (1.23456e-9, "", "1.235e-09"),
    ],
)
def test_a_quantity_as_people_write_it(value: float | str | None, unit: str, text: str) -> None:
    assert quantity(value, unit) == text
    assert quantity(611_000_000, "MHz", 1e-6) == "611 MHz"


@given(st.floats(min_value=1e-9, max_value=1e15) | st.floats(min_value=-1e15, max_value=-1e-9))
def test_rounding_keeps_three_digits(value: float) -> None:
    assert float(quantity(value).replace(",", "")) == pytest.approx(value, rel=6e-3)


@given(st.floats(min_value=1e-9, max_value=1e6), st.sampled_from(["ns", "ms", "s", "B", "MiB/s"]))
def test_a_unit_with_others_beside_it_has_few_digits(value: float, unit: str) -> None:
    digits = quantity(value, unit).split()[0].replace(",", "")
    smallest = value * {"ns": 1, "ms": 1e6, "s": 1e9, "B": 1, "MiB/s": 2**10}[unit] < 0.1
    largest = value >= 10_000 and unit in ("s", "MiB/s")
    assert smallest or largest or len(digits.replace(".", "").lstrip("0")) <= 4


def test_an_open_side_of_an_interval_is_said_in_words() -> None:
    assert interval(1, 2, "ms") == "1 to 2 ms"
    assert interval(15.39, None, "ms") == "15.39 ms or more"
    assert interval(None, None, "ms") == "unknown"
    assert measured(1.5, "ms", 1, 2) == "1.5 ms (1 to 2)"
    assert measured(1.5, "ms", None, 2) == "1.5 ms (2 or less)"
    assert measured(None, "ms") == "unknown"
    assert estimate(Interval(1.5, 1, 2, 0.95, ""), "ms") == "1.5 ms (1 to 2)"
    assert percent(Interval(0.25, 0.2, None, 0.95, "")) == "25 % (20 or more)"


def test_a_value_and_its_ends_share_a_unit() -> None:
    assert measured(0.0004, "ms", 0.0003, 0.0012) == "400 ns (300 to 1,200)"
    assert interval(0.0001, 0.0002, "ms") == "100 to 200 ns"


def test_an_interval_that_says_nothing_more_is_not_said() -> None:
    assert measured(100.0, "%", 100.0, 100.0) == "100 %"
    assert measured(1.00001, "×", 1.0, 1.00002) == "1 ×"
    assert interval(2, 2, "s") == "2 s"
    assert measured(5, "B", 5, None) == "5 B (5 or more)"


def test_what_cannot_be_told_from_nothing_has_only_an_upper_end() -> None:
    assert measured(375.5, "µs", 0.0, 760.1) == "at most 760 µs"
    assert measured(0.0, "B", 0.0, 10.0) == "0 B (0 to 10)"
    assert measured(3.0, "B", 0.0, None) == "3 B (0 or more)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (4.2, "4.2 s"),
        (125, "2 min 5 s"),
        (3_600, "1 h 0 min"),
        (3_785, "1 h 3 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_size_is_rounded_and_a_growth_carries_its_sign() -> None:
    assert [size(n) for n in (None, 999, 1_536, 300 * 2**20)] == [
        "unknown", "999 B", "1.5 KiB", "300 MiB"
    ]  # fmt: skip
    assert [size(n, sign="+") for n in (0, 2_048, -3 * 2**20)] == ["+0 B", "+2.0 KiB", "-3.0 MiB"]
