"""The vendor's tools as a last resort: optional, slow, and every release with other keys.

They start a process each time, take a second and may hang with the driver, so what one said is kept
for a while and a time-out ends it. What a tool says is parsed apart from asking it, into the same
readings as any other source has.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from perfkit.gpu.base import Found

TIMEOUT_S = 5.0
CACHE_S = 2.0
#: A tool that failed is left alone for longer: it is missing, or the driver hangs.
RETRY_S = 60.0
#: More than this is no answer about cards.
OUTPUT_BYTES = 16 << 20

#: Plain decimals only: no exponent, no underscore, nothing infinite.
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?")


class ToolError(Exception):
    """A tool gave no answer that can be read; the message says what happened."""


def run(command: Sequence[str], timeout_s: float = TIMEOUT_S) -> str:
    """What a command prints; raises ToolError when it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise ToolError(f"{command[0]} gave no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise ToolError(f"{command[0]}: {error.strerror}") from None
    if done.returncode and not done.stdout.strip():
        raise ToolError(f"{command[0]} ended with {done.returncode}")
    return done.stdout[:OUTPUT_BYTES].decode("utf-8", "replace")


class Tool:
    """Something that is asked about all cards at once, not more often than every `cache_s`.

    `ask` gives the readings of each card by PCI address, or by `card0` where it tells none, and
    raises ToolError; `clock` counts seconds.
    """

    def __init__(
        self,
        ask: Callable[[], Mapping[str, Found]],
        cache_s: float = CACHE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._cache_s = cache_s
        self._clock = clock
        self._until_s: float | None = None
        self._cards: Mapping[str, Found] = {}
        #: why there are no readings
        self.error: str | None = None

    def cards(self) -> Mapping[str, Found]:
        """The readings by card, at most `cache_s` old; none while the tool fails."""
        now = self._clock()
        if self._until_s is None or now >= self._until_s:
            try:
                self._cards, self.error = self._ask(), None
            except ToolError as error:
                self._cards, self.error = {}, str(error)
            self._until_s = now + (self._cache_s if self.error is None else RETRY_S)
        return self._cards


class ToolBackend:
    """One card's readings out of a tool's answer."""

    def __init__(self, tool: Tool, keys: Sequence[str | None]) -> None:
        self._tool = tool
        #: the names under which the tool may know the card, the best first
        self._keys = [key for key in keys if key]

    def read(self, wanted: Collection[str], found: Found) -> None:
        """Copy the fields wanted; a tool that fails is no reason of any field's."""
        cards = self._tool.cards()
        mine = next((cards[key] for key in self._keys if key in cards), None)
        if mine is None:
            return
        for name in wanted:
            if name in mine.readings:
                found.readings.setdefault(name, mine.readings[name])
            elif name in mine.troubles:
                found.fail(name, mine.troubles[name].text)

    def close(self) -> None:
        """Nothing is held open."""


def json_after_warnings(text: str) -> Any:
    """The first JSON object or list in a text, whatever lines stand before and after it.

    Raises ToolError without one.
    """
    decoder = json.JSONDecoder(parse_constant=lambda name: None)
    for start in _starts(text):
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) or (value and isinstance(value[0], dict)):
            return value
    raise ToolError("no JSON in the answer")


def _starts(text: str) -> Iterator[int]:
    """Where JSON may begin: at a line's first bracket. At most 100 lines are tried."""
    for match, _ in zip(re.finditer(r"(?m)^\s*([{\[])", text), range(100), strict=False):
        yield match.start(1)


def number_of(value: Any) -> float | int | None:
    """A figure out of JSON, a text like `"39.0"` included; None for N/A and all else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if abs(value) < 1e20 else None
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return None
    text = value.strip()
    return float(text) if "." in text else int(text)
