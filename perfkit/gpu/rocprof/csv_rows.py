"""The rows of a CSV file (RFC 4180), each as long as the header, or left out with a note.

A good value is not lost because of a bad one elsewhere: a row that is too long, too short or no CSV
is mended if there is one way to do so, and left out if not. Only a file without a single good row
is an error.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import TypeAlias

from cluster.vocabulary.printable import count_of
from perfkit.gpu.rocprof.cells import SourceFile
from perfkit.gpu.rocprof.columns import KNOWN, NAME, plain

Row: TypeAlias = tuple[int, list[str]]
#: rocprofv2 announces them as rocprof v1 does, and does not write them (plugin/file/file_v1.cpp).
_UNWRITTEN = ("sig", "obj")
#: The last columns of rocprof v1.
_TIMES = ["dispatchns", "beginns", "endns", "completens"]
#: The header is looked for in this many rows: a console's log has messages before it.
_BEGIN_ROWS = 100
#: A row this many lines long is a quote that was never closed.
_ROW_LINES_MAX = 1_000


@contextmanager
def long_fields(length_max: int) -> Iterator[None]:
    """Let csv read fields of any length: a C++ name may have more than its 131,072 letters."""
    before = csv.field_size_limit(length_max)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def read_rows(content: bytes, source: SourceFile) -> tuple[list[str], Iterator[Row]]:
    """The header, and an iterator over the rows with their line numbers.

    The iterator raises RocprofError after the last row if there were rows and none was good.
    """
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", "replace", newline="")
    rows = _parsed(text, source, _delimiter(content))
    begin = list(islice(rows, _BEGIN_ROWS))
    at = next((at for at, (_, cells) in enumerate(begin) if _is_header(cells)), 0)
    if at:
        source.note("comes before the header; left out", begin[at - 1][0])
    header = begin[at][1] if begin else []
    while header and not header[-1].strip():
        header.pop()  # early releases end every line with a comma
    return header, _Fitter(header, source).fitted(chain(begin[at + 1 :], rows))


def _is_header(cells: Sequence[str]) -> bool:
    return sum(plain(cell) in KNOWN and cell.strip() != "" for cell in cells) > 1


def _delimiter(content: bytes) -> str:
    """A spreadsheet may write semicolons or tabs, and names have commas."""
    header = content.lstrip().partition(b"\n")[0]
    return max(",;\t", key=lambda delimiter: header.count(delimiter.encode()))


def _parsed(text: Iterable[str], source: SourceFile, delimiter: str) -> Iterator[Row]:
    """Each row that is CSV and not blank; a quote within a name is taken as it is."""
    lines: list[str] = []

    def remembered() -> Iterator[str]:
        for line in text:
            lines.append(line)
            yield line

    reader = csv.reader(remembered(), strict=True, delimiter=delimiter)
    while True:
        lines.clear()
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if reader.line_num - line > _ROW_LINES_MAX:
                raise source.error(
                    f"not CSV: {error}", "close the quote that opens in this line", line
                ) from None
            if "unexpected end" in str(error):
                source.note("ends early, as when the run is killed; left out", line)
                continue
            source.note("a quote within a value is not doubled", line)
            cells = next(csv.reader(lines, delimiter=delimiter))
        if cells is None:
            return
        if any(map(str.strip, cells)):
            yield reader.line_num, cells


class _Fitter:
    """Makes rows as long as their header."""

    def __init__(self, header: Sequence[str], source: SourceFile) -> None:
        self.header = list(header)
        self.source = source
        names = [plain(name) for name in header]
        self._name_at = next((at for at, name in enumerate(names) if name in NAME), None)
        self._ends_in_times = names[-4:] == _TIMES
        announced = self._ends_in_times and set(_UNWRITTEN) <= set(names)
        self._unwritten_at = names.index("sig") if announced else None

    def fitted(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The good rows, the last one only if it is whole."""
        too_long: Row | None = None
        good = 0
        waiting = next(rows, None)
        while waiting is not None:
            line, cells = waiting
            waiting = next(rows, None)
            while len(cells) > len(self.header) and not cells[-1].strip():
                cells.pop()
            if cells == self.header:
                continue  # files were put one after the other
            if len(cells) > len(self.header):
                row = self._shortened(line, cells)
                too_long = too_long or (line, cells)
            else:
                row = self._lengthened(line, cells, is_last=waiting is None)
            if row is not None:
                good += 1
                yield line, row
        if too_long is not None and not good:
            raise self.source.error(
                f"{count_of(len(too_long[1]), 'value')} under "
                f"{count_of(len(self.header), 'column')}",
                "quote names that hold commas",
                too_long[0],
            )

    def _lengthened(self, line: int, cells: list[str], *, is_last: bool) -> list[str] | None:
        missing = len(self.header) - len(cells)
        if not missing:
            return cells
        if (row := self._with_unwritten(cells)) is not None:
            self.source.note("has no values for columns that rocprofv2 only announces", line)
            return row
        if is_last:
            self.source.note("ends early, as when the run is killed; left out", line)
            return None
        if self._ends_in_times or self._name_at is None or len(cells) <= self._name_at:
            self.source.note("has fewer values than columns; left out", line)
            return None
        self.source.note("has fewer values than columns; those at the end are unknown", line)
        return cells + [""] * missing

    def _with_unwritten(self, cells: list[str]) -> list[str] | None:
        """A row without sig and obj, and maybe counters: rocprofv2 writes 0 around its times."""
        at, wanted = self._unwritten_at, len(self.header)
        if at is None or len(cells) < at + 4 or {cells[-4].strip(), cells[-1].strip()} != {"0"}:
            return None
        if wanted - len(cells) == len(_UNWRITTEN):
            return [*cells[:at], "", "", *cells[at:]]
        return [*cells[:at], *[""] * (wanted - at - 4), *cells[-4:]]

    def _shortened(self, line: int, cells: list[str]) -> list[str] | None:
        """The row with its unquoted name joined, or without what is beyond the last column."""
        at = self._name_at
        extra = len(cells) - len(self.header)
        if at is not None:
            if "(" in cells[at] and _is_closed(cells[at]):
                self.source.note("has more values than columns; those at the end left out", line)
                return cells[:-extra]
            name = ",".join(cells[at : at + extra + 1])
            if "(" in name and _is_closed(name):
                self.source.note(
                    "the kernel name has commas and no quotes; put together again", line
                )
                return [*cells[:at], name, *cells[at + extra + 1 :]]
        self.source.note("has more values than columns; left out", line)
        return None


def _is_closed(name: str) -> bool:
    """Whether every bracket of a name is closed; `<` and `>` may be operators."""
    return all(name.count(a) == name.count(b) for a, b in ("()", "[]", "{}"))
