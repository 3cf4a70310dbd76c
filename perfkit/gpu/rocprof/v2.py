"""Lines that rocprofv2 prints: `Dispatch_ID(0), GPU_ID(1), …, Kernel_Name("f(int)"), …`.

Format: ROCm/rocprofiler, plugin/cli/cli.cpp; early releases, and the text files of rocprof v1, put
`dispatch[0], gpu_id(1), …` and each counter on a line of its own below it (plugin/file/file.cpp).
The profiled program prints into the same console: its lines, and its text in front of a record, are
skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from perfkit.gpu.rocprof.cells import SourceFile
from perfkit.gpu.rocprof.records import NAME, ProfileRecord, kernel_of, transfer_of
from perfkit.gpu.rocprof.tables import Kernel, Transfer

RECORD = re.compile(
    r"\bDispatch_ID\(\d|\bdispatch\[(\d{1,20})\], |\bDomain\(\w+_DOMAIN\)", re.ASCII
)
_KEY = re.compile(r"[\s,:]*([A-Za-z][\w-]*(?:\[\d{1,4}\])?) ?\(", re.ASCII)
_COUNTER_LINE = re.compile(r"(?:, |\s+)([A-Z]\w*(?:\[\d{1,4}\])?) \(([^()]{1,40})\)", re.ASCII)
#: The other domains are calls of the program, which name kernels too.
_OF_THE_GPU = ("HIP_OPS_DOMAIN", "HSA_OPS_DOMAIN")
_TIMES = ("DispatchNs", "BeginNs", "EndNs", "CompleteNs")


def read_lines(text: str, source: SourceFile) -> tuple[tuple[Kernel, ...], tuple[Transfer, ...]]:
    """The printed dispatches and copies, in order.

    A record that the program's own output cut is left out with a note. Raises RocprofError for text
    in place of a number.
    """
    dispatches: list[Kernel] = []
    traced: list[Kernel] = []
    transfers: list[Transfer] = []
    for row in _records(text, source):
        domain = row.fields.get("Domain")
        words = row.fields.get("Operation_Name") or row.fields.get("Operation") or ""
        if domain is None or (row.text(NAME) and domain in _OF_THE_GPU):
            kernel = kernel_of(row)
            if kernel is not None:
                (dispatches if domain is None else traced).append(kernel)
        elif domain in _OF_THE_GPU and "copy" in words.lower():
            transfers.append(transfer_of(row, words))
    if dispatches and traced:
        source.note("kernels are there as dispatches and as traced operations; those were left out")
    return tuple(dispatches or traced), tuple(transfers)


def _records(text: str, source: SourceFile) -> Iterator[ProfileRecord]:
    fields: dict[str, str | None] = {}
    begun = 0
    for line, printed in enumerate(text.split("\n"), 1):
        found = RECORD.search(printed)
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
    at = 0
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
    if name in fields and fields[name] != value:
        source.note(f"{name} is there twice and differs, so it is unknown", line)
        fields[name] = None
    else:
        fields[name] = value
