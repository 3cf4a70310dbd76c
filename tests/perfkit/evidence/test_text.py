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
        (0.0123456, "ms", "0.01235 ms"),
        (41_234.5, "tasks/s", "41,234 tasks/s"),
        (1.50, "", "1.5"),
        (-3, "°C", "-3 °C"),
        (float("inf"), "s", "inf s"),
        (1.23456e-9, "s", "1.235e-09 s"),
    ],
)
def test_a_quantity_as_people_write_it(value: float | str | None, unit: str, text: str) -> None:
    assert quantity(value, unit) == text
    assert quantity(611_000_000, "MHz", 1e-6) == "611 MHz"


@given(st.floats(min_value=1e-9, max_value=1e15) | st.floats(min_value=-1e15, max_value=-1e-9))
def test_rounding_keeps_four_digits(value: float) -> None:
    assert float(quantity(value).replace(",", "")) == pytest.approx(value, rel=6e-4)


def test_an_open_side_of_an_interval_is_unknown() -> None:
    assert interval(1, 2, "ms") == "1 to 2 ms"
    assert interval(1, None, "ms") == "1 to unknown"
    assert interval(None, None, "ms") == "unknown"
    assert measured(1.5, "ms", 1, 2) == "1.5 ms (1 to 2)"
    assert measured(1.5, "ms", None, 2) == "1.5 ms (unknown to 2)"
    assert measured(None, "ms") == "unknown"
    assert estimate(Interval(1.5, 1, 2, 0.95, ""), "ms") == "1.5 ms (1 to 2)"
    assert percent(Interval(0.25, 0.2, None, 0.95, "")) == "25 % (20 to unknown)"


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
