"""rocprofv3's CSV files, of both generations of columns (2024: ids; 2025: agents, streams, times).

Format: ROCm/rocprofiler-sdk, source/docs/how-to/using-rocprofv3.rst. `kernel_trace.csv` has a row
per dispatch, `counter_collection.csv` a row per dispatch and counter, `memory_copy_trace.csv` a row
per copy.
"""

from __future__ import annotations

from collections.abc import Iterable

from perfkit.gpu.rocprof.cells import Source
from perfkit.gpu.rocprof.records import NO_COUNTERS, Row, kernel_of, transfer_of
from perfkit.gpu.rocprof.sheet import Sheet
from perfkit.gpu.rocprof.tables import Kernel, Transfer
from perfkit.gpu.rocprof.v1 import note_missing_times

#: What makes two rows of counters the same dispatch; ids start again in every process.
_DISPATCH = ("Process_Id", "Agent_Id", "Dispatch_Id", "Kernel_Name")


def traced_kernels(sheet: Sheet) -> tuple[Kernel, ...]:
    """The dispatches of a kernel trace, which has times and no counters."""
    rows = (row for row in sheet.rows() if row.fields.get("Kind") in (None, "KERNEL_DISPATCH"))
    return tuple(k for row in rows if (k := kernel_of(row, {})) is not None)


def counted_kernels(sheet: Sheet) -> tuple[Kernel, ...]:
    """The dispatches of a counter collection, with the rows of each put together.

    A counter that is there twice for one dispatch is unknown: whether the values are parts of a sum
    or two runs, the file does not say.
    """
    dispatches: dict[tuple[str | None, ...], list[Row]] = {}
    for row in sheet.rows():
        key = tuple(row.fields.get(name) for name in _DISPATCH)
        dispatches.setdefault(key, []).append(row)
    kernels = tuple(
        k
        for rows in dispatches.values()
        if (k := kernel_of(rows[0], _counters(rows, sheet.source))) is not None
    )
    note_missing_times(kernels, "they are in the kernel trace", sheet.source)
    return kernels


def copies(sheet: Sheet) -> tuple[Transfer, ...]:
    """The copies of a memory copy trace. The sizes are not in it."""
    return tuple(transfer_of(row, row.fields.get("Direction")) for row in sheet.rows())


def _counters(rows: Iterable[Row], source: Source) -> dict[str, int | float | None]:
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
