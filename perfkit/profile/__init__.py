"""The instruments: where a process spends its time and memory, and a task its latency.

They measure programs that do real work, so they share three habits: an instrument that is switched
off costs an attribute check, one that is on never loses the program's result or exception, and what
they keep has a bound. What all of them need to be like that lives here; each instrument's module is
loaded when one of its names is first used, so that a process which only stamps tasks does not pay
for a profiler.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfkit.profile.calls import ProfilerBusy
    from perfkit.profile.cpu import CpuProfile, HotSpot, load_profile, profile_cpu
    from perfkit.profile.findings import MemoryFinding, MemoryTable, memory_table
    from perfkit.profile.growth import ObjectGrowth, object_growth
    from perfkit.profile.heap import HeapProfile, attach_heap, profile_heap
    from perfkit.profile.latency import (
        LatencySampler,
        Offsets,
        Trace,
        Waterfall,
        estimate_offsets,
        waterfall,
    )
    from perfkit.profile.lines import line_memory
    from perfkit.profile.memory import MemoryUse, track_memory
    from perfkit.profile.processes import attach_memory, find_process
    from perfkit.profile.watch import MemorySample, MemorySeries, process_memory, watch_memory

__all__ = [
    "CpuProfile",
    "HeapProfile",
    "HotSpot",
    "LatencySampler",
    "MemoryFinding",
    "MemorySample",
    "MemorySeries",
    "MemoryTable",
    "MemoryUse",
    "ObjectGrowth",
    "Offsets",
    "ProfilerBusy",
    "Trace",
    "Waterfall",
    "attach_heap",
    "attach_memory",
    "estimate_offsets",
    "find_process",
    "line_memory",
    "load_profile",
    "memory_table",
    "object_growth",
    "process_memory",
    "profile_cpu",
    "profile_heap",
    "track_memory",
    "watch_memory",
    "waterfall",
]

_HOMES = {
    "calls": {"ProfilerBusy"},
    "cpu": {"CpuProfile", "HotSpot", "load_profile", "profile_cpu"},
    "lines": {"line_memory"},
    "memory": {"MemoryUse", "track_memory"},
    "findings": {"MemoryFinding", "MemoryTable", "memory_table"},
    "growth": {"ObjectGrowth", "object_growth"},
    "heap": {"HeapProfile", "attach_heap", "profile_heap"},
    "processes": {"attach_memory", "find_process"},
    "watch": {"MemorySample", "MemorySeries", "process_memory", "watch_memory"},
    "latency": {
        "LatencySampler",
        "Offsets",
        "Trace",
        "Waterfall",
        "estimate_offsets",
        "waterfall",
    },
}

#: Folders below which the rest of a path names a module, wherever the interpreter is installed.
_LIBRARY_FOLDER = re.compile(r"site-packages|dist-packages|python3\.\d+t?")


class Switch:
    """Whether the instruments of this process measure at all; `on` may be set at any time.

    The environment variable PERFKIT_PROFILE, read once, turns them off with 0, false, no or off.
    """

    __slots__ = ("on",)

    def __init__(self, environment: Mapping[str, str]) -> None:
        setting = environment.get("PERFKIT_PROFILE", "1").strip().lower()
        self.on = setting not in {"0", "false", "no", "off"}


#: The one that every instrument looks at.
switch = Switch(os.environ)


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def short_path(filename: str) -> str:
    """A source file as its package sees it (`asyncio/events.py`), never where a machine keeps it.

    The longest entry of `sys.path` above the file is left out. A path from another machine is cut
    behind its library folder, and one that says nothing about packages down to the file's own name.
    Names that are no path, such as `<string>`, stay; a cell of a notebook is `<notebook cell>`.
    """
    if filename.startswith("<"):
        return filename
    path = PurePath(filename)
    if path.parent.name.startswith("ipykernel_"):
        return "<notebook cell>"
    if not path.is_absolute():
        return path.name if ".." in path.parts else path.as_posix()
    roots = {PurePath(os.path.abspath(entry)) for entry in sys.path}
    depth = max((len(root.parts) for root in roots if root in path.parents), default=1)
    if depth > 1:
        return PurePath(*path.parts[depth:]).as_posix()
    for index in range(len(path.parts) - 2, 0, -1):
        if _LIBRARY_FOLDER.fullmatch(path.parts[index]):
            return PurePath(*path.parts[index + 1 :]).as_posix()
    return path.name
