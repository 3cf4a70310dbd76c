"""From the named values of one dispatch or copy to a Kernel or a Transfer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from sys import intern

from perfkit.gpu.rocprof.cells import (
    UNKNOWN_WORDS,
    LostDigits,
    NotANumber,
    SourceFile,
    clean,
    exact,
    rounded,
)
from perfkit.gpu.rocprof.columns import (
    DESTINATION,
    DEVICE,
    DISPATCH,
    DURATION,
    END,
    GRID,
    GRID_XYZ,
    KNOWN,
    NAME,
    PLACE,
    QUEUE,
    SIZE,
    SOURCE,
    START,
    WORKGROUP,
    WORKGROUP_XYZ,
)
from perfkit.gpu.rocprof.counters import FLOWS, traffic
from perfkit.gpu.rocprof.tables import Kernel, Transfer

#: No clock in ns and no grid comes near.
_WHOLE_MAX = 2**64
_DIRECTION = re.compile(r"(host|device)_?to_?(host|device)|(?:^|_)([hd])to([hd])(?:_|$)", re.I)
#: `(64, 1, 1)`, `64x1x1` and the like.
_THREE = re.compile(
    r"[\[({]? *([1-9]\d{0,9}) ?[, xX] ?([1-9]\d{0,9}) ?[, xX] ?([1-9]\d{0,9}) *[\])}]?"
)
_SIDES = {"h": "host", "d": "device"}
#: Names of one thing that a place has under one of them.
_PLACES = {"processid": "pid", "process": "pid", "nodeid": "node", "hostname": "host"}


@dataclass(frozen=True, slots=True)
class ProfileRecord:
    """The values of one record as text, by `plain` names; counters have their own names.

    Unknown values are None or absent.
    """

    fields: Mapping[str, str | None]
    source: SourceFile
    line: int | None = None

    def text(self, names: tuple[str, ...]) -> tuple[str, str] | None:
        """The first of these names that has a value, and the value."""
        for name in names:
            value = self.fields.get(name)
            if value is not None and (value := value.strip()).lower() not in UNKNOWN_WORDS:
                return name, value
        return None

    def label(self, names: tuple[str, ...]) -> str | None:
        """A value that is a name, made printable."""
        found = self.text(names)
        return None if found is None else intern(clean(found[1], self.source, self.line))

    def figure(self, names: tuple[str, ...]) -> int | float | None:
        """A number of 0 or more; None with a note if it cannot be trusted."""
        found = self.text(names)
        value = None if found is None else self._exact(*found)
        return None if value is None else rounded(value)

    def whole(self, names: tuple[str, ...]) -> int | None:
        """A whole number of 64 bits; other numbers are unknown, with a note."""
        found = self.text(names)
        value = None if found is None else self._exact(*found)
        if found is None or value is None:
            return None
        if isinstance(value, int) and value < _WHOLE_MAX:
            return value
        self._note(found[0], "is no whole number of 64 bits and is unknown")
        return None

    def time(
        self, names: tuple[str, ...], shift: int = 0, place: str = ""
    ) -> int | Fraction | None:
        """A time in units of 10**-shift ns; a fraction of a ns comes from a mean over passes.

        `place` tells where the record is, if it has no line.
        """
        found = self.text(names)
        value = None if found is None else self._exact(*found, shift, place)
        if found is None or value is None:
            return None
        if value < _WHOLE_MAX:
            return value
        self._note(found[0], "is no time of 64 bits and is unknown")
        return None

    def sizes(
        self, xyz: tuple[tuple[str, ...], ...], total: tuple[str, ...]
    ) -> tuple[int, ...] | None:
        """Three dimensions, also in one value, or their product alone; 0 stands for unset."""
        each = [self.whole(names) for names in xyz]
        if all(each):
            return tuple(size for size in each if size is not None)
        if (found := self.text(total)) and (three := _THREE.fullmatch(found[1])):
            return tuple(int(size) for size in three.groups())
        product = self.whole(total)
        return (product,) if product else None

    def _exact(
        self, name: str, text: str, shift: int = 0, place: str = ""
    ) -> int | Fraction | None:
        try:
            value = exact(text, shift)
        except LostDigits:
            self._note(
                name,
                "has lost its last digits and is unknown, as if a spreadsheet had rounded it "
                "(1.62068E+14)",
            )
            return None
        except NotANumber:
            self.source.is_no_number(name, text, place, self.line)
            return None
        self.source.is_number(name)
        if value < 0:
            self._note(name, "is below 0, which cannot be, and is unknown")
            return None
        return value

    def _note(self, name: str, text: str) -> None:
        self.source.note(f"{self.source.called(name)} {text}", self.line)


def kernel_of(row: ProfileRecord) -> Kernel | None:
    """The kernel of a row, without its counters; None, with a note, without a name."""
    name = row.label(NAME)
    if name is None:
        row.source.note("no kernel name; left out", row.line)
        return None
    start_ns, duration_ns = times_of(row)
    dispatch = row.text(DISPATCH)  # not shared as other labels are: no two are alike
    return Kernel(
        name=name,
        start_ns=start_ns,
        duration_ns=duration_ns,
        grid=row.source.shared(row.sizes(GRID_XYZ, GRID)),
        workgroup=row.source.shared(row.sizes(WORKGROUP_XYZ, WORKGROUP)),
        device=row.label(DEVICE),
        queue=row.label(QUEUE),
        dispatch=None if dispatch is None else clean(dispatch[1], row.source, row.line),
        place=place_of(row),
    )


def place_of(row: ProfileRecord) -> str | None:
    """Where a dispatch or a copy ran, as far as the row tells: `guid=… nid=1 pid=7`."""
    known = [(name, row.label((name,))) for name in PLACE if name in row.fields]
    told = " ".join(f"{_PLACES.get(name, name)}={value}" for name, value in known if value)
    return intern(told) if told else None


def counters_in(row: ProfileRecord) -> dict[str, int | float | None]:
    """The counters that a row has in columns of their own."""
    return {name: row.figure((name,)) for name in row.fields if name not in KNOWN}


def with_counters(
    kernel: Kernel, counters: Mapping[str, int | float | None], source: SourceFile
) -> Kernel:
    """The kernel with its counters and the traffic that follows from them, noted once."""
    if not counters:
        return kernel
    flows = [traffic(flow, counters) for flow in FLOWS]
    for flow in flows:
        if flow.how is not None:
            source.note(flow.how)
    return replace(
        kernel,
        counters=counters,
        fetched_bytes=flows[0].size_bytes,
        written_bytes=flows[1].size_bytes,
    )


def times_of(row: ProfileRecord) -> tuple[int | None, int | None]:
    """Start and duration of a record in ns, rounded after they were subtracted.

    The profilers write 0 for an unknown time. If the end is before the start, one of the two is
    wrong, so the duration is unknown.
    """
    start, end, given = row.time(START), row.time(END), row.time(DURATION)
    given_ns = None if given is None else round(given)
    if 0 in (start, end):
        row.source.note("a time of 0 stands for one that was not taken", row.line)
        return round(start) if start else None, given_ns
    if start is None or end is None:
        return None if start is None else round(start), given_ns
    if end < start:
        row.source.note("ends before it begins; its duration is unknown", row.line)
        return round(start), None
    if start.denominator > 1 or end.denominator > 1:
        row.source.note("times are to a fraction of a ns, as means over passes are; rounded")
    if given_ns not in (None, round(end - start)):
        row.source.note("its duration is not end less begin, which counts here", row.line)
    return round(start), round(end - start)


def transfer_of(row: ProfileRecord, direction: str | None) -> Transfer:
    """The copy of a row; `direction` holds the direction in the tool's words."""
    start_ns, duration_ns = times_of(row)
    return Transfer(
        direction=direction_of(direction),
        start_ns=start_ns,
        duration_ns=duration_ns,
        source=row.label(SOURCE),
        destination=row.label(DESTINATION),
        size_bytes=row.whole(SIZE),
        place=place_of(row),
    )


def direction_of(words: str | None) -> str | None:
    """`MEMORY_COPY_HOST_TO_DEVICE`, `CopyHostToDevice` or `Memcpy HtoD` as `host_to_device`."""
    match = _DIRECTION.search((words or "").replace(" ", "_"))
    if match is None:
        return None
    sides = [_SIDES.get(side.lower(), side.lower()) for side in match.groups() if side]
    return f"{sides[0]}_to_{sides[1]}"
