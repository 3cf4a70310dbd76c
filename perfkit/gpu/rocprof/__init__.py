"""Profiles of GPU kernels, as written by any release of AMD's rocprof.

A card that ROCm dropped has an old profiler (rocprof v1 for gfx803), a newer one rocprofv2 or v3,
and their files have little in common. `read` tells them apart by content and gives one table of
kernels and one of transfers; the notes say what was wrong with a file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from perfkit.gpu.rocprof.cells import RocprofError, SourceFile
from perfkit.gpu.rocprof.csv_files import (
    Sheet,
    copies,
    counted_kernels,
    kernels_of,
    read_sheet,
    traced_kernels,
)
from perfkit.gpu.rocprof.records import NAME
from perfkit.gpu.rocprof.tables import Kernel, KernelProfile, KernelTotal, TopKernels, Transfer
from perfkit.gpu.rocprof.trace import read_trace
from perfkit.gpu.rocprof.v2 import RECORD, read_lines

__all__ = [
    "Kernel",
    "KernelProfile",
    "KernelTotal",
    "RocprofError",
    "TopKernels",
    "Transfer",
    "parse",
    "read",
]

#: A file beyond this is refused: while it is read, memory holds it several times over.
FILE_BYTES_MAX = 256 * 2**20

_AS_CSV = "profile with rocprofv3 --output-format csv"
#: First bytes of other files that the profilers leave, and what to do instead.
_MAGIC = {
    b"\x1f\x8b": ("compressed by gzip", "unpack it with gunzip"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or save it as CSV"),
    b"SQLite format 3": ("a database (rocpd, or rocprof v1's .db)", _AS_CSV),
    b"\xff\xfe": ("UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16", "save it as UTF-8"),
}
#: Other CSV files of the profilers, by a column of theirs alone.
_OTHER_SHEETS = {
    "Function": "a trace of API calls",
    "TotalDurationNs": "totals by name",
    "Node_Id": "a list of agents",
}


def read(path: str | Path) -> KernelProfile:
    """The kernels and transfers in a file of rocprof v1, rocprofv2 or rocprofv3.

    CSV of all three, the lines rocprofv2 prints and traces in Chrome's JSON are told apart by
    content. Raises RocprofError, with the file, its line and what to do.
    """
    source = SourceFile(str(path))
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise source.error(f"cannot be read: {reason}", "check the path") from None
    return parse(content, str(path))


def parse(content: bytes, file: str = "the profile") -> KernelProfile:
    """The profile in the bytes of a file, as `read`; messages call it `file`."""
    source = SourceFile(file)
    text = _text(content, source)
    first = text.lstrip().partition("\n")[0]
    if RECORD.search(text):  # first: the program may print a line that looks like JSON
        kind, (kernels, transfers) = "lines of rocprofv2", read_lines(text, source)
    elif first.startswith(("{", "[")):
        kind, (kernels, transfers) = "trace in Chrome's JSON", read_trace(text, source)
    elif "," in first:
        kind, kernels, transfers = _from_sheet(read_sheet(text, source), source)
    else:
        raise _unknown(first, source)
    if not kernels and not transfers:
        source.note("there is no kernel and no transfer in it")
    return KernelProfile(kernels, transfers, file, kind, source.notes())


def _from_sheet(
    sheet: Sheet, source: SourceFile
) -> tuple[str, tuple[Kernel, ...], tuple[Transfer, ...]]:
    columns = set(sheet.columns)
    if {"Direction", "Start_Timestamp"} <= columns:
        return "memory copies of rocprofv3", (), copies(sheet)
    readers: tuple[tuple[str, str, Callable[[Sheet], tuple[Kernel, ...]]], ...] = (
        ("Counter_Name", "counters of rocprofv3", counted_kernels),
        ("Kind", "kernel trace of rocprofv3", traced_kernels),
        ("Kernel_Name", "CSV of rocprofv2", kernels_of),
        ("KernelName", "CSV of rocprof v1", kernels_of),
    )
    for column, kind, kernels in readers:
        if column in columns and not columns.isdisjoint(NAME):
            return kind, kernels(sheet), ()
    for column, what in _OTHER_SHEETS.items():
        if column in columns:
            raise source.error(
                f"{what}, without the kernels", "give the file of kernels or counters beside it"
            )
    raise _unknown(",".join(sheet.columns), source)


def _text(content: bytes, source: SourceFile) -> str:
    if len(content) > FILE_BYTES_MAX:
        raise source.error(
            f"more than {FILE_BYTES_MAX // 2**20} MiB", "profile fewer kernels (rocprof --range)"
        )
    for magic, (what, to_do) in _MAGIC.items():
        if content.startswith(magic):
            raise source.error(what, to_do)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise source.error("not text (UTF-8)", _AS_CSV, line) from None
    if not text.strip():
        raise source.error("empty", "profile again; did the program launch a kernel?")
    return text


def _unknown(first: str, source: SourceFile) -> RocprofError:
    begins = "".join(letter if letter.isprintable() else "�" for letter in first[:60])
    return source.error(
        f"not written by rocprof; it begins with {begins!r}",
        "give its CSV, the lines rocprofv2 prints, or a trace in Chrome's JSON",
        1,
    )
