"""CSV files of every release, repaired: their rows, and the kernels and copies in them.

Kernel names are C++ signatures, full of commas and quotes, and not every tool quotes them. Scripts
that merge the passes of a profile repeat columns.

rocprof v1, and rocprofv2 like it, writes one row per dispatch; after the columns about the dispatch
comes one column per counter (ROCm/rocprofiler, bin/tblextr.py and doc/rocprof.md). rocprofv3 writes
a `kernel_trace.csv` with a row per dispatch, a `counter_collection.csv` with a row per dispatch and
counter, and a `memory_copy_trace.csv` with a row per copy, in two generations of columns (2024:
ids; 2025: agents, streams, times; ROCm/rocprofiler-sdk, source/docs/how-to/using-rocprofv3.rst).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from perfkit.gpu.rocprof.cells import SourceFile, clean
from perfkit.gpu.rocprof.records import NAME, NO_COUNTERS, ProfileRecord, kernel_of, transfer_of
from perfkit.gpu.rocprof.tables import Kernel, Transfer

#: pandas merges a name that exists already as `wave_size_3` or `BeginNs.1`.
_MERGED = re.compile(r"(.+?)(?:_|(\.))\d{1,3}", re.ASCII)
#: Rows of counters with these values alike are one dispatch; ids start again in every process.
_DISPATCH = ("Process_Id", "Agent_Id", "Dispatch_Id", "Kernel_Name")


@dataclass(frozen=True, slots=True)
class Sheet:
    """The rows under their line numbers, and the places of each column in them."""

    lines: Sequence[tuple[int, Sequence[str]]]
    columns: Mapping[str, Sequence[int]]
    source: SourceFile

    def rows(self) -> Iterator[ProfileRecord]:
        """Each row by column; a repeated column that contradicts itself is unknown."""
        for line, cells in self.lines:
            fields: dict[str, str | None] = {}
            for name, places in self.columns.items():
                fields[name] = cells[places[0]]
                if any(cells[place].strip() != cells[places[0]].strip() for place in places[1:]):
                    self.source.note(f"the columns {name} differ, so it is unknown", line)
                    fields[name] = None
            yield ProfileRecord(fields, self.source, line)


def read_sheet(text: str, source: SourceFile) -> Sheet:
    """Split the text of a CSV file (RFC 4180), the first line being the header.

    Joins a name with unquoted commas, leaves out a last line that is cut, and makes columns of one
    name one; each with a note. Raises RocprofError for a row that does not fit the header and for
    quotes that do not close.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[tuple[int, list[str]]] = []
    try:
        records.extend((reader.line_num, cells) for cells in reader if any(map(str.strip, cells)))
    except csv.Error as error:
        raise source.error(
            f"not CSV: {error}", "use the file as the profiler wrote it", reader.line_num
        ) from None
    header = [clean(name, source, line) for line, names in records[:1] for name in names]
    while header and not header[-1]:
        header.pop()  # early releases end every line with a comma
    fitted = []
    for line, cells in records[1:]:
        cells = _without_end(cells, len(header))
        if len(cells) > len(header):
            cells = _with_name_joined(cells, header, source, line)
        if len(cells) < len(header) and line == records[-1][0]:
            source.note("ends early, as when the run is killed; left out", line)
        elif len(cells) == len(header):
            fitted.append((line, cells))
        else:
            raise source.error(
                f"{len(cells)} values under {len(header)} columns",
                "quote names that hold commas, or profile again",
                line,
            )
    return Sheet(fitted, _places(header, source), source)


def _without_end(cells: list[str], wanted: int) -> list[str]:
    while len(cells) > wanted and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _with_name_joined(
    cells: list[str], header: Sequence[str], source: SourceFile, line: int
) -> list[str]:
    """A row with its unquoted kernel name joined, if that closes the name's brackets."""
    at = next((place for place, name in enumerate(header) if name in NAME), None)
    extra = len(cells) - len(header)
    if at is None:
        return cells
    name = ",".join(cells[at : at + extra + 1])
    if "(" not in name or any(name.count(a) != name.count(b) for a, b in ("()", "[]", "{}")):
        return cells
    source.note("the kernel name has commas and no quotes; put together again", line)
    return [*cells[:at], name, *cells[at + extra + 1 :]]


def _places(header: Sequence[str], source: SourceFile) -> dict[str, list[int]]:
    """Where each column is; columns with the same name but a number are one."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(header):
        match = _MERGED.fullmatch(name)
        base = match[1] if match else name
        # Counters have numbers of their own (TCC_EA_RDREQ_32), but never after a point.
        same = match is not None and base in header and (match[2] or base in NO_COUNTERS)
        places.setdefault(base if same else name, []).append(place)
    for name, where in places.items():
        if len(where) > 1 and name:
            source.note(f"the column {name} is there {len(where)} times and was made one")
    return places


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
