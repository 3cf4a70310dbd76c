"""Which calls in a living process allocated, and which held memory at the peak, by memray.

memray sees every call of the allocator, C libraries included, with the stack of Python above it.
To get into a process by its id it needs the kernel's permission (ptrace) and gdb or lldb; from
Python 3.14 on it uses `sys.remote_exec`, which needs neither. The flame graph is a page of several
megabytes that opens offline, so it is written to a file of its own, to be linked.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cluster.scratch import ScratchFolder
from perfkit.evidence.samples import counted
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import size
from perfkit.profile import debugger
from perfkit.profile.paths import short_path
from perfkit.profile.watch import MemoryFinding, check_pid

if TYPE_CHECKING:
    import pandas as pd

#: How many lines of code a measurement keeps.
SITES_LIMIT = 10
RENDER_TIMEOUT_S = 300.0
RISK = (
    "Attaching stops the process for a moment, slows it down and adds to its memory; on some "
    "kernels it kills the process, so it is rehearsed first."
)


@dataclass(frozen=True)
class HeapProfile(Showable):
    """What was allocated during the work; `reason` says why it, or its picture, is missing.

    The first of `findings` is of the whole work: the most that was held at once, and how many
    allocations there were, freed or not. The others are the lines that held the peak, largest
    first. `flame_graph` is the file of the picture.
    """

    role: str
    findings: tuple[MemoryFinding, ...] = field(default=(), repr=False)
    flame_graph: Path | None = None
    reason: str | None = None

    def to_frame(self) -> pd.DataFrame:
        """A row for each finding; the columns are those of MemoryFinding."""
        return data_frame(self.findings, MemoryFinding.__slots__)

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet(
            f"Heap of {self.role}",
            ("line", "held at the peak", "allocations"),
            [
                (found.where, size(found.peak_bytes), f"{found.count:,} {found.counted}")
                for found in self.findings
            ],
            [self.reason] if self.reason else [],
        )

    def _repr_html_(self) -> str:
        table = super()._repr_html_()
        if self.flame_graph is None:
            return table
        link = escape(quote(self.flame_graph.as_posix()))
        return f'{table}<p><a href="{link}">Flame graph</a></p>'

    def _figures(self) -> Figures:
        return "MiB", [(it.where, counted(it.peak_bytes, 2**-20)) for it in self.findings]


def attach_heap(
    pid: int, name: str, work: Callable[[], object], flame_graph: Path | None = None
) -> HeapProfile:
    """Record every allocation of a living Python process while `work()` gives it something to do.

    On some kernels a process dies when it is attached to. So the same is first tried on a process
    of our own that waits in the same system call; if that one does not live on, the process is
    left alone and `reason` says why.

    The process needs memray too, which stays loaded there (15 MB of RSS and more). It stands still
    while the debugger gets in and again while it gets out, about 0.2 s each, and allocations take
    longer in between. A debugger gets in when the process runs some Python, so one that only waits
    is given up on after 20 s. The capture takes about 9 bytes an allocation in the temporary
    folder. The flame graph is written to the file of that name, which may exist.

    Where attaching is not possible the work is not done and `reason` says why. If the process ends
    during the work or can't be left again, the work was done and `reason` says how to end the
    recording. What the work raises passes. Raises ValueError for an impossible process id and for
    this process.
    """
    check_pid(pid)
    if pid == os.getpid():
        raise ValueError("A process can't attach to itself.")
    try:
        memray = importlib.import_module("memray")
    except ImportError as error:
        reason = (
            f"the heap needs memray, which cannot be imported ({error}): "
            'pip install "perfkit[profile]"; there is none for Windows'
        )
        return HeapProfile(name, reason=reason)
    if refusal := debugger.refusal(pid):
        return HeapProfile(name, reason=refusal)
    with ScratchFolder("perfkit-heap-") as folder:
        capture = Path(folder) / "capture.bin"
        if failure := debugger.memray("attach", debugger.attach_options(capture, pid)):
            return HeapProfile(name, reason=failure)
        try:
            work()
        finally:
            failure = debugger.memray("detach", [str(pid)])
        if failure:
            going_on = f"unless it has ended, process {pid} still records: memray detach {pid}"
            return HeapProfile(name, reason=f"{failure}; {going_on}")
        return read_capture(memray, capture, name, flame_graph)


def read_capture(memray: Any, capture: Path, name: str, flame_graph: Path | None) -> HeapProfile:
    """The figures in a capture, and the flame graph drawn from it."""
    sizes, held = Counter[str](), Counter[str]()
    kind = memray.AllocatorType
    freed = {kind.FREE, kind.MUNMAP, kind.PYMALLOC_FREE}
    try:
        with memray.FileReader(capture) as reader:
            peak_bytes = reader.metadata.peak_memory
            for record in reader.get_high_watermark_allocation_records(merge_threads=True):
                where = _where(record.stack_trace(max_stacks=1))
                sizes[where] += record.size
                held[where] += record.n_allocations
            allocations = sum(
                record.n_allocations
                for record in reader.get_allocation_records()
                if record.allocator not in freed
            )
    except OSError as error:
        return HeapProfile(name, reason=f"memray's capture cannot be read: {error}")

    def finding(where: str, size_bytes: int, count: int, counted: str) -> MemoryFinding:
        return MemoryFinding(
            "memray", name, where, peak_bytes=size_bytes, count=count, counted=counted
        )

    sites = sizes.most_common(SITES_LIMIT)
    findings = (
        finding("all", peak_bytes, allocations, "allocations"),
        *(finding(where, most, held[where], "allocations held") for where, most in sites),
    )
    reason = None if flame_graph is None else _draw(capture, flame_graph)
    return HeapProfile(name, findings, None if reason else flame_graph, reason)


def _where(stack: list[tuple[str, str, int]]) -> str:
    """The innermost line of a stack."""
    if not stack:
        return "outside of Python"
    function, file, line = stack[0]
    return f"{short_path(file)}:{line} {function}"


def _draw(capture: Path, flame_graph: Path) -> str | None:
    """Write the flame graph of a capture; None when it is there, else why not."""
    try:
        flame_graph.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"the flame graph cannot be written: {error}"
    options = ["--no-web", "--force", "--output", str(flame_graph), str(capture)]
    return debugger.memray("flamegraph", options, RENDER_TIMEOUT_S)
