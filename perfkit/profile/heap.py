"""Which calls allocated, by way of memray: how often, how much, and who held it at the peak.

memray sees every call of the allocator, C libraries included, with the stack of Python above it. It
works on this process, or on a living one by its id: then a debugger has to get into it, which needs
the kernel's leave (ptrace) and gdb or lldb (from Python 3.14 on `sys.remote_exec`, which needs
neither). The flame graph is a page of several megabytes that opens offline: it is written to a file
of its own, to be linked.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from perfkit.evidence.tables import html_table, mib_text
from perfkit.profile import short_path
from perfkit.profile.attach import STOP_TIMEOUT_S, reason_of
from perfkit.profile.findings import MemoryFinding
from perfkit.profile.watch import check_pid

#: How many lines of code a measurement keeps.
SITES_LIMIT = 10
#: How long a process may take until it runs some Python again; only then a debugger gets in.
ATTACH_TIMEOUT_S = 20.0
RENDER_TIMEOUT_S = 300.0
NATIVE = "outside of Python"


@dataclass(frozen=True, slots=True)
class AllocationSite:
    """A line that held memory at the high-water mark: how much, and by how many allocations."""

    where: str
    peak_bytes: int
    allocations: int


@dataclass(frozen=True)
class HeapProfile:
    """What was allocated during the work; `reason` says why nobody could see it, or not draw it.

    `allocations` and `allocated_bytes` are of the whole work, freed or not; None when the capture
    was aggregated. `peak_bytes` is the most that was held at once of what the work allocated, and
    `sites` are the lines that did, largest first. `flame_graph` is the file of the picture.
    """

    role: str
    allocations: int | None = None
    allocated_bytes: int | None = None
    peak_bytes: int | None = None
    sites: tuple[AllocationSite, ...] = field(default=(), repr=False)
    flame_graph: Path | None = None
    reason: str | None = None

    def findings(self) -> tuple[MemoryFinding, ...]:
        """A row for all of the heap, and one for each site."""
        if self.peak_bytes is None:
            return ()
        whole = MemoryFinding(
            "memray",
            self.role,
            "all",
            peak_bytes=self.peak_bytes,
            count=self.allocations,
            counted="allocations",
        )
        return (
            whole,
            *(
                MemoryFinding(
                    "memray",
                    self.role,
                    site.where,
                    peak_bytes=site.peak_bytes,
                    count=site.allocations,
                    counted="allocations held",
                )
                for site in self.sites
            ),
        )

    def _repr_html_(self) -> str:
        count = "" if self.allocations is None else f"{self.allocations:,} allocations, "
        rows = [(s.where, mib_text(s.peak_bytes), f"{s.allocations:,}") for s in self.sites]
        table = html_table(
            f"Heap of {self.role}: {count}at most {mib_text(self.peak_bytes)} held",
            ("line", "held at the peak", "allocations"),
            rows,
            [self.reason] if self.reason else [],
        )
        if self.flame_graph is None:
            return table
        return (
            f'{table}<p><a href="{escape(quote(self.flame_graph.as_posix()))}">Flame graph</a></p>'
        )


def profile_heap(
    work: Callable[[], object],
    name: str = "this process",
    flame_graph: Path | None = None,
    *,
    python_allocators: bool = False,
    aggregated: bool = False,
) -> HeapProfile:
    """Record every allocation of this process, in all threads, while `work()` runs.

    With `python_allocators` each object that Python's own allocator hands out counts too, which is
    what "allocations per task" means; else only what reaches the system's. The capture is a file in
    the temporary folder that takes about 9 bytes an allocation until it has been read; `aggregated`
    bounds it by the number of distinct stacks, at the price of `allocations` and `allocated_bytes`.
    The flame graph is written to the file of that name, which may exist.

    Without memray, or while another recording runs in this process, the work is not done and
    `reason` says why. What the work raises passes.
    """
    memray, reason = _memray()
    if memray is None:
        return HeapProfile(name, reason=reason)
    with tempfile.TemporaryDirectory(prefix="perfkit-heap-") as folder:
        capture = Path(folder) / "capture.bin"
        kind = memray.FileFormat
        recording = memray.Tracker(
            capture,
            trace_python_allocators=python_allocators,
            file_format=kind.AGGREGATED_ALLOCATIONS if aggregated else kind.ALL_ALLOCATIONS,
        )
        try:
            recording.__enter__()
        except RuntimeError as error:
            return HeapProfile(name, reason=f"memray cannot record: {error}")
        try:
            work()
        finally:
            recording.__exit__(None, None, None)
        return _read(memray, capture, name, flame_graph, aggregated)


def attach_heap(
    pid: int,
    name: str,
    work: Callable[[], object],
    flame_graph: Path | None = None,
    *,
    python_allocators: bool = False,
    aggregated: bool = False,
) -> HeapProfile:
    """Record every allocation of a living Python process while `work()` gives it something to do.

    The process needs memray too, which stays loaded there (15 MB of RSS and more). It stands still
    while the debugger gets in and again while it gets out, about 0.2 s each, and allocations take
    longer in between. A debugger gets in when the process runs some Python, so one that only waits
    is given up on after ATTACH_TIMEOUT_S, unharmed. As in `profile_heap` otherwise.

    Where it is not possible the work is not done and `reason` says why; when the process can't be
    left again or ends during the work, it was done, and `reason` says how to end the recording.
    Raises ValueError for what is no process id, and for this process.
    """
    check_pid(pid)
    if pid == os.getpid():
        raise ValueError("A process can't attach to itself; use profile_heap.")
    memray, reason = _memray()
    if memray is None:
        return HeapProfile(name, reason=reason)
    with tempfile.TemporaryDirectory(prefix="perfkit-heap-") as folder:
        capture = Path(folder) / "capture.bin"
        options = ["--aggregate"] if aggregated else []
        options += ["--trace-python-allocators"] if python_allocators else []
        options += ["--output", str(capture), "--no-compress", str(pid)]
        reason = _command("attach", options, ATTACH_TIMEOUT_S)
        if reason is not None:
            return HeapProfile(name, reason=reason)
        try:
            work()
        finally:
            reason = _command("detach", [str(pid)], ATTACH_TIMEOUT_S)
        if reason is not None:
            going_on = f"unless it has ended, process {pid} still records: memray detach {pid}"
            return HeapProfile(name, reason=f"{reason}; {going_on}")
        return _read(memray, capture, name, flame_graph, aggregated)


def _read(
    memray: Any, capture: Path, name: str, flame_graph: Path | None, aggregated: bool
) -> HeapProfile:
    """What is in a capture; the flame graph is written on the way."""
    sizes: Counter[str] = Counter()
    allocations: Counter[str] = Counter()
    total: tuple[int | None, int | None] = (None, None)
    try:
        with memray.FileReader(capture) as reader:
            peak_bytes = reader.metadata.peak_memory
            for record in reader.get_high_watermark_allocation_records(merge_threads=True):
                where = _where(record.stack_trace(max_stacks=1))
                sizes[where] += record.size
                allocations[where] += record.n_allocations
            if not aggregated:
                total = _totals(memray, reader)
    except OSError as error:
        return HeapProfile(name, reason=f"memray's capture cannot be read: {error}")
    reason = None if flame_graph is None else _draw(capture, flame_graph)
    sites = (AllocationSite(w, size, allocations[w]) for w, size in sizes.most_common(SITES_LIMIT))
    drawn = None if reason else flame_graph
    return HeapProfile(name, *total, peak_bytes, tuple(sites), drawn, reason)


def _where(stack: list[tuple[str, str, int]]) -> str:
    """The innermost line of a stack."""
    if not stack:
        return NATIVE
    function, file, line = stack[0]
    return f"{short_path(file)}:{line} {function}"


def _totals(memray: Any, reader: Any) -> tuple[int, int]:
    """How many allocations a capture has, freed or not, and their bytes."""
    kind = memray.AllocatorType
    freed = {kind.FREE, kind.MUNMAP, kind.PYMALLOC_FREE}
    count, size_bytes = 0, 0
    for record in reader.get_allocation_records():
        if record.allocator not in freed:
            count += record.n_allocations
            size_bytes += record.size
    return count, size_bytes


def _draw(capture: Path, flame_graph: Path) -> str | None:
    """Write the flame graph of a capture; None when it is there, else why not."""
    try:
        flame_graph.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"the flame graph cannot be written: {error}"
    options = ["--no-web", "--force", "--output", str(flame_graph), str(capture)]
    return _command("flamegraph", options, RENDER_TIMEOUT_S)


def _command(name: str, arguments: Sequence[str], timeout_s: float) -> str | None:
    """Run a command of memray to its end; None when it did its work, else why not."""
    tool = subprocess.Popen(
        [sys.executable, "-m", "memray", name, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C is for us alone: it must not end the debugger before it has let go.
        start_new_session=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    try:
        said, _ = tool.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return (
            f"memray {name} did not end within {timeout_s:g} s"
            "; a debugger gets into a process only when it runs some Python: give it work"
            * (name in {"attach", "detach"})
        )
    finally:
        _let_go(tool)
    return f"memray {name}: {reason_of(said.splitlines())}" if tool.returncode else None


def _let_go(tool: subprocess.Popen[str]) -> None:
    """End a command that still runs, its debugger first and by its leave.

    A debugger that is told to end at once leaves its breakpoints behind, and the process dies of
    the next one; interrupted, it takes them along.
    """
    if tool.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            for debugger in psutil.Process(tool.pid).children():
                debugger.send_signal(signal.SIGINT)
                debugger.wait(STOP_TIMEOUT_S)
        tool.kill()
    tool.communicate()


def _memray() -> tuple[Any, str | None]:
    """The package, or why there is none."""
    try:
        return importlib.import_module("memray"), None
    except ImportError as error:
        return None, (
            f"the heap needs memray, which cannot be imported ({error}): "
            'pip install "perfkit[profile]"; there is none for Windows'
        )
