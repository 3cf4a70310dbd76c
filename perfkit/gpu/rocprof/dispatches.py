"""Which rows of a file are about one dispatch.

No file has a column that tells one dispatch from all others: ids of dispatches begin again on each
GPU, in each process and on each node, and a file has some of those columns and lacks others. So the
key is made of what there is, and the times decide where it is not enough:

* The same key at the same time is the same dispatch, written once per counter or once per XCC of an
  MI300 (ROCm/rocprofiler, CHANGELOG.md of ROCm 6.0).
* The same key at another time is another dispatch if it has a counter again; if its counters are
  others, it is the same dispatch in another pass of the profiler, which runs the program again for
  counters that the hardware cannot count together.
* Without key and times nothing tells dispatches apart, and their number is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from perfkit.gpu.rocprof.cells import UNKNOWN_WORDS, SourceFile
from perfkit.gpu.rocprof.columns import (
    DEVICE,
    DISPATCH,
    END,
    IDS,
    NAME,
    PART,
    START,
    is_additive,
)
from perfkit.gpu.rocprof.records import ProfileRecord, kernel_of, place_of, with_counters
from perfkit.gpu.rocprof.tables import Kernel

#: Dispatches with one id that a row is compared with, the latest: a file may have 0 for every id.
LOOKED_AT_MAX = 64
#: 0 stands for a time that was not taken.
_NOT_TAKEN = UNKNOWN_WORDS | {"0"}
_Counters: TypeAlias = Mapping[str, int | float | None]
_Time: TypeAlias = str | None


@dataclass(slots=True)
class _Dispatch:
    """One dispatch; a long file has a million of them, so each is small."""

    kernel: Kernel
    counters: dict[str, int | float | None]
    times: tuple[_Time, ...]
    #: The XCCs that each counter is from, if the rows tell.
    parts: dict[str, set[str]] | None
    #: The one before it that has the same key.
    earlier: _Dispatch | None


class Dispatches:
    """Collects the rows of one file and gives each dispatch once, in the order of first rows."""

    def __init__(self, source: SourceFile) -> None:
        self.source = source
        #: False if the file does not tell how many dispatches there were.
        self.is_countable = True
        self._latest: dict[tuple[object, ...], _Dispatch] = {}
        self._in_order: list[_Dispatch] = []

    def add(self, row: ProfileRecord, counters: dict[str, int | float | None]) -> None:
        """Add a row with the counters in it."""
        place, device = place_of(row) or "", row.label(DEVICE) or ""
        is_long = "countername" in row.fields
        dispatch_id = (row.text(IDS if is_long else DISPATCH) or ("", ""))[1]
        name, time, part = row.label(NAME) or "", _time(row), row.label(PART) or ""
        # Without an id a row with all counters is a dispatch, and one of a counter is of its time.
        is_alone = not (dispatch_id or part or is_long)
        key = (place, device, dispatch_id or (name, time))
        latest = None if is_alone else self._latest.get(key)
        same = [] if latest is None else list(_alike(latest, name, time))
        found = _of_other_part(same, part) if part and dispatch_id else None
        found = found or self._at(same, time, counters, bool(place and dispatch_id))
        if found is None and time is not None and dispatch_id:
            found = self._in_other_pass(same, counters)
        if found is not None:
            _merge(found, row, counters, part)
            if time not in found.times:
                found.times += (time,)
        elif (kernel := kernel_of(row)) is not None:
            parts = {name: {part} for name in counters} if part else None
            dispatch = _Dispatch(kernel, counters, (time,), parts, latest)
            self._in_order.append(dispatch)
            if not is_alone:
                self._latest[key] = dispatch

    def kernels(self) -> tuple[Kernel, ...]:
        """Every dispatch with all its counters; the collector is empty afterwards."""
        return tuple(self._finished())

    def _finished(self) -> Iterator[Kernel]:
        self._latest.clear()
        waiting = self._in_order[::-1]
        self._in_order.clear()
        while waiting:
            dispatch = waiting.pop()
            dispatch.earlier = None
            yield with_counters(dispatch.kernel, dispatch.counters, self.source)

    def _at(
        self, same: list[_Dispatch], time: _Time, counters: _Counters, is_identified: bool
    ) -> _Dispatch | None:
        """The one at this time; of rows without times only a counter's can be about one."""
        found = next((dispatch for dispatch in same if time in dispatch.times), None)
        if found is None or (time is None and not counters):
            return None
        if time is None and not (is_identified or counters.keys().isdisjoint(found.counters)):
            self.is_countable = False
            self.source.note(
                "a counter comes again under the same ids and without times, so the number of "
                "dispatches and all totals are unknown"
            )
        return found

    def _in_other_pass(self, same: list[_Dispatch], counters: _Counters) -> _Dispatch | None:
        """The one that lacks these counters, so that they are from another pass over it."""
        lacking = [d for d in same if d.counters and counters.keys().isdisjoint(d.counters)]
        if not counters or len(lacking) != 1:
            return None
        self.source.note(
            "a dispatch was run once for each group of counters; its times are those of one run"
        )
        return lacking[0]


def _alike(latest: _Dispatch | None, name: str, time: _Time) -> Iterator[_Dispatch]:
    """The latest dispatches with a key that have its name, or its time and a damaged name."""
    for _ in range(LOOKED_AT_MAX):
        if latest is None:
            return
        if latest.kernel.name == name or (time is not None and time in latest.times):
            yield latest
        latest = latest.earlier


def _of_other_part(same: list[_Dispatch], part: str) -> _Dispatch | None:
    """The dispatch that has rows of other XCCs and none of this one."""
    for dispatch in same:
        if dispatch.parts and not any(part in parts for parts in dispatch.parts.values()):
            return dispatch
    return None


def _merge(found: _Dispatch, row: ProfileRecord, counters: _Counters, part: str) -> None:
    if not part and "countername" not in row.fields:
        row.source.note("a dispatch that is written more than once; counted once", row.line)
    for name, value in counters.items():
        parts = found.parts.setdefault(name, set()) if part and found.parts is not None else None
        if name not in found.counters:
            found.counters[name] = value
        elif parts and part not in parts:
            found.counters[name] = _sum(name, found.counters[name], value, row)
        elif found.counters[name] != value or "countername" in row.fields:
            row.source.note(f"{name} is there twice for one dispatch, so it is unknown", row.line)
            found.counters[name] = None
        if parts is not None:
            parts.add(part)


def _sum(
    name: str, before: int | float | None, value: int | float | None, row: ProfileRecord
) -> int | float | None:
    if not is_additive(name):
        row.source.note(f"{name} of a whole dispatch does not follow from its XCCs; unknown")
        return None
    row.source.note("a dispatch was written once for each XCC; counters are sums over them")
    return None if before is None or value is None else before + value


def _time(row: ProfileRecord) -> _Time:
    start, end = row.text(START), row.text(END)
    times = ("" if start is None else start[1], "" if end is None else end[1])
    return None if all(time in _NOT_TAKEN for time in times) else "-".join(times)
