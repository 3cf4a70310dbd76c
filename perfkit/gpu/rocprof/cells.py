"""Single values of a profiler's file, and notes on those that cannot be trusted.

Such files pass through spreadsheets, merge scripts and text editors. A value that was damaged on
the way is unknown, and a note says so; only a file that is no profile is an error. Both name the
place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from cluster.vocabulary.printable import count_of

#: A double holds every whole number up to this one (IEEE 754, binary64).
EXACT_MAX = 2**53
#: Lines that a note names before it counts the rest.
LINES_NAMED = 3
#: Also what the profilers print for a metric that was divided by 0.
UNKNOWN_WORDS = frozenset(
    {"", "n/a", "na", "<na>", "nan", "-nan", "inf", "-inf", "none", "null", "unknown", "-", "?"}
)

_NUMBER = re.compile(r"-?\d{1,40}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,3})?", re.ASCII)


class RocprofError(ValueError):
    """A file that is no profile: which file, where in it, why, and what to do."""


class LostDigits(ValueError):
    """A number whose last digits are gone, so its value is unknown."""


class NotANumber(ValueError):
    """Text in place of a number."""


class SourceFile:
    """The file being read, under the name for messages, and the notes on it.

    Like notes are one note with the lines they are about, so a long file has no more of them than
    a short one.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.spellings: dict[str, str] = {}
        self._notes: dict[str, list[int]] = {}
        self._numeric: set[str] = set()
        self._no_numbers: dict[str, RocprofError] = {}
        self._sizes: dict[tuple[int, ...], tuple[int, ...]] = {}

    def note(self, text: str, line: int | None = None) -> None:
        """Add what was repaired or left out, and on which line."""
        lines = self._notes.setdefault(text, [])
        if line is not None:
            lines.append(line)

    def called(self, name: str) -> str:
        """The file's own spelling of a column, for messages."""
        return self.spellings.get(name, name)

    def shared(self, sizes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """An equal tuple that was seen before: a long file repeats a few sizes."""
        return None if sizes is None else self._sizes.setdefault(sizes, sizes)

    def error(self, what: str, to_do: str, line: int | None = None) -> RocprofError:
        """The error to raise: `file, line 3: what; to_do`, printable in one line."""
        place = self.file if line is None else f"{self.file}, line {line}"
        return RocprofError(printable(f"{place}: {what}; {to_do}"))

    def is_number(self, name: str) -> None:
        """A value of this column was a number."""
        self._numeric.add(name)

    def is_no_number(self, name: str, value: str, place: str, line: int | None) -> None:
        """A value of this column was text, which makes it unknown if others are numbers."""
        self.note(f"{self.called(name)} is no number and is unknown", line)
        what = f"{self.called(name)}{place} is {value[:40]!r}, which is no number"
        error = self.error(what, "correct or delete the record", line)
        self._no_numbers.setdefault(name, error)

    def check(self) -> None:
        """Raise RocprofError if a column of numbers had text alone: the file is something else."""
        for name, error in self._no_numbers.items():
            if name not in self._numeric:
                raise error

    def notes(self) -> tuple[str, ...]:
        """Every note with its lines, in the order of their first lines."""
        return tuple(f"{_lines(lines)}{text}" for text, lines in self._notes.items())


def is_number(text: str) -> bool:
    """Whether `exact` takes it for one, with or without all its digits."""
    return _NUMBER.fullmatch(text) is not None


def exact(text: str, shift: int = 0) -> int | Fraction:
    """A number times 10**shift, which is 0 or more, as it is written.

    Raises LostDigits for `1.62068E+14`, which stands for any of 10**9 numbers, and for a number
    above 2**53 with a point or an exponent, which a double has rounded. Raises NotANumber.
    """
    if not is_number(text):
        raise NotANumber(text)
    if text.lstrip("-").isdigit():
        return int(text) * int(10**shift)
    written = Decimal(text)
    if written and int(written.as_tuple().exponent) > 0:
        raise LostDigits(text)
    if written.copy_abs() > EXACT_MAX:
        raise LostDigits(text)
    value = Fraction(written) * int(10**shift)
    return value.numerator if value.denominator == 1 else value


def rounded(value: int | Fraction) -> int | float:
    """The value itself if it is whole, else the nearest double."""
    return value if isinstance(value, int) else float(value)


def printable(text: str) -> str:
    """The text with � for whatever a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def clean(text: str, source: SourceFile, line: int | None) -> str:
    """A name that can be printed and encoded anywhere."""
    text = text.strip()
    if not text.isprintable():
        source.note("unprintable characters in a name are shown as �", line)
    return printable(text)


def _lines(lines: list[int]) -> str:
    if not lines:
        return ""
    named = list(_ranges(lines))
    shown = ", ".join(named[:LINES_NAMED])
    more = (
        f" and {count_of(len(named) - LINES_NAMED, 'more place')}"
        if len(named) > LINES_NAMED
        else ""
    )
    return f"line{'s' if len(lines) > 1 else ''} {shown}{more}: "


def _ranges(lines: list[int]) -> Iterator[str]:
    """Line numbers with neighbours joined: 2, 5-9."""
    unique = sorted(set(lines))
    first = unique[0]
    for line, following in pairwise([*unique, None]):
        assert line is not None
        if following != line + 1:
            yield str(line) if first == line else f"{first}-{line}"
            first = following or line
