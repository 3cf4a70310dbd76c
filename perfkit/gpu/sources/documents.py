"""What a tool prints, made into values: JSON among warnings and banners, and plain figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from cluster.vocabulary.printable import printable
from perfkit.gpu.sources.asking import ToolError

#: Places in a text where JSON is looked for.
STARTS_MAX = 2_000
#: Characters of an odd value in a reason.
SHOWN_MAX = 40
#: Objects inside objects that are put together; no tool nests them deeper.
DEPTH_MAX = 20

_START = re.compile(r"[{\[]")
#: Plain decimals only: no exponent, no underscore, nothing infinite.
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?")
#: How the tools say that there is no value.
_NOTHING = frozenset({"", "n/a", "na", "none", "null", "unknown", "not supported", "unsupported"})


def documents(text: str) -> Iterator[Any]:
    """Every JSON object and list of objects in a text, with anything around them, in order.

    A key that an object has twice keeps what is known of both.
    """
    decoder = json.JSONDecoder(parse_constant=lambda name: None, object_pairs_hook=merged)
    position = 0
    for _ in range(STARTS_MAX):
        match = _START.search(text, position)
        if match is None:
            return
        try:
            value, position = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            position = match.end()
            continue
        if isinstance(value, dict) or any(isinstance(item, dict) for item in value):
            yield value


def merged(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of keys and values; a key that comes again adds what the first one lacks."""
    value: dict[str, Any] = {}
    for key, item in pairs:
        value[key] = richer(value[key], item) if key in value else item
    return value


def has_document(text: str) -> bool:
    """Whether there is one."""
    return next(documents(text), None) is not None


def documents_of(tool: str, text: str) -> list[Any]:
    """All of them; raises ToolError without one."""
    found = list(documents(text))
    if not found:
        raise ToolError(f"{tool}: no JSON in the answer")
    return found


def richer(known: Any, more: Any, depth: int = DEPTH_MAX) -> Any:
    """Two tellings of one thing: what is known stays, and what it lacks is added."""
    if isinstance(known, dict) and isinstance(more, dict) and depth:
        both = known.keys() & more.keys()
        added = {key: richer(known[key], more[key], depth - 1) for key in both}
        return {**known, **more, **added}
    return more if known is None or _is_nothing(known) else known


def _is_nothing(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in _NOTHING


def shown(value: Any) -> str:
    """A value from a tool for a reason: short, and no orders to a terminal."""
    text = "no value" if value is None else printable(str(value))
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def number_of(value: Any) -> float | int | None:
    """A number of JSON, or in a text such as `"39.0"`; None for N/A and the like."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if abs(value) < 1e20 else None
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return None
    text = value.strip()
    return float(text) if "." in text else int(text)
