"""A CSV file as rows of named values, with the repairs that such files need.

Kernel names are C++ signatures, full of commas and quotes, and not every tool on the way quotes
them; merging the passes of a profile by script leaves the same column more than once.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from perfkit.gpu.rocprof.cells import Source, clean
from perfkit.gpu.rocprof.records import NAME, NO_COUNTERS, Row

#: `wave_size_3` and `BeginNs.1` are what merging by pandas makes of a name that is there already.
_MERGED = re.compile(r"(.+?)(?:_|(\.))\d{1,3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sheet:
    """The names in the header, once each, and how to get at the rows."""

    columns: tuple[str, ...]
    lines: tuple[tuple[int, tuple[str, ...]], ...]
    places: tuple[tuple[int, ...], ...]
    source: Source

    def rows(self) -> Iterator[Row]:
        """Each row by column; where a repeated column contradicts itself, its value is unknown."""
        for line, cells in self.lines:
            fields: dict[str, str | None] = {}
            for name, places in zip(self.columns, self.places, strict=True):
                fields[name] = cells[places[0]]
                if any(cells[place].strip() != cells[places[0]].strip() for place in places[1:]):
                    self.source.note(f"the columns {name} differ, so it is unknown", line)
                    fields[name] = None
            yield Row(fields, self.source, line)


def read_sheet(text: str, source: Source) -> Sheet:
    """Split the text of a CSV file (RFC 4180), the first line being the header.

    A name with unquoted commas is put together again, a last line without its end is left out, and
    columns of one name become one; each with a note. Raises RocprofError for a row that does not
    fit the header and for quotes that do not close.
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
    cells: list[str], header: Sequence[str], source: Source, line: int
) -> list[str]:
    """A row whose kernel name was not quoted, if the name that results has its brackets closed."""
    at = next((place for place, name in enumerate(header) if name in NAME), None)
    extra = len(cells) - len(header)
    if at is None:
        return cells
    name = ",".join(cells[at : at + extra + 1])
    if "(" not in name or any(name.count(a) != name.count(b) for a, b in ("()", "[]", "{}")):
        return cells
    source.note("the kernel name has commas and no quotes; put together again", line)
    return [*cells[:at], name, *cells[at + extra + 1 :]]


def _places(header: Sequence[str], source: Source) -> dict[str, list[int]]:
    """Where each column is, with those that are the same under another number joined."""
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
