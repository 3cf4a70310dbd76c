"""CSV files of every release: their rows, and the kernels and copies in them.

Kernel names are C++ signatures, full of commas and quotes, and not every tool quotes them. Scripts
that merge the passes of a profile repeat columns. Rows are read one by one, so a long file is never
in memory as cells.

rocprof v1, and rocprofv2 like it, writes one row per dispatch; after the columns about the dispatch
comes one column per counter (ROCm/rocprofiler, bin/tblextr.py, doc/rocprof.md and plugin/file).
rocprofv2 traces operations in files of their own. rocprofv3 writes a `kernel_trace.csv` with a row
per dispatch, a `counter_collection.csv` with a row per dispatch and counter, and a
`memory_copy_trace.csv` (ROCm/rocprofiler-sdk, source/lib/output/generateCSV.cpp); rocprof-compute's
`pmc_perf.csv` is like the second (ROCm/rocprofiler-compute, src/utils/rocpd_data.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from perfkit.gpu.rocprof.cells import SourceFile, clean
from perfkit.gpu.rocprof.columns import (
    COUNTER_NAME,
    COUNTER_VALUE,
    GPU_DOMAINS,
    KNOWN,
    NAME,
    is_counter,
    plain,
)
from perfkit.gpu.rocprof.csv_rows import Row
from perfkit.gpu.rocprof.dispatches import Dispatches
from perfkit.gpu.rocprof.records import ProfileRecord, counters_in, transfer_of
from perfkit.gpu.rocprof.tables import Kernel, Transfer

#: pandas merges a name that exists already as `wave_size_3` or `BeginNs.1`.
_MERGED = re.compile(r"(.+?)(?:_|(\.))\d{1,3}", re.ASCII)
#: A derived metric of the user's own, in the place where rocprof v1 has only counters.
_OWN_METRIC = re.compile(r"[A-Z]\w*(?:\[\d{1,4}\])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sheet:
    """The rows under their line numbers, and the places of each column in them.

    Columns have `plain` names; counters keep their own. The rows can be read once.
    """

    lines: Iterator[Row]
    columns: Mapping[str, Sequence[int]]
    source: SourceFile

    def rows(self) -> Iterator[ProfileRecord]:
        """Each row by column; a repeated column that contradicts itself is unknown."""
        repeated = {name: places for name, places in self.columns.items() if len(places) > 1}
        first = [(name, places[0]) for name, places in self.columns.items()]
        for line, cells in self.lines:
            fields: dict[str, str | None] = {name: cells[place] for name, place in first}
            for name, places in repeated.items():
                if len({cells[place].strip() for place in places}) > 1:
                    shown = self.source.called(name)
                    self.source.note(f"the columns {shown} differ, so it is unknown", line)
                    fields[name] = None
            yield ProfileRecord(fields, self.source, line)


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a file held, under the name of its kind."""

    kind: str
    kernels: tuple[Kernel, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    is_countable: bool = True


def sheet_of(header: Sequence[str], lines: Iterator[Row], source: SourceFile) -> Sheet:
    """The sheet of a header and rows; columns that are neither known nor counters are noted."""
    names = [clean(name, source, 1) for name in header]
    declared = _declared_counters(names)
    places: dict[str, list[int]] = {}
    ignored = []
    for place, name in enumerate(names):
        match = _MERGED.fullmatch(name)
        # Counters have numbers of their own (TCC_EA_RDREQ_32), but never after a point.
        if match and match[1] in names and (match[2] or plain(match[1]) in KNOWN):
            name = match[1]
        key = plain(name)
        if key not in KNOWN:
            if not (is_counter(name) or name in declared):
                ignored.append(name)
                continue
            key = name
        source.spellings.setdefault(key, name)
        places.setdefault(key, []).append(place)
    for key, where in places.items():
        if len(where) > 1 and key:
            source.note(
                f"the column {source.called(key)} is there {len(where)} times and was made one"
            )
    if ignored:
        more = f" and {len(ignored) - 5} more" if len(ignored) > 5 else ""
        source.note(f"no counters of rocprof, so left out: {', '.join(ignored[:5])}{more}")
    return Sheet(lines, places, source)


def _declared_counters(names: Sequence[str]) -> frozenset[str]:
    """Between `obj` and `DispatchNs` rocprof v1 has the counters that were asked for, no others."""
    known = [plain(name) for name in names]
    if "obj" not in known or "dispatchns" not in known:
        return frozenset()
    between = names[known.index("obj") + 1 : known.index("dispatchns")]
    return frozenset(name for name in between if _OWN_METRIC.fullmatch(name))


def read_sheet(sheet: Sheet) -> FileContent | None:
    """The kernels and copies of a sheet; None if it is about something else."""
    columns = sheet.columns
    if "function" in columns:
        return None  # calls of the program, which name kernels too
    if "direction" in columns and "starttimestamp" in columns:
        kind = "memory copies of rocprofv3"
        copies = tuple(transfer_of(row, row.fields["direction"]) for row in sheet.rows())
        return FileContent(kind, transfers=copies)
    if {"domain", "operation"} <= columns.keys():
        return _operations(sheet)
    if columns.keys().isdisjoint(NAME):
        return None
    if not columns.keys().isdisjoint(COUNTER_NAME):
        tool = "rocprof-compute" if "gpuid" in columns else "rocprofv3"
        return _kernels(f"counters of {tool}", sheet, _counter_of, "they are in the kernel trace")
    if "kind" in columns:
        return _kernels("kernel trace of rocprofv3", sheet, lambda row: {}, "")
    if sheet.source.called(NAME[0]) == "KernelName":
        to_do = "rocprof v1 takes times with --timestamp on"
        return _kernels("CSV of rocprof v1", sheet, counters_in, to_do)
    return _kernels("CSV of rocprofv2", sheet, counters_in, "")


def _kernels(
    kind: str,
    sheet: Sheet,
    counters: Callable[[ProfileRecord], dict[str, int | float | None]],
    to_do: str,
) -> FileContent:
    """Every dispatch, with a note if none has a duration: the tools take times on request only."""
    dispatches = Dispatches(sheet.source)
    for row in sheet.rows():
        if row.fields.get("kind") in (None, "KERNEL_DISPATCH"):
            dispatches.add(row, counters(row))
    kernels = dispatches.kernels()
    if kernels and all(kernel.duration_ns is None for kernel in kernels):
        has_times = not sheet.columns.keys().isdisjoint(("beginns", "starttimestamp"))
        advice = "" if has_times or not to_do else f"; {to_do}"
        sheet.source.note(f"no dispatch has a duration{advice}")
    return FileContent(kind, kernels, is_countable=dispatches.is_countable)


def _counter_of(row: ProfileRecord) -> dict[str, int | float | None]:
    name = row.label(COUNTER_NAME)
    if name is None:
        row.source.note("no name of a counter; left out", row.line)
        return {}
    return {name: row.figure(COUNTER_VALUE)}


def _operations(sheet: Sheet) -> FileContent:
    """The kernels and copies among rocprofv2's traced operations on the GPU."""
    dispatches = Dispatches(sheet.source)
    transfers = []
    for row in sheet.rows():
        words = row.fields["operation"] or ""
        if row.fields["domain"] not in GPU_DOMAINS:
            continue
        if "copy" in words.lower():
            transfers.append(transfer_of(row, words))
        elif "barrier" not in words.lower():
            dispatches.add(row, {})
    return FileContent("operations of rocprofv2", dispatches.kernels(), tuple(transfers))
