"""What a file is, by its first bytes and its columns, and its text in one encoding.

The profilers leave many files beside each other, and most of them hold no kernel. Such a file is
named for what it is, with the file to give instead.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from io import BytesIO

from perfkit.gpu.rocprof.cells import RocprofError, SourceFile, printable
from perfkit.gpu.rocprof.columns import plain

SQLITE = b"SQLite format 3\0"
#: A file beyond this is refused: while it is read, memory holds it a few times over.
FILE_BYTES_MAX = 256 * 2**20

_BESIDE = "give the file of kernels or counters of the same run, or profile with --kernel-trace"
_OTHER_FORMAT = "profile with --output-format rocpd or csv"
#: First bytes of other files, what they are, and what to do instead.
_MAGIC = {
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or save it as CSV"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it with unzstd"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it with unxz"),
    b"BZh": ("compressed by bzip2", "unpack it with bunzip2"),
    b"\x7fELF": ("a program or a code object", "give what the profiler wrote"),
    b"\x75\x11\x1f\xc1": ("a trace in the Common Trace Format", _OTHER_FORMAT),
    b"\xc1\x1f\x11\x75": ("a trace in the Common Trace Format", _OTHER_FORMAT),
    b"OTF2": ("a trace in the Open Trace Format (OTF2)", _OTHER_FORMAT),
}
#: Byte order marks; UTF-32's begins as UTF-16's does.
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
#: Other CSV files of the profilers, by columns that only they have.
_SHEETS: tuple[tuple[frozenset[str], str], ...] = tuple(
    (frozenset(columns.split()), what)
    for columns, what in (
        ("function", "a trace of API calls or markers"),
        ("allocationsize", "a trace of memory allocations"),
        ("allocflags", "a trace of scratch memory"),
        ("roctxid message", "a trace of roctx markers"),
        ("nameid name", "a trace of markers"),
        ("execmask instruction", "samples of the program counter"),
        ("pcsample gpuid", "samples of the program counter"),
        ("sampletimestamp", "samples of the program counter"),
        ("name totaldurationns", "statistics, totals by name"),
        ("kernelname count sumns", "statistics, totals by kernel"),
        ("agenttype nodeid", "a list of agents, the CPUs and GPUs of a node"),
        ("gpuarch workloadname", "a description of the machine"),
        ("workloadname gpumodel", "a description of the machine"),
        ("hbmbw l2bw", "benchmarks for a roofline"),
        ("metric unit avg", "metrics that were worked out already"),
        ("codeobjectid vaddr", "instructions of a thread trace"),
        ("hitcount latency", "instructions of a thread trace"),
        ("kind operation starttimestamp", "a trace of other operations than kernels and copies"),
    )
)
#: First words of text files that lie beside a profile.
_TEXTS = {
    "pmc": "the list of counters that rocprof is to collect",
    "jobs": "the list of counters that rocprofv3 is to collect",
}
#: `begin:end process:thread call(…)`, which rocprof v1 turns into CSV and JSON.
_RAW = re.compile(r"\d+:\d+ \d+:\d+ ", re.ASCII)


def unpacked(content: bytes, source: SourceFile) -> bytes:
    """The content as UTF-8, out of gzip and without a byte order mark.

    Bytes that are no text stay, with a note of their line. Raises RocprofError for other kinds of
    files, for one without text and for one beyond FILE_BYTES_MAX.
    """
    if content.startswith(b"\x1f\x8b"):
        content = _from_gzip(content, source)
    if len(content) > FILE_BYTES_MAX:
        raise source.error(
            f"more than {FILE_BYTES_MAX // 2**20} MiB",
            "give a part of it, or profile fewer kernels",
        )
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if encoding is not None:
        content = content.decode(encoding, "replace").encode("utf-8", "replace")
    elif content.startswith(SQLITE):
        return content
    else:
        _refuse_binary(content, source)
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        source.note("bytes that are no UTF-8 are shown as � from here on", line)
    if not content.strip(b" \t\r\n\0"):
        raise source.error("empty", "did the program launch a kernel before it ended?")
    return content


def other_sheet(header: Iterable[str], source: SourceFile) -> RocprofError | None:
    """The error that says what a CSV file without kernels is, if that is known."""
    columns = {plain(name) for name in header}
    for needed, what in _SHEETS:
        if needed <= columns:
            return source.error(f"{what}, without the kernels", _BESIDE)
    return None


def unknown(first: str, source: SourceFile) -> RocprofError:
    """The error that says how a file begins that no profiler wrote, or what text it is."""
    word = first.strip().partition(":")[0].strip().lower()
    if word in _TEXTS:
        return source.error(_TEXTS[word], "give what the profiler wrote", 1)
    if word.startswith("<"):
        return source.error("XML or a web page", "give what the profiler wrote", 1)
    if _RAW.match(first):
        return source.error(
            "a raw trace of rocprof v1", "give the .csv or .json of the same run", 1
        )
    return source.error(
        f"not written by rocprof; it begins with {printable(first[:60])!r}",
        "give its database, its CSV, the lines rocprofv2 prints, or a trace in Chrome's JSON",
        1,
    )


def _from_gzip(content: bytes, source: SourceFile) -> bytes:
    try:
        with gzip.open(BytesIO(content)) as packed:
            return packed.read(FILE_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise source.error(
            f"compressed by gzip, and damaged: {error}", "copy the file again if it was cut"
        ) from None


def _refuse_binary(content: bytes, source: SourceFile) -> None:
    for magic, (what, to_do) in _MAGIC.items():
        if content.startswith(magic):
            raise source.error(what, to_do)
    if _is_packets(content):
        raise source.error("a trace for Perfetto (pftrace)", _OTHER_FORMAT)
    if content[:4096].count(b"\0") > len(content[:4096].strip(b"\0")) // 16 + 1:
        raise source.error("not text", "give what the profiler wrote")


def _is_packets(content: bytes, looked_at: int = 3) -> bool:
    """Whether it is packets, each behind 0x0a and its length (perfetto, protos/perfetto/trace).

    The length is a varint: seven bits of a byte, the lowest first, and one for more to come.
    """
    at = 0
    for _ in range(looked_at):
        if content[at : at + 1] != b"\n":
            return at == len(content) > 0
        length, shift, at = 0, 0, at + 1
        while at < len(content) and shift < 35:
            length |= (content[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if content[at - 1] < 128:
                break
        if not length:
            return False
        at += length
    return at <= len(content)
