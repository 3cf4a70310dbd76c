"""A process's memory as the kernel accounts for it, once or at a set rate, from outside.

RSS counts a page once in every process that maps it, so the RSS of workers that share a model add
up to more than the machine has. USS (what would be free if the process ended) and PSS (shared pages
divided by who shares them) say more and need `/proc/<pid>/smaps_rollup`, which another user's
process does not show: they are None there. All are in bytes.

Reading needs no leave to trace: any process of the same user can be watched, without its notice.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psutil

from perfkit.evidence.tables import data_frame, html_table, mib_text
from perfkit.profile.findings import MemoryFinding

if TYPE_CHECKING:
    import pandas as pd

#: Reading RSS takes tens of microseconds: more often than this, the sampler is the load.
MIN_INTERVAL_S = 0.001
INTERVAL_S = 0.1
#: A quarter of an hour at the usual rate, in about a megabyte.
SAMPLES_LIMIT = 9_000
MEASURES = ("rss", "uss", "pss")


@dataclass(frozen=True, slots=True)
class MemorySample:
    """What a process holds at one moment; what the system does not tell is None."""

    rss_bytes: int
    uss_bytes: int | None = None
    pss_bytes: int | None = None


@dataclass(frozen=True)
class MemorySeries:
    """The memory of one process over time: sample `i` was taken `at_s[i]` after the watch began.

    `seen` is how many samples were taken. The newest are kept, `first` and `peak` (the highest of
    each measure by itself) are of all of them. `reason` says why there are no more, or none.
    """

    role: str
    interval_s: float
    at_s: tuple[float, ...] = ()
    samples: tuple[MemorySample, ...] = ()
    seen: int = 0
    first: MemorySample | None = None
    peak: MemorySample | None = None
    reason: str | None = None

    @property
    def last(self) -> MemorySample | None:
        """The newest sample."""
        return self.samples[-1] if self.samples else None

    @property
    def dropped(self) -> int:
        """How many samples had to make room for newer ones."""
        return self.seen - len(self.samples)

    def to_frame(self) -> pd.DataFrame:
        """A row for each sample kept: role, at_s, rss_bytes, uss_bytes, pss_bytes."""
        rows = [
            {"role": self.role, "at_s": at_s, **_by_measure(sample)}
            for at_s, sample in zip(self.at_s, self.samples, strict=True)
        ]
        return data_frame(rows, ["role", "at_s", *(f"{name}_bytes" for name in MEASURES)])

    def findings(self) -> tuple[MemoryFinding, ...]:
        """A row each for RSS, USS and PSS; none for what nobody could read."""
        first, last, peak = map(_by_measure, (self.first, self.last, self.peak))
        return tuple(
            MemoryFinding(
                "sampling",
                self.role,
                name.upper(),
                size_bytes=size_bytes,
                peak_bytes=peak[f"{name}_bytes"],
                growth_bytes=None if begun_bytes is None else size_bytes - begun_bytes,
                count=self.seen,
                counted="samples",
            )
            for name in MEASURES
            if (size_bytes := last[f"{name}_bytes"]) is not None
            for begun_bytes in (first[f"{name}_bytes"],)
        )

    def _repr_html_(self) -> str:
        rows = [
            (
                row.where,
                mib_text(row.size_bytes),
                mib_text(row.peak_bytes),
                mib_text(row.growth_bytes, sign="+"),
            )
            for row in self.findings()
        ]
        notes = [f"The oldest {self.dropped:,} samples are not kept."] if self.dropped else []
        title = f"Memory of {self.role}: {self.seen:,} samples, one every {self.interval_s:g} s"
        header = ("", "last", "highest", "growth")
        return html_table(title, header, rows, notes + ([self.reason] if self.reason else []))


class MemoryWatch:
    """A thread that samples a process until it is stopped or the process ends; `series` any time.

    Use it in a `with` block. A late sample is not made up for: the next comes an interval later.
    """

    def __init__(
        self, pid: int | None, role: str, interval_s: float, limit: int, shared: bool
    ) -> None:
        check_interval(interval_s)
        if limit < 1:
            raise ValueError(f"A watch keeps at least one sample, not {limit!r}.")
        self._role, self._interval_s = role, interval_s
        self._reason: str | None = None
        self._process = self._find(pid)
        self._read: Callable[[psutil.Process], MemorySample | None]
        self._read = _read_all if shared else _read_rss
        self._kept: deque[tuple[float, MemorySample]] = deque(maxlen=limit)
        self._seen = 0
        self._first: MemorySample | None = None
        self._peak: MemorySample | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._since_s = 0.0
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def start(self) -> MemoryWatch:
        """Take the first sample at once and go on in the background; returns this watch."""
        self._since_s = time.perf_counter()
        self._thread.start()
        return self

    def stop(self) -> MemorySeries:
        """Take a last sample and end; returns all that was seen."""
        self._stopped.set()
        self._thread.join()
        return self.series

    @property
    def series(self) -> MemorySeries:
        """What was seen so far."""
        with self._lock:
            return MemorySeries(
                self._role,
                self._interval_s,
                tuple(at_s for at_s, _ in self._kept),
                tuple(sample for _, sample in self._kept),
                self._seen,
                self._first,
                self._peak,
                self._reason,
            )

    def wait(self, timeout_s: float) -> None:
        """Let it sample for so long, or until the process has ended."""
        self._thread.join(timeout_s)

    def __enter__(self) -> MemoryWatch:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _find(self, pid: int | None) -> psutil.Process | None:
        check_pid(pid)
        try:
            return psutil.Process(pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            self._reason = f"{self._role}: there is no process {pid}"
            return None

    def _run(self) -> None:
        due_s = self._since_s
        while self._process is not None and self._look(self._process):
            if self._stopped.is_set():
                return
            due_s = max(due_s + self._interval_s, time.perf_counter())
            self._stopped.wait(due_s - time.perf_counter())

    def _look(self, process: psutil.Process) -> bool:
        """Take one sample; False when the process is gone, even if its number lives on."""
        sample = self._read(process) if process.is_running() else None
        at_s = time.perf_counter() - self._since_s
        with self._lock:
            if sample is None:
                self._reason = f"{self._role}: process {process.pid} ended after {at_s:.1f} s"
                return False
            self._kept.append((at_s, sample))
            self._seen += 1
            self._first = self._first or sample
            self._peak = sample if self._peak is None else _higher(self._peak, sample)
        return True


def watch_memory(
    pid: int | None = None,
    *,
    role: str | None = None,
    interval_s: float = INTERVAL_S,
    limit: int = SAMPLES_LIMIT,
    shared: bool = True,
) -> MemoryWatch:
    """Watch the memory of a process by its id, or of this one, during a `with` block.

    One sample every `interval_s` seconds; the newest `limit` are kept. With `shared=False` only RSS
    is read, which costs some ten microseconds; for USS and PSS the kernel walks through all pages
    of the process: a third of a millisecond for a small one, more for a large one. A process that
    is not there, or ends, is no error: the series says so in `reason`. Raises ValueError for what
    is no process id, an interval below a millisecond, and a limit below one.
    """
    name = role or ("this process" if pid in (None, os.getpid()) else f"process {pid}")
    return MemoryWatch(pid, name, interval_s, limit, shared)


def process_memory(pid: int | None = None) -> MemorySample | None:
    """The memory of a process by its id, or of this one; None when the process is gone.

    A zombie holds nothing any more and counts as gone. Raises ValueError for what is no process id.
    """
    check_pid(pid)
    try:
        return _read_all(psutil.Process(pid))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def check_pid(pid: int | None) -> None:
    """Raise ValueError for what is no process id; None stands for this process."""
    if pid is not None and (type(pid) is not int or pid < 0):
        raise ValueError(f"A process id is a whole number from 0 on, not {pid!r}.")


def check_interval(interval_s: float) -> None:
    """Raise ValueError for an interval at which reading would be the load."""
    if not interval_s >= MIN_INTERVAL_S:
        raise ValueError(f"interval_s must be at least {MIN_INTERVAL_S}, not {interval_s!r}.")


def _read_all(process: psutil.Process) -> MemorySample | None:
    try:
        try:
            memory: Any = process.memory_full_info()
        except psutil.AccessDenied:
            memory = process.memory_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    if not memory.rss:
        return None
    # A live process has pages of its own, so a 0 here means that the system does not say.
    return MemorySample(
        rss_bytes=memory.rss,
        uss_bytes=getattr(memory, "uss", None) or None,
        pss_bytes=getattr(memory, "pss", None) or None,
    )


def _read_rss(process: psutil.Process) -> MemorySample | None:
    try:
        return MemorySample(rss) if (rss := process.memory_info().rss) else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _by_measure(sample: MemorySample | None) -> dict[str, int | None]:
    return {f"{name}_bytes": getattr(sample, f"{name}_bytes", None) for name in MEASURES}


def _higher(one: MemorySample, other: MemorySample) -> MemorySample:
    """The higher of each measure."""
    uss = [size for size in (one.uss_bytes, other.uss_bytes) if size is not None]
    pss = [size for size in (one.pss_bytes, other.pss_bytes) if size is not None]
    return MemorySample(
        max(one.rss_bytes, other.rss_bytes), max(uss, default=None), max(pss, default=None)
    )
