"""Profiles of several files as one, in which what is in two of them counts once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from perfkit.gpu.rocprof.counters import FLOWS, traffic
from perfkit.gpu.rocprof.tables import Kernel, KernelProfile, Transfer

_Key: TypeAlias = tuple[object, ...]
_Found = TypeVar("_Found", Kernel, Transfer)


def together(profiles: Sequence[KernelProfile]) -> KernelProfile:
    """One profile of all, in the order given; notes begin with their file."""
    if len(profiles) == 1:
        return profiles[0]
    kernels, repeated = _once([p.kernels for p in profiles], _kernel_key, _joined)
    transfers, _ = _once([p.transfers for p in profiles], _transfer_key, lambda first, _: first)
    notes = [f"{p.file}: {note}" for p in profiles for note in p.notes]
    if repeated:
        notes.append(f"{repeated:,} dispatches are in several files and count once")
    if any(kernel.start_ns is None for kernel in kernels):
        notes.append("a dispatch without times counts twice if it is in several files")
    return KernelProfile(
        kernels,
        transfers,
        ", ".join(dict.fromkeys(p.file for p in profiles)),
        ", ".join(dict.fromkeys(p.format for p in profiles)),
        tuple(notes),
        all(p.is_countable for p in profiles),
    )


def _once(
    files: Iterable[Sequence[_Found]],
    key_of: Callable[[_Found], _Key],
    joined: Callable[[_Found, _Found], _Found],
) -> tuple[tuple[_Found, ...], int]:
    """The records of all files, and how many were in an earlier file already."""
    records: list[_Found] = []
    earlier: Mapping[_Key, list[int]] = defaultdict(list)
    repeated = 0
    for found in files:
        added: list[tuple[_Key, int]] = []
        for record in found:
            key = key_of(record)
            same = next(
                (at for at in earlier.get(key, ()) if _agree(records[at].place, record.place)), None
            )
            if same is None:
                added.append((key, len(records)))
                records.append(record)
            else:
                repeated += 1
                records[same] = joined(records[same], record)
        for key, at in added:
            if None not in key[:2]:
                earlier[key].append(at)
    return tuple(records), repeated


def _kernel_key(kernel: Kernel) -> _Key:
    """What is alike in every file about one dispatch: first its times.

    rocprofv3 calls a GPU `Agent 4` in CSV and 4 in its database.
    """
    device = (kernel.device or "").removeprefix("Agent ")
    return (kernel.start_ns, kernel.duration_ns, kernel.name, device)


def _transfer_key(copy: Transfer) -> _Key:
    return (copy.start_ns, copy.duration_ns, copy.direction)


def _agree(one: str | None, other: str | None) -> bool:
    """Whether two places may be one: files tell more or less of a place."""
    known, wanted = (
        dict(part.partition("=")[::2] for part in (place or "").split()) for place in (one, other)
    )
    return all(known[name] == wanted[name] for name in known.keys() & wanted.keys())


def _joined(first: Kernel, second: Kernel) -> Kernel:
    """One dispatch from two files, with the counters of both."""
    counters = {**first.counters, **second.counters}
    for name in first.counters.keys() & second.counters.keys():
        if first.counters[name] != second.counters[name]:
            counters[name] = None
    fetched, written = (traffic(flow, counters).size_bytes for flow in FLOWS)
    return replace(
        first,
        grid=max(first.grid or (), second.grid or (), key=len) or None,
        workgroup=max(first.workgroup or (), second.workgroup or (), key=len) or None,
        dispatch=first.dispatch or second.dispatch,
        place=max(first.place or "", second.place or "", key=len) or None,
        counters=counters,
        fetched_bytes=fetched,
        written_bytes=written,
    )
