"""Lines that rocprofv2 prints: `Dispatch_ID(0), GPU_ID(1), …, Kernel_Name("f(int)"), …`.

Format: ROCm/rocprofiler, plugin/cli/cli.cpp; early releases, and the text files of rocprof v1, put
`dispatch[0], gpu_id(1), …` and each counter on a line of its own below it, and `Record(7)` or
`Record [7]` before a traced operation (plugin/file/file.cpp of ROCm 5.3 to 5.5). The profiled
program prints into the same console: its lines, and its text in front of a record, are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from perfkit.gpu.rocprof.cells import SourceFile
from perfkit.gpu.rocprof.columns import GPU_DOMAINS, KNOWN, NAME, is_counter, plain
from perfkit.gpu.rocprof.dispatches import Dispatches
from perfkit.gpu.rocprof.records import ProfileRecord, counters_in, transfer_of
from perfkit.gpu.rocprof.tables import Kernel, Transfer

_BEGIN = (
    r"\bDispatch_ID\(\d|\bdispatch\[(\d{1,20})\], |\bRecord ?[\[(]\d{1,20}[\])], Domain\(|"
    r"\bDomain\(\w+_DOMAIN\)"
)
#: A file has such a line.
RECORD = re.compile(_BEGIN.encode())
_RECORD = re.compile(_BEGIN, re.ASCII)
_KEY = re.compile(r"[\s,:]*([A-Za-z][\w -]*?(?:\[\d{1,4}\])?) ?\(", re.ASCII)
_NUMBERED = re.compile(r"[\s,:]*Record ?\[\d{1,20}\]", re.ASCII)
_COUNTER_LINE = re.compile(r"(?:, |\s+)([A-Z]\w*(?:\[\d{1,4}\])?) \(([^()]{1,40})\)", re.ASCII)
_TIMES = ("dispatchns", "beginns", "endns", "completens")


def read_lines(
    lines: Iterable[str], source: SourceFile
) -> tuple[tuple[Kernel, ...], tuple[Transfer, ...], bool]:
    """The printed dispatches and copies, in order, and whether their number is known.

    A record that the program's own output cut is left out with a note.
    """
    printed, traced = Dispatches(source), Dispatches(source)
    transfers: list[Transfer] = []
    for row in _records(lines, source):
        domain = row.fields.get("domain")
        words = row.fields.get("operationname") or row.fields.get("operation") or ""
        if domain is None:
            printed.add(row, counters_in(row))
        elif domain in GPU_DOMAINS and "copy" in words.lower():
            transfers.append(transfer_of(row, words))
        elif domain in GPU_DOMAINS and (row.text(NAME) or "dispatch" in words.lower()):
            traced.add(row, {})
    dispatches, operations = printed.kernels(), traced.kernels()
    if dispatches and operations:
        source.note("kernels are there as dispatches and as traced operations; those were left out")
    return dispatches or operations, tuple(transfers), printed.is_countable


def _records(lines: Iterable[str], source: SourceFile) -> Iterator[ProfileRecord]:
    fields: dict[str, str | None] = {}
    begun = 0
    for line, printed in enumerate(lines, 1):
        printed = printed.rstrip("\n")
        found = _RECORD.search(printed)
        if found is None:
            counter = _COUNTER_LINE.fullmatch(printed.rstrip())
            if fields and counter:
                _add(fields, counter[1], counter[2], source, line)
            continue
        if fields:
            yield ProfileRecord(fields, source, begun)
        fields, begun = {}, line
        start = found.start()
        if found[1] is not None:
            fields["dispatch"], start = found[1], found.end()
        if not _collect(printed[start:], fields, source, line):
            source.note("a record that is cut off; left out", line)
            fields = {}
    if fields:
        yield ProfileRecord(fields, source, begun)


def _collect(printed: str, fields: dict[str, str | None], source: SourceFile, line: int) -> bool:
    """Collect the `name(value)` pairs; whether they reach to the end of the line."""
    numbered = _NUMBERED.match(printed)
    at = 0 if numbered is None else numbered.end()
    while key := _KEY.match(printed, at):
        end = _closing(printed, key.end())
        if end is None:
            return False
        value = printed[key.end() : end].strip()
        if value.startswith('"') and value.endswith('"'):
            value = value[1:-1]
        if key[1] == "time":
            fields.update(zip(_TIMES, value.split(","), strict=False))
        _add(fields, key[1], value, source, line)
        at = end + 1
    return not printed[at:].strip(" ,:\t")


def _closing(printed: str, start: int) -> int | None:
    """Where the bracket before `start` closes; brackets in quotes do not count."""
    if printed.startswith('"', start):
        end = printed.find('")', start + 1)
        return None if end < 0 else end + 1
    depth = 1
    for at in range(start, len(printed)):
        depth += {"(": 1, ")": -1}.get(printed[at], 0)
        if depth == 0:
            return at
    return None


def _add(
    fields: dict[str, str | None], name: str, value: str, source: SourceFile, line: int
) -> None:
    key = plain(name)
    if key not in KNOWN:
        if not is_counter(name):
            return
        key = name
    source.spellings.setdefault(key, name)
    if key in fields and fields[key] != value:
        source.note(f"{name} is there twice and differs, so it is unknown", line)
        fields[key] = None
    else:
        fields[key] = value
