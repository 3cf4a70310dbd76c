"""A process's memory as the kernel accounts for it, once or at a set rate, from outside.

RSS counts a page once in every process that maps it, so the RSS of workers that share a model add
up to more than the machine has. USS is the memory that ends with the process; PSS divides shared
pages by the processes that share them. Both come from `/proc/<pid>/smaps_rollup`, which another
user's process does not show: they are None there. All are in bytes.

Reading needs no permission to trace, and a watched process does not notice.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psutil

from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import size

if TYPE_CHECKING:
    import pandas as pd

#: Reading RSS takes tens of microseconds: more often than this, the sampler is the load.
MIN_INTERVAL_S = 0.001
INTERVAL_S = 0.1
#: A quarter of an hour at the usual rate, in about a megabyte.
SAMPLES_LIMIT = 9_000
MEASURES = ("rss", "uss", "pss")


class MemorySample(NamedTuple):
    """What a process holds at one moment, in the order of MEASURES; unknown measures are None."""

    rss_bytes: int
    uss_bytes: int | None = None
    pss_bytes: int | None = None


#: A sample's place where none was taken.
UNKNOWN = (None, None, None)


@dataclass(frozen=True, slots=True)
class MemoryFinding:
    """One figure of a process's memory; what the instrument does not tell is None.

    `source` is the instrument, `role` the process's role in the cluster, `where` a line of code
    (`file:line`) or the measure itself (`RSS`, `USS`, `PSS`). `size_bytes` is held at the end,
    `peak_bytes` at the highest point, `growth_bytes` is end minus beginning. `count` is of what
    `counted` names: samples or allocations.
    """

    source: str
    role: str
    where: str
    size_bytes: int | None = None
    peak_bytes: int | None = None
    growth_bytes: int | None = None
    count: int | None = None
    counted: str = ""


@dataclass(frozen=True)
class MemorySeries(Showable):
    """The memory of one process over time: sample `i` was taken `at_s[i]` after the watch began.

    `seen` counts all samples taken, and `first` and `peak` (the highest of each measure by itself)
    are of all of them; `samples` are the newest. `reason` says why they ended, or why there are
    none.
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

    def to_frame(self) -> pd.DataFrame:
        """A row for each sample kept: role, at_s, rss_bytes, uss_bytes, pss_bytes."""
        rows = [
            {"role": self.role, "at_s": at_s, **sample._asdict()}
            for at_s, sample in zip(self.at_s, self.samples, strict=True)
        ]
        return data_frame(rows, ["role", "at_s", *MemorySample._fields])

    @property
    def findings(self) -> tuple[MemoryFinding, ...]:
        """A row each for RSS, USS and PSS, as far as they could be read."""
        ends = (self.first or UNKNOWN, self.last or UNKNOWN, self.peak or UNKNOWN)
        return tuple(
            MemoryFinding(
                "sampling",
                self.role,
                name.upper(),
                size_bytes=last,
                peak_bytes=peak,
                growth_bytes=None if first is None else last - first,
                count=self.seen,
                counted="samples",
            )
            for name, first, last, peak in zip(MEASURES, *ends, strict=True)
            if last is not None
        )

    def _sheets(self) -> Iterator[Sheet]:
        rows = [
            (row.where, size(row.size_bytes), size(row.peak_bytes), size(row.growth_bytes, "+"))
            for row in self.findings
        ]
        dropped = self.seen - len(self.samples)
        notes = [f"The oldest {dropped:,} samples are not kept."] if dropped else []
        title = f"Memory of {self.role}: {self.seen:,} samples, one every {self.interval_s:g} s"
        header = ("", "last", "highest", "growth")
        yield Sheet(title, header, rows, notes + ([self.reason] if self.reason else []))


class watch_memory:  # noqa: N801 -- a context manager, named as those are
    """Watch the memory of a process by its id, or of this one, during a `with` block.

    A thread takes one sample every `interval_s` seconds, until the block or the process ends, and
    keeps the newest `limit`; `series` may be read at any time. A late sample is not made up for:
    the next comes an interval later.

    For USS and PSS the kernel walks through all pages of the process: a third of a millisecond for
    a small one, more for a large one. If there is no such process, or it ends, `reason` of the
    series says so. Raises ValueError for an impossible process id, an interval below a millisecond,
    and a limit below one.
    """

    def __init__(
        self,
        pid: int | None = None,
        *,
        role: str | None = None,
        interval_s: float = INTERVAL_S,
        limit: int = SAMPLES_LIMIT,
    ) -> None:
        check_pid(pid)
        check_interval(interval_s)
        if limit < 1:
            raise ValueError(f"A watch keeps at least one sample, not {limit!r}.")
        here = pid in (None, os.getpid())
        self._role = role or ("this process" if here else f"process {pid}")
        self._interval_s = interval_s
        self._reason: str | None = None
        self._process: psutil.Process | None = None
        try:
            self._process = psutil.Process(pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            self._reason = f"{self._role}: there is no process {pid}"
        self._kept: deque[tuple[float, MemorySample]] = deque(maxlen=limit)
        self._seen = 0
        self._first: MemorySample | None = None
        self._peak: MemorySample | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._since_s = 0.0
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    @property
    def series(self) -> MemorySeries:
        """The samples so far."""
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
        """Wait until the process has ended, at most `timeout_s` seconds."""
        self._thread.join(timeout_s)

    def __enter__(self) -> Self:
        self._since_s = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        due_s = self._since_s
        while self._process is not None and self._look(self._process):
            if self._stopped.is_set():
                return
            due_s = max(due_s + self._interval_s, time.perf_counter())
            self._stopped.wait(due_s - time.perf_counter())

    def _look(self, process: psutil.Process) -> bool:
        """Take one sample; False when the process is gone, even if its id was given out again."""
        sample = _read_all(process) if process.is_running() else None
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


def process_memory(pid: int | None = None) -> MemorySample | None:
    """The memory of a process by its id, or of this one; None when the process is gone.

    A zombie holds no memory and counts as gone. Raises ValueError for an impossible process id.
    """
    check_pid(pid)
    try:
        return _read_all(psutil.Process(pid))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def status_bytes(pid: int | str, field: str) -> int | None:
    """A size in `/proc/<pid>/status`, such as VmHWM, the highest RSS; None if it is unknown."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            return next(int(s.split()[1]) * 1024 for s in status if s.startswith(f"{field}:"))
    except (OSError, StopIteration):
        return None


def check_pid(pid: int | None) -> None:
    """Raise ValueError for an impossible process id; None stands for this process."""
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
    # A live process has pages of its own, so 0 here means unknown.
    return MemorySample(
        rss_bytes=memory.rss,
        uss_bytes=getattr(memory, "uss", None) or None,
        pss_bytes=getattr(memory, "pss", None) or None,
    )


def _higher(one: MemorySample, other: MemorySample) -> MemorySample:
    """The higher of each measure."""
    rss_bytes = max(one.rss_bytes, other.rss_bytes)
    rest = (max(filter(None, pair), default=None) for pair in zip(one[1:], other[1:], strict=True))
    return MemorySample(rss_bytes, *rest)
