"""Profiles of several files as one, in which a dispatch that is in two of them counts once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from perfkit.gpu.rocprof.counters import FLOWS, traffic
from perfkit.gpu.rocprof.tables import Kernel, KernelProfile, Transfer

_Key: TypeAlias = tuple[object, ...]


def together(profiles: Sequence[KernelProfile]) -> KernelProfile:
    """One profile of all, in the order given; notes begin with their file."""
    if len(profiles) == 1:
        return profiles[0]
    kernels: dict[_Key, Kernel] = {}
    transfers: dict[_Key, Transfer] = {}
    repeated = 0
    for number, profile in enumerate(profiles):
        earlier = frozenset(kernels)
        for at, kernel in enumerate(profile.kernels):
            key = _kernel_key(kernel)
            if key in earlier:
                repeated += 1
                kernels[key] = _joined(kernels[key], kernel)
            else:
                kernels[key if key and key not in kernels else (number, at)] = kernel
        before = frozenset(transfers)
        for at, copy in enumerate(profile.transfers):
            key = (copy.direction, copy.start_ns, copy.duration_ns) if copy.start_ns else ()
            if key not in before:
                transfers[key if key and key not in transfers else (number, at)] = copy
    notes = [f"{p.file}: {note}" for p in profiles for note in p.notes]
    if repeated:
        notes.append(f"{repeated:,} dispatches are in several files and count once")
    if any(_is_untimed(p) for p in profiles) and not all(map(_is_untimed, profiles)):
        notes.append("dispatches without times may be in several files, and then count twice")
    return KernelProfile(
        tuple(kernels.values()),
        tuple(transfers.values()),
        ", ".join(dict.fromkeys(p.file for p in profiles)),
        ", ".join(dict.fromkeys(p.format for p in profiles)),
        tuple(notes),
        all(p.is_countable for p in profiles),
    )


def _kernel_key(kernel: Kernel) -> _Key:
    """What is alike in every file about one dispatch; nothing if its times are unknown.

    rocprofv3 calls a GPU `Agent 4` in CSV and 4 in its database.
    """
    if kernel.start_ns is None or kernel.duration_ns is None:
        return ()
    device = (kernel.device or "").removeprefix("Agent ")
    return (kernel.name, kernel.start_ns, kernel.duration_ns, device, kernel.dispatch)


def _joined(first: Kernel, second: Kernel) -> Kernel:
    """One dispatch from two files, with the counters of both."""
    counters = {**first.counters, **second.counters}
    for name in first.counters.keys() & second.counters.keys():
        if first.counters[name] != second.counters[name]:
            counters[name] = None
    fetched, written = (traffic(flow, counters).size_bytes for flow in FLOWS)
    return replace(
        first,
        grid=first.grid if len(first.grid or ()) >= len(second.grid or ()) else second.grid,
        workgroup=first.workgroup or second.workgroup,
        counters=counters,
        fetched_bytes=fetched,
        written_bytes=written,
    )


def _is_untimed(profile: KernelProfile) -> bool:
    return any(kernel.start_ns is None for kernel in profile.kernels)
