"""Text fit for a reader: what comes from elsewhere, made fit for a terminal, and counts."""

from __future__ import annotations

import re

#: What a terminal obeys: controls (C0 but for tab and line feed, DEL, C1), marks that turn the
#: direction of writing, and line separators.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with each unsafe character as its escape in JSON, such as ``\\u001b``.

    Names, hosts and error texts come from other machines, and an escape sequence in them could
    retitle, recolour or rewrite a reader's screen.
    """
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def count_of(count: int | None, noun: str) -> str:
    """A count with its noun: ``1 task``, ``65,536 tasks``, ``unknown tasks`` for None."""
    if count == 1:
        return f"1 {noun}"
    return f"unknown {noun}s" if count is None else f"{count:,} {noun}s"
