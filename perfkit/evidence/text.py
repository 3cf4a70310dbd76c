"""Figures as people write them: the only place that turns numbers into text.

The terminal, tables, pictures and their descriptions all use it, so a figure reads the same
everywhere.
"""

from __future__ import annotations

import math
from typing import Protocol

UNKNOWN = "unknown"
#: Outside of these a figure is written with a power of ten.
_PLAIN_FROM, _PLAIN_TO = 1e-6, 1e15


class Estimate(Protocol):
    """A value and the ends of its interval; unknown is None."""

    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def quantity(value: float | str | None, unit: str = "", factor: float = 1) -> str:
    """A figure to four significant digits, thousands set off, with its unit; None is `unknown`.

    `factor` turns the value into the unit: 1e-6 for Hz in MHz. Text comes back as it is: a claim
    may be words.
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    value *= factor
    if value == 0 or not _PLAIN_FROM <= abs(value) < _PLAIN_TO:
        text = f"{value:.4g}"
    else:
        decimals = max(0, 3 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
    return f"{text} {unit}".rstrip()


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """An interval's ends; a side that too few samples leave open is said to be unknown."""
    if low is None and high is None:
        return UNKNOWN
    return f"{quantity(low)} to {quantity(high, '' if high is None else unit)}"


def measured(
    value: float | None, unit: str, low: float | None = None, high: float | None = None
) -> str:
    """A value and, where there is one, its interval: `4.1 ms (3.9 to 4.4)`."""
    known = low is not None or high is not None
    return quantity(value, "" if value is None else unit) + (
        f" ({interval(low, high)})" if known else ""
    )


def estimate(figure: Estimate, unit: str = "") -> str:
    """`measured` of anything that has a value and an interval: a result, a row, an `Interval`."""
    return measured(figure.value, unit, figure.low, figure.high)


def percent(share: Estimate) -> str:
    """A share of 0..1 in percent, with its interval."""
    value, low, high = (
        None if end is None else 100 * end for end in (share.value, share.low, share.high)
    )
    return measured(value, "%", low, high)


def duration(seconds: float) -> str:
    """Seconds as `4.2 s`, `2 min 5 s` or `1 h 3 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(size_bytes: int | None, sign: str = "-") -> str:
    """A size as `999 B`, `1.5 KiB` or `300 MiB`; None is `unknown`.

    With `sign="+"` a growth carries its sign.
    """
    if size_bytes is None:
        return UNKNOWN
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    decimals = 0 if unit == "B" or abs(value) >= 100 else 1
    return f"{value:{sign}.{decimals}f} {unit}"
