"""A CSV file as rows of named values, repaired.

Kernel names are C++ signatures, full of commas and quotes, and not every tool quotes them. Scripts
that merge the passes of a profile repeat columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from perfkit.gpu.rocprof.cells import SourceFile, clean
from perfkit.gpu.rocprof.records import NAME, NO_COUNTERS, ProfileRecord

#: pandas merges a name that exists already as `wave_size_3` or `BeginNs.1`.
_MERGED = re.compile(r"(.+?)(?:_|(\.))\d{1,3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sheet:
    """The names in the header, once each, and the rows."""

    columns: tuple[str, ...]
    lines: tuple[tuple[int, tuple[str, ...]], ...]
    places: tuple[tuple[int, ...], ...]
    source: SourceFile

    def rows(self) -> Iterator[ProfileRecord]:
        """Each row by column; a repeated column that contradicts itself is unknown."""
        for line, cells in self.lines:
            fields: dict[str, str | None] = {}
            for name, places in zip(self.columns, self.places, strict=True):
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
            fitted.append((line, tuple(cells)))
        else:
            raise source.error(
                f"{len(cells)} values under {len(header)} columns",
                "quote names that hold commas, or profile again",
                line,
            )
    places = _places(header, source)
    return Sheet(tuple(places), tuple(fitted), tuple(map(tuple, places.values())), source)


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
