"""Traces in Chrome's JSON, as rocprof v1 (`results.json`), rocprofv2 and PyTorch write them.

Format: "Trace Event Format" (Chromium), complete events (`"ph": "X"`) with `ts` and `dur` in
microseconds. rocprof v1 puts each GPU's kernels and all copies in "processes" of their own, named
by metadata events, has every value in quotes, and keeps the exact times beside in `args` (ROCm/
rocprofiler, bin/sqlitedb.py and bin/tblextr.py); rocprofv2 marks its events by `cat` (plugin/json/
json.cpp). Both write a duration below a microsecond as 1. PyTorch's events have a `cat`, times with
a fraction, and grid and block in `args` (pytorch/kineto, libkineto/src/output_json.cpp).

Events are read one by one, so a long trace is in memory as text only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from perfkit.gpu.rocprof.cells import SourceFile, clean, is_number
from perfkit.gpu.rocprof.columns import KNOWN, SIZE, START, is_counter, plain
from perfkit.gpu.rocprof.records import (
    ProfileRecord,
    counters_in,
    kernel_of,
    transfer_of,
    with_counters,
)
from perfkit.gpu.rocprof.tables import Kernel, Transfer

_Event: TypeAlias = Mapping[str, Any]

_CATEGORIES = {
    "gpu": "kernel", "kernel": "kernel", "copy": "copy", "gpu_memcpy": "copy", "memcpy": "copy",
}  # fmt: skip
#: rocprof v1 puts it among the kernels to show that the queue waits.
_BARRIER = "<barrier packet>"
_GPU_TRACK = re.compile(r"GPU *\d*", re.ASCII)
_EVENTS = re.compile(r'"traceEvents"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")
#: From microseconds to nanoseconds, as a power of ten.
_NS_SHIFT = 3
#: Between an event and the next, where reading goes on after an event that is no JSON.
_NEXT = re.compile(r"\}\s*,\s*(?=\{)")
#: A file with more of them is no trace.
_BAD_MAX = 100

_Timed = TypeVar("_Timed", Kernel, Transfer)


def read_trace(text: str, source: SourceFile) -> tuple[tuple[Kernel, ...], tuple[Transfer, ...]]:
    """The kernels and copies among the events, in their order.

    Raises RocprofError for text that is no JSON, and for JSON of something else.
    """
    tracks: dict[str | None, str] = {}
    found: list[Kernel | Transfer | _Event] = []
    phases: set[object] = set()
    for event in _events(text, source):
        phase, track = event.get("ph"), _text(event.get("pid"))
        phases.add(_text(phase))
        if phase == "M" and event.get("name") == "process_name":
            tracks[track] = _text(_mapping(event.get("args")).get("name")) or ""
        elif phase in ("X", "B", "E"):
            if event.get("cat") or track in tracks:
                found += _record(event, tracks, source)
            else:
                found.append(event)  # its track may get a name later
    if phases == {None}:
        raise source.error("JSON without an event of a trace", "give the trace of a profiler")
    records = [
        record
        for item in found
        for record in (_record(item, tracks, source) if isinstance(item, Mapping) else (item,))
    ]
    return (
        tuple(record for record in records if isinstance(record, Kernel)),
        tuple(record for record in records if isinstance(record, Transfer)),
    )


def _events(text: str, source: SourceFile) -> Iterator[_Event]:
    """Each event that is JSON; others are left out, and the end if it is cut, with a note."""
    # Numbers stay text, as in the other formats: a double would round those above 2**53. Names of
    # annotations are not always escaped, hence not strict.
    decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str, strict=False)
    at, good, bad = _begin(text, source), 0, 0
    while True:
        between = _BETWEEN.match(text, at)
        at = at if between is None else between.end()
        if at >= len(text) or text[at] == "]":
            break
        try:
            event, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            following, bad = _NEXT.search(text, at + 1), bad + 1
            if bad > _BAD_MAX or (following is None and not good):
                raise source.error(
                    f"not JSON: {error.msg}", "copy the file again if it was cut", error.lineno
                ) from None
            what = "ends early, as when the run is killed" if following is None else "not JSON"
            source.note(f"{what}; left out", error.lineno)
            at = len(text) if following is None else following.end()
        except RecursionError:
            raise source.error(
                "nested too deeply for a trace", "give the trace that the profiler wrote"
            ) from None
        else:
            if isinstance(event, Mapping):
                good += 1
                yield event
    if at >= len(text) and not good:
        raise source.error("not JSON: it ends early", "copy the file again if it was cut", 1)


def _begin(text: str, source: SourceFile) -> int:
    """Where the first event is: in a list, in an object, or at once in a part of a trace."""
    start = len(text) - len(text.lstrip())
    if text[start] in "[,":
        return start + 1
    if events := _EVENTS.search(text):
        return events.end()
    if '"rocprofiler-sdk-tool"' in text[:4096]:
        raise source.error(
            "rocprofv3's own JSON, which is no trace",
            "give what the run wrote beside it, or profile with --output-format rocpd",
        )
    raise source.error("JSON without traceEvents", "give the trace of a profiler")


def _record(
    event: _Event, tracks: Mapping[str | None, str], source: SourceFile
) -> tuple[Kernel | Transfer, ...]:
    """The kernel or copy of an event, or nothing."""
    kind, name = _kind(event, tracks), _text(event.get("name"))
    if kind is None:
        return ()
    if event.get("ph") != "X":
        source.note("events whose begin and end are apart, which rocprof writes none of: left out")
        return ()
    row = ProfileRecord(_fields(event, name, source), source)
    if kind == "copy":
        return (_timed(transfer_of(row, name), row, event),)
    if name == _BARRIER or (kernel := kernel_of(row)) is None:
        return ()
    return (with_counters(_timed(kernel, row, event), counters_in(row), source),)


def _kind(event: _Event, tracks: Mapping[str | None, str]) -> str | None:
    category = (_text(event.get("cat")) or "").lower()
    if category:
        return _CATEGORIES.get(category)
    track = tracks.get(_text(event.get("pid")), "")
    if track.upper() == "COPY":
        return "copy"
    return "kernel" if _GPU_TRACK.fullmatch(track) else None


def _fields(event: _Event, name: str | None, source: SourceFile) -> dict[str, str | None]:
    """The name of an event, and the columns and counters in its `args`."""
    fields: dict[str, str | None] = {}
    for key, value in _mapping(event.get("args")).items():
        column, text = plain(_text(key) or ""), _text(value)
        if isinstance(value, list) and column in ("grid", "block"):
            for axis, size in zip("xyz", value, strict=False):
                fields[column + axis] = _text(size)
        elif text is not None and _is_wanted(key, column, text):
            fields[column if column in KNOWN else key] = text
            source.spellings.setdefault(column, clean(key, source, None))
    fields.setdefault("kernelname", name)
    if fields.keys() >= {"gridx", "blockx"}:
        source.note("the grid is in workgroups, as PyTorch counts it")
    return fields


def _is_wanted(key: str, column: str, text: str) -> bool:
    if column in SIZE or column not in KNOWN:
        return is_number(text) and (column in SIZE or is_counter(key))
    return True


def _timed(record: _Timed, row: ProfileRecord, event: _Event) -> _Timed:
    """The record with the event's own times, unless its `args` have the exact ones."""
    if row.text(START) is not None:
        return record
    if not any("." in (_text(event.get(name)) or "") for name in ("ts", "dur")):
        row.source.note("times are to the microsecond; shorter durations are written as 1 µs")
    start_ns = _ns(row, event, "ts")
    return replace(record, start_ns=start_ns, duration_ns=_ns(row, event, "dur"))


def _ns(row: ProfileRecord, event: _Event, name: str) -> int | None:
    place = f" of {clean(_text(event.get('name')) or '', row.source, None)[:40]!r}"
    times = ProfileRecord({name: _text(event.get(name))}, row.source)
    value = times.time((name,), _NS_SHIFT, place)
    return None if value is None else round(value)


def _text(value: object) -> str | None:
    """A scalar of JSON as text without half surrogates; else None."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "replace").decode()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
