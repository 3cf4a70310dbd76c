"""Traces in Chrome's JSON, as rocprof v1 (`results.json`) and rocprofv2's plugin write them.

Format: "Trace Event Format" (Chromium), complete events (`"ph": "X"`) with `ts` and `dur` in
microseconds. rocprof v1 puts each GPU's kernels and all copies in "processes" of their own, named
by metadata events, has every value in quotes, and keeps the exact times beside in `args` (ROCm/
rocprofiler, bin/sqlitedb.py and bin/tblextr.py); rocprofv2 marks its events by `cat` (plugin/json/
json.cpp). Both write a duration below a microsecond as 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from perfkit.gpu.rocprof.cells import SourceFile, clean, is_number
from perfkit.gpu.rocprof.records import NO_COUNTERS, START, ProfileRecord, kernel_of, transfer_of
from perfkit.gpu.rocprof.tables import Kernel, Transfer

_CATEGORIES = {"gpu": "kernel", "kernel": "kernel", "copy": "copy", "gpu_memcpy": "copy"}
#: rocprof v1 puts it among the kernels to show that the queue waits.
_BARRIER = "<barrier packet>"
_GPU_TRACK = re.compile(r"GPU *\d*", re.ASCII)
#: From microseconds to nanoseconds, as a power of ten.
_NS_SHIFT = 3

_Timed = TypeVar("_Timed", Kernel, Transfer)


def read_trace(text: str, source: SourceFile) -> tuple[tuple[Kernel, ...], tuple[Transfer, ...]]:
    """The kernels and copies among the events, in their order.

    Raises RocprofError for text that is no JSON, for no events and for text in place of a number.
    """
    events = [event for event in _events(text, source) if isinstance(event, Mapping)]
    tracks = {
        _text(event.get("pid")): _text(_mapping(event.get("args")).get("name")) or ""
        for event in events
        if event.get("ph") == "M" and event.get("name") == "process_name"
    }
    kernels: list[Kernel] = []
    transfers: list[Transfer] = []
    for event in events:
        name, kind = _text(event.get("name")), _kind(event, tracks)
        if kind is not None and event.get("ph") in ("B", "E"):
            source.note(
                "events whose begin and end are apart, which rocprof writes none of: left out"
            )
        if event.get("ph") != "X":
            continue
        row = ProfileRecord(_fields(event, name, source), source)
        if kind == "copy":
            transfers.append(_timed(transfer_of(row, name), row, event))
        elif kind == "kernel" and name != _BARRIER and (kernel := kernel_of(row)) is not None:
            kernels.append(_timed(kernel, row, event))
    return tuple(kernels), tuple(transfers)


def _events(text: str, source: SourceFile) -> Sequence[Any]:
    try:
        # Numbers stay text, as in the other formats: a double would round those above 2**53.
        content = json.loads(text, parse_float=str, parse_int=str)
    except json.JSONDecodeError as error:
        raise source.error(
            f"not JSON: {error.msg}",
            "a trace ends early when the run is killed; profile again",
            error.lineno,
        ) from None
    except RecursionError:
        raise source.error("nested too deeply for a trace", "give rocprof's own trace") from None
    if isinstance(content, Mapping):
        if "rocprofiler-sdk-tool" in content:
            raise source.error(
                "rocprofv3's own JSON, which is no trace", "profile with --output-format csv"
            )
        content = content.get("traceEvents")
    if not isinstance(content, list):
        raise source.error("JSON without traceEvents", "give the results.json of a rocprof trace")
    return content


def _kind(event: Mapping[str, Any], tracks: Mapping[str | None, str]) -> str | None:
    category = (_text(event.get("cat")) or "").lower()
    if category:
        return _CATEGORIES.get(category)
    track = tracks.get(_text(event.get("pid")), "")
    if track.upper() == "COPY":
        return "copy"
    return "kernel" if _GPU_TRACK.fullmatch(track) else None


def _fields(
    event: Mapping[str, Any], name: str | None, source: SourceFile
) -> dict[str, str | None]:
    """The name of an event, and the columns and counters in its `args`."""
    fields: dict[str, str | None] = {"KernelName": name}
    for key, value in _mapping(event.get("args")).items():
        text = _text(value)
        if text is not None and (key in NO_COUNTERS or is_number(text)):
            fields[clean(_text(key) or "", source, None)] = text
    return fields


def _timed(record: _Timed, row: ProfileRecord, event: Mapping[str, Any]) -> _Timed:
    """The record with the event's own times, unless its `args` have the exact ones."""
    if row.text(START) is not None:
        return record
    row.source.note("times are to the microsecond; shorter durations are written as 1 µs")
    start_ns = _ns(row, event, "ts")
    return replace(record, start_ns=start_ns, duration_ns=_ns(row, event, "dur"))


def _ns(row: ProfileRecord, event: Mapping[str, Any], name: str) -> int | None:
    place = f" of {clean(_text(event.get('name')) or '', row.source, None)[:40]!r}"
    times = ProfileRecord({name: _text(event.get(name))}, row.source)
    value = times.figure((name,), _NS_SHIFT, place)
    return None if value is None else round(value)


def _text(value: object) -> str | None:
    """A scalar of JSON as text without half surrogates; else None."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "replace").decode()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
