"""Files of sysfs, held open: the text they give, and what it means.

Opening a file costs several times what reading it does, so a descriptor stays open and is read at
offset 0 again and again: the kernel makes the text anew each time. Files recorded from a card may
be padded with NULs to a page. The parsers take bytes and raise ValueError in words; they refuse
whatever is not exactly the format, because half a number is a wrong number.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

#: As much as any file of sysfs gives.
PAGE_BYTES = 4096
PADDING = b"\0 \t\r\n"

_LEVEL = re.compile(rb"\s*(?:\d{1,3}|S)\s*:\s*(\d{1,7})\s*M[Hh]z\s*(\*?)\s*")
_LINK_LEVEL = re.compile(
    rb"\s*\d{1,3}\s*:\s*(\d{1,3}(?:\.\d+)?)\s*GT/s,?\s*x(\d{1,2})(?:\s+\d+\s*M[Hh]z)?\s*(\*?)\s*"
)
_SPEED = re.compile(rb"(\d{1,3}(?:\.\d+)?) GT/s(?: PCIe)?")


class HeldFile:
    """A file that is opened when it is first read and stays open until close, or until it is
    dropped: a process that makes many cards would run out of descriptors.
    """

    __slots__ = ("fd", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1

    def read(self, limit: int = PAGE_BYTES) -> bytes:
        """Its first `limit` bytes as they are now; raises OSError, and opens anew after one."""
        try:
            if self.fd < 0:
                # Without O_NONBLOCK a pipe in its place would wait for a writer.
                self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            return os.pread(self.fd, limit, 0)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the descriptor if there is one."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    __del__ = close


def read_text(path: Path) -> str | None:
    """A small file's text without padding; None when it can't be read or is empty."""
    file = HeldFile(path)
    try:
        return file.read().rstrip(PADDING).decode("utf-8", "replace").strip() or None
    except OSError:
        return None
    finally:
        file.close()


def parse_number(raw: bytes) -> int:
    """A whole number in decimal, which may be negative; nothing else is one."""
    text = raw.rstrip(PADDING)
    if text.isdigit() or (text[:1] == b"-" and text[1:].isdigit()):
        return int(text)
    raise ValueError(f"not a number: {text[:20]!r}" if text else "empty")


def parse_level(raw: bytes) -> int:
    """The marked clock of a `pp_dpm_*` table, in MHz.

    Lines are `level: clock *`; `S:` is the clock of deep sleep. Two marks are fine when both stand
    at one clock, as on cards whose lowest levels are equal.
    """
    clocks = {int(clock) for (clock,) in _marked(_LEVEL, raw)}
    if len(clocks) != 1:
        raise ValueError(_which(len(clocks)))
    return clocks.pop()


def parse_link_level(raw: bytes) -> tuple[float, int]:
    """The marked link of `pp_dpm_pcie`: GT/s per lane, and lanes."""
    links = {(float(speed), int(lanes)) for speed, lanes in _marked(_LINK_LEVEL, raw)}
    if len(links) != 1:
        raise ValueError(_which(len(links)))
    return links.pop()


def parse_speed(raw: bytes) -> float:
    """A link's speed in GT/s per lane, as `8.0 GT/s PCIe`; an unknown one is refused."""
    text = raw.rstrip(PADDING)
    match = _SPEED.fullmatch(text)
    if match is None:
        raise ValueError(f"not a link speed: {text[:20]!r}")
    return float(match[1])


def _marked(line_format: re.Pattern[bytes], raw: bytes) -> list[tuple[bytes, ...]]:
    """The marked lines' figures; raises ValueError for an empty table and for a line unlike it."""
    lines = [line for line in raw.rstrip(PADDING).splitlines() if line.strip(PADDING)]
    if not lines:
        raise ValueError("no levels")
    rows = []
    for line in lines:
        match = line_format.fullmatch(line)
        if match is None:
            raise ValueError(f"not a level: {line[:40]!r}")
        *figures, star = match.groups()
        if star:
            rows.append(tuple(figures))
    return rows


def _which(marked: int) -> str:
    return "several levels are marked" if marked else "no level is marked"
