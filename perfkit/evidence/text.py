"""Figures as people write them: the only place that turns numbers into text.

The terminal, tables, pictures and their descriptions all use it, so a figure reads the same
everywhere.
"""

from __future__ import annotations

import math
import re
from typing import Protocol

UNKNOWN = "unknown"
#: Outside of these a figure without a smaller or larger unit is written with a power of ten.
_PLAIN_FROM, _PLAIN_TO = 1e-6, 1e15
#: A figure outside of these takes another unit of its family, if there is one.
_KEEPS_FROM, _KEEPS_TO = 0.1, 10_000.0
#: Units of one quantity, each with its size in the first.
_FAMILIES: tuple[dict[str, float], ...] = (
    {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9},
    {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9},
    {"KiB": 1, "MiB": 2**10, "GiB": 2**20, "TiB": 2**30},
    {"Hz": 1, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    {"µJ": 1, "mJ": 1e3, "J": 1e6, "kJ": 1e9},
    {"mW": 1, "W": 1e3, "kW": 1e6},
)
#: A unit's own name, before what it is counted by.
_UNIT = re.compile(r"([^\s/]*)(.*)", re.DOTALL)


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

    A unit that would need zeros or many digits gives way to another of its family: 0.0004228 ms is
    `423 ns`. `factor` turns the value into the unit: 1e-6 for Hz in MHz. Text comes back as it is:
    a claim may be words.
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    scale, unit = _fitting(value * factor, unit)
    return f"{_digits(value * factor * scale)} {unit}".rstrip()


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """An interval's ends; a side that too few samples leave open is left out of the sentence."""
    if low is None and high is None:
        return UNKNOWN
    scale, unit = _fitting(_largest(low, high), unit)
    return _ends(low, high, scale, f" {unit}" if unit else "")


def measured(
    value: float | None, unit: str, low: float | None = None, high: float | None = None
) -> str:
    """A value and, where there is one, its interval: `4.1 ms (3.9 to 4.4)`.

    An interval that reads like the value is not repeated. An interval from 0 says that the samples
    are too few or too coarse to tell the value from 0, so only its upper end is said.
    """
    if value is None:
        return UNKNOWN if low is high is None else f"{UNKNOWN} ({interval(low, high, unit)})"
    scale, unit = _fitting(_largest(value), unit)
    if low == 0 < value and high is not None and high > value:
        return f"at most {_digits(high * scale)} {unit}".rstrip()
    text = _digits(value * scale)
    known = {_digits(end * scale) for end in (low, high) if end is not None}
    ends = "" if known <= {text} and None not in (low, high) else _ends(low, high, scale)
    return f"{text} {unit}".rstrip() + (f" ({ends})" if known and ends else "")


def estimate(figure: Estimate, unit: str = "") -> str:
    """`measured` of anything that has a value and an interval: a result, a row, an `Interval`."""
    return measured(figure.value, unit, figure.low, figure.high)


def percent(share: Estimate) -> str:
    """A share of 0..1 in percent, with its interval."""
    value, low, high = (
        None if end is None else 100 * end for end in (share.value, share.low, share.high)
    )
    return measured(value, "%", low, high)


def _ends(low: float | None, high: float | None, scale: float, unit: str = "") -> str:
    first, last = (None if end is None else _digits(end * scale) for end in (low, high))
    if first is None or last is None:
        return f"{first}{unit} or more" if last is None else f"{last}{unit} or less"
    return f"{last}{unit}" if first == last else f"{first} to {last}{unit}"


def _digits(value: float) -> str:
    if not math.isfinite(value) or (value and not _PLAIN_FROM <= abs(value) < _PLAIN_TO):
        return f"{value:.4g}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value)))) if 0 < abs(value) < 100 else 0
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _largest(*ends: float | None) -> float:
    return max((abs(end) for end in ends if end is not None), default=0.0)


def _fitting(value: float, unit: str) -> tuple[float, str]:
    """The factor and the unit in which `value` has few digits; 1 and its own unit if it has.

    What follows the unit stays: `ms per task` may become `µs per task`.
    """
    name, rest = _UNIT.match(unit).groups()  # type: ignore[union-attr]
    family = next((family for family in _FAMILIES if name in family), None)
    if family is None or not value or _KEEPS_FROM <= abs(value) < _KEEPS_TO:
        return 1.0, unit
    base = abs(value) * family[name]
    found = max((other for other in family if base >= family[other]), key=family.__getitem__,
                default=next(iter(family)))  # fmt: skip
    return family[name] / family[found], found + rest


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
