"""Profiles of GPU kernels, as written by any release of AMD's rocprof.

A card that ROCm dropped has an old profiler (rocprof v1 for gfx803), a newer one rocprofv2 or v3,
and their files have little in common. `read` tells them apart by content and gives one table of
kernels and one of transfers; the notes say what was wrong with a file.
"""

from __future__ import annotations

import errno
import io
import re
from pathlib import Path

from perfkit.gpu.rocprof import kinds
from perfkit.gpu.rocprof.cells import RocprofError, SourceFile
from perfkit.gpu.rocprof.csv_files import FileContent, read_sheet, sheet_of
from perfkit.gpu.rocprof.csv_rows import long_fields, read_rows
from perfkit.gpu.rocprof.kinds import SQLITE, other_sheet, unknown, unpacked
from perfkit.gpu.rocprof.rocpd import read_database
from perfkit.gpu.rocprof.several import together
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

_ROCPD = "database of rocprofv3"
#: The first event of a trace, or of a part of one.
_JSON = re.compile(rb"\s*(?:[\[{]|,\s*\{)")
_TO_DO = {
    errno.ENOENT: "check the path",
    errno.EISDIR: "give the files in it",
    errno.EACCES: "make it readable for this user",
}


def read(path: str | Path, *more: str | Path) -> KernelProfile:
    """The kernels and transfers in files of rocprof v1, rocprofv2, rocprofv3 or PyTorch.

    Databases (rocpd), CSV of all releases, the lines rocprofv2 prints and traces in Chrome's JSON
    are told apart by content. A dispatch that is in several files counts once. Raises RocprofError,
    with the file, its line and what to do.
    """
    return together([_read(file) for file in (path, *more)])


def _read(path: str | Path) -> KernelProfile:
    source = SourceFile(str(path))
    try:
        with Path(path).open("rb") as file:
            content = file.read(len(SQLITE))
            if content == SQLITE:
                found = FileContent(_ROCPD, *read_database(Path(path), source))
                return _profile(found, source)
            content += file.read(kinds.FILE_BYTES_MAX + 1 - len(content))
    except (OSError, ValueError) as error:
        if isinstance(error, RocprofError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        to_do = _TO_DO.get(getattr(error, "errno", None) or 0, "check the path")
        raise source.error(f"cannot be read: {reason}", to_do) from None
    return parse(content, str(path))


def parse(content: bytes, file: str = "the profile") -> KernelProfile:
    """The profile in the bytes of a file, as `read`; messages call it `file`."""
    source = SourceFile(file)
    return _profile(_content(unpacked(content, source), source), source)


def _content(content: bytes, source: SourceFile) -> FileContent:
    if content.startswith(SQLITE):
        return FileContent(_ROCPD, *read_database(content, source))
    if RECORD.search(content):  # first: the program may print a line that looks like JSON
        lines = io.TextIOWrapper(io.BytesIO(content), "utf-8", "replace", newline=None)
        return FileContent("lines of rocprofv2", *read_lines(lines, source))
    if _JSON.match(content):
        text = content.decode("utf-8", "replace")
        return FileContent("trace in Chrome's JSON", *read_trace(text, source))
    with long_fields(len(content) + 1):
        header, rows = read_rows(content, source)
        if (refused := other_sheet(header, source)) is not None:
            raise refused
        found = read_sheet(sheet_of(header, rows, source)) if len(header) > 1 else None
    if found is None:
        raise unknown(",".join(header), source)
    return found


def _profile(found: FileContent, source: SourceFile) -> KernelProfile:
    source.check()
    if not found.kernels and (found.kind == _ROCPD or not found.transfers):
        source.note("there is no kernel in it" + ("" if found.transfers else ", and no transfer"))
    return KernelProfile(
        found.kernels,
        found.transfers,
        source.file,
        found.kind,
        source.notes(),
        found.is_countable,
    )
