"""From the named values of one dispatch to a kernel, under the names of any release.

The tools write the same facts under different names: rocprof v1 `BeginNs`, rocprofv2
`Begin_Timestamp`, rocprofv3 `Start_Timestamp`. A value under any other name is a counter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from perfkit.gpu.rocprof.cells import (
    UNKNOWN_WORDS,
    LostDigits,
    NotANumber,
    SourceFile,
    clean,
    number,
)
from perfkit.gpu.rocprof.counters import FLOWS, traffic
from perfkit.gpu.rocprof.tables import Kernel, Transfer

NAME = ("KernelName", "Kernel_Name", "kernel-name", "kernel_name")
START = ("BeginNs", "Start_Timestamp", "Begin_Timestamp", "start_time", "Begin")
END = ("EndNs", "End_Timestamp", "end_time", "End")
DURATION = ("DurationNs", "Duration_ns", "Duration_NS", "Duration")
DISPATCH = ("Index", "Dispatch_Id", "Dispatch_ID", "dispatch")
DEVICE = ("gpu-id", "gpu_id", "GPU_ID", "Agent_Id", "dev-id")
QUEUE = ("queue-id", "queue_id", "Queue_ID", "Queue_Id")
GRID = ("grd", "Grid_Size")
GRID_XYZ = ("Grid_Size_X", "Grid_Size_Y", "Grid_Size_Z")
WORKGROUP = ("wgr", "Workgroup_Size")
WORKGROUP_XYZ = ("Workgroup_Size_X", "Workgroup_Size_Y", "Workgroup_Size_Z")

#: Columns without use that are no counters.
_OTHERS = (
    # v1
    "queue-index pid tid lds lmem scr vgpr arch_vgpr accum_vgpr sgpr fbar wave_size sig obj "
    "DispatchNs CompleteNs time "
    # rocprofv2
    "queue_index Queue_Index Process_ID Thread_ID PID TID LDS LDS_Per_Workgroup Scratch_Size "
    "Scratch_Per_Workitem Arch_VGPR Accum_VGPR Accumulative_VGPR SGPR Wave_Size Correlation_ID "
    "Record Domain Operation Operation_Name Function "
    # rocprofv3
    "Kind Process_Id Thread_Id Stream_Id Kernel_Id Correlation_Id LDS_Block_Size VGPR_Count "
    "Accum_VGPR_Count SGPR_Count Private_Segment_Size Group_Segment_Size Counter_Name "
    "Counter_Value "
    # traces in JSON
    "Name args Data stream-id roctx-range cid correlation device stream"
).split()
NO_COUNTERS = frozenset(
    [
        *NAME, *START, *END, *DURATION, *DISPATCH, *DEVICE, *QUEUE, *GRID, *GRID_XYZ, *WORKGROUP,
        *WORKGROUP_XYZ, *_OTHERS, "", "Unnamed: 0",
    ]
)  # fmt: skip

#: No clock in ns and no grid comes near.
_WHOLE_MAX = 2**64
_DIRECTION = re.compile(r"(host|device)_?to_?(host|device)|(?:^|_)([hd])to([hd])(?:_|$)", re.I)
_SIDES = {"h": "host", "d": "device"}


@dataclass(frozen=True, slots=True)
class ProfileRecord:
    """The named values of one record as text; unknown ones are None or absent."""

    fields: Mapping[str, str | None]
    source: SourceFile
    line: int | None = None

    def text(self, names: tuple[str, ...]) -> tuple[str, str] | None:
        """The first of these names that has a value, and the value."""
        for name in names:
            value = self.fields.get(name)
            if value is not None and value.strip().lower() not in UNKNOWN_WORDS:
                return name, value.strip()
        return None

    def label(self, names: tuple[str, ...]) -> str | None:
        """A value that is a name, made printable."""
        found = self.text(names)
        return None if found is None else clean(found[1], self.source, self.line)

    def figure(self, names: tuple[str, ...], shift: int = 0, place: str = "") -> int | float | None:
        """A number of 0 or more times 10**shift; None with a note if it cannot be trusted.

        Raises RocprofError for text that is no number, with the `place` of a record without lines.
        """
        found = self.text(names)
        if found is None:
            return None
        name, text = found
        try:
            value = number(text, shift)
        except LostDigits:
            self.source.note(
                f"{name} has lost its last digits and is unknown; a spreadsheet does that (it "
                "writes 1.62068E+14): use the file as the profiler wrote it",
                self.line,
            )
            return None
        except NotANumber:
            raise self.source.error(
                f"{name}{place} is {text[:40]!r}, which is no number",
                "profile again, or delete the record",
                self.line,
            ) from None
        if value < 0:
            self.source.note(f"{name} is below 0, which cannot be, and is unknown", self.line)
            return None
        return value

    def whole(self, names: tuple[str, ...]) -> int | None:
        """A whole number of 64 bits; other numbers are unknown, with a note."""
        found, value = self.text(names), self.figure(names)
        if found is None or value is None:
            return None
        if isinstance(value, int) and value < _WHOLE_MAX:
            return value
        self.source.note(f"{found[0]} is no whole number of 64 bits and is unknown", self.line)
        return None

    def sizes(self, xyz: tuple[str, ...], total: tuple[str, ...]) -> tuple[int, ...] | None:
        """Three dimensions, or their product alone; 0 stands for unset."""
        each = [self.whole((name,)) for name in xyz]
        if all(each):
            return tuple(size for size in each if size is not None)
        product = self.whole(total)
        return (product,) if product else None


def kernel_of(
    row: ProfileRecord, counters: Mapping[str, int | float | None] | None = None
) -> Kernel | None:
    """The kernel of a row, with the counters in it or those given.

    None, with a note, without a name. Raises RocprofError for text in place of a number.
    """
    name = row.label(NAME)
    if name is None:
        row.source.note("no kernel name; left out", row.line)
        return None
    start_ns, duration_ns = times_of(row)
    if counters is None:
        counters = {key: row.figure((key,)) for key in row.fields if key not in NO_COUNTERS}
    flows = []
    for flow in FLOWS:
        found = traffic(flow, counters)
        flows.append(found.size_bytes)
        if found.how is not None:
            row.source.note(found.how)
    return Kernel(
        name=name,
        start_ns=start_ns,
        duration_ns=duration_ns,
        grid=row.sizes(GRID_XYZ, GRID),
        workgroup=row.sizes(WORKGROUP_XYZ, WORKGROUP),
        device=row.label(DEVICE),
        queue=row.label(QUEUE),
        dispatch=row.label(DISPATCH),
        counters=counters,
        fetched_bytes=flows[0],
        written_bytes=flows[1],
    )


def times_of(row: ProfileRecord) -> tuple[int | None, int | None]:
    """Start and duration of a record in ns.

    The profilers write 0 for an unknown time. If the end is before the start, one of the two is
    wrong, so the duration is unknown.
    """
    start_ns, end_ns = row.whole(START), row.whole(END)
    given_ns = row.whole(DURATION)
    if 0 in (start_ns, end_ns):
        row.source.note("a time of 0 stands for one that was not taken", row.line)
        return start_ns or None, given_ns
    if start_ns is None or end_ns is None:
        return start_ns, given_ns
    if end_ns < start_ns:
        row.source.note("ends before it begins; its duration is unknown", row.line)
        return start_ns, None
    if given_ns not in (None, end_ns - start_ns):
        row.source.note("its duration is not end less begin, which counts here", row.line)
    return start_ns, end_ns - start_ns


def transfer_of(row: ProfileRecord, direction: str | None) -> Transfer:
    """The copy of a row; `direction` holds the direction in the tool's words."""
    start_ns, duration_ns = times_of(row)
    return Transfer(
        direction=direction_of(direction),
        start_ns=start_ns,
        duration_ns=duration_ns,
        source=row.label(("Source_Agent_Id",)),
        destination=row.label(("Destination_Agent_Id",)),
    )


def direction_of(words: str | None) -> str | None:
    """`MEMORY_COPY_HOST_TO_DEVICE`, `CopyHostToDevice` or `Memcpy HtoD` as `host_to_device`."""
    match = _DIRECTION.search((words or "").replace(" ", "_"))
    if match is None:
        return None
    sides = [_SIDES.get(side.lower(), side.lower()) for side in match.groups() if side]
    return f"{sides[0]}_to_{sides[1]}"
