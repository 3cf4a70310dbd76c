"""The load of a host without a graphics card: a worker's own memory and what is free."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from cluster.vocabulary.task import NO_LOAD, Load

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def host_load() -> Load:
    """Resident bytes of this process and free bytes of the host, from proc(5); None if
    unreadable.
    """
    return Load(rss_bytes=_rss_bytes(), memory_free_bytes=_free_bytes())


def ask_probe(probe: Callable[[], Load]) -> Load:
    """What a probe says of the load; unknown if it raises or gives what can't be sent."""
    try:
        return msgspec.convert(msgspec.to_builtins(probe()), Load)
    except BaseException:  # an unreadable card must not silence the worker
        return NO_LOAD


def _rss_bytes() -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def _free_bytes() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None
