"""The CSV files of each release: which kernels and copies their rows are.

rocprof v1, and rocprofv2 like it, writes one row per dispatch; after the columns about the dispatch
comes one column per counter (ROCm/rocprofiler, bin/tblextr.py and doc/rocprof.md).

rocprofv3 writes a `kernel_trace.csv` with a row per dispatch, a `counter_collection.csv` with a row
per dispatch and counter, and a `memory_copy_trace.csv` with a row per copy, in two generations of
columns (2024: ids; 2025: agents, streams, times; ROCm/rocprofiler-sdk,
source/docs/how-to/using-rocprofv3.rst).
"""

from __future__ import annotations

from collections.abc import Iterable

from perfkit.gpu.rocprof.cells import SourceFile
from perfkit.gpu.rocprof.records import NO_COUNTERS, ProfileRecord, kernel_of, transfer_of
from perfkit.gpu.rocprof.sheet import Sheet
from perfkit.gpu.rocprof.tables import Kernel, Transfer

#: Rows of counters with these values alike are one dispatch; ids start again in every process.
_DISPATCH = ("Process_Id", "Agent_Id", "Dispatch_Id", "Kernel_Name")


def kernels_of(sheet: Sheet) -> tuple[Kernel, ...]:
    """Rocprof v1's dispatches, in order. Raises RocprofError as `kernel_of` does."""
    kernels = tuple(k for row in sheet.rows() if (k := kernel_of(row)) is not None)
    _note_missing_times(kernels, "rocprof v1 takes times with --timestamp on", sheet.source)
    return kernels


def traced_kernels(sheet: Sheet) -> tuple[Kernel, ...]:
    """The dispatches of a kernel trace, which has times and no counters."""
    rows = (row for row in sheet.rows() if row.fields.get("Kind") in (None, "KERNEL_DISPATCH"))
    return tuple(k for row in rows if (k := kernel_of(row, {})) is not None)


def counted_kernels(sheet: Sheet) -> tuple[Kernel, ...]:
    """The dispatches of a counter collection, each from all its rows.

    A counter that is there twice for one dispatch is unknown: the file does not say whether the
    values are parts of a sum or two runs.
    """
    dispatches: dict[tuple[str | None, ...], list[ProfileRecord]] = {}
    for row in sheet.rows():
        key = tuple(row.fields.get(name) for name in _DISPATCH)
        dispatches.setdefault(key, []).append(row)
    kernels = tuple(
        k
        for rows in dispatches.values()
        if (k := kernel_of(rows[0], _counters(rows, sheet.source))) is not None
    )
    _note_missing_times(kernels, "they are in the kernel trace", sheet.source)
    return kernels


def copies(sheet: Sheet) -> tuple[Transfer, ...]:
    """The copies of a memory copy trace, which does not tell their sizes."""
    return tuple(transfer_of(row, row.fields.get("Direction")) for row in sheet.rows())


def _note_missing_times(kernels: tuple[Kernel, ...], to_do: str, source: SourceFile) -> None:
    """Note that no dispatch has a duration: the profilers take times on request only."""
    if kernels and all(kernel.duration_ns is None for kernel in kernels):
        source.note(f"no dispatch has a duration; {to_do}")


def _counters(rows: Iterable[ProfileRecord], source: SourceFile) -> dict[str, int | float | None]:
    counters: dict[str, int | float | None] = {}
    for row in rows:
        name = row.label(("Counter_Name",))
        if name is None or name in NO_COUNTERS:
            source.note("no name of a counter; left out", row.line)
        elif name in counters:
            source.note(f"{name} is there twice for one dispatch, so it is unknown", row.line)
            counters[name] = None
        else:
            counters[name] = row.figure(("Counter_Value",))
    return counters
