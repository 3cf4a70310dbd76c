"""Processor time of a process, its main thread apart: one thread can't use more than a core."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import psutil


class Used(NamedTuple):
    """Seconds of processor time, and how often a thread went to sleep."""

    busy_s: float
    waits: int

    def __sub__(self, before: Used) -> Used:
        return Used(self.busy_s - before.busy_s, self.waits - before.waits)

    def plus(self, other: Used) -> Used:
        """Both together."""
        return Used(self.busy_s + other.busy_s, self.waits + other.waits)


class ThreadTimes(NamedTuple):
    """What the main thread of a process has used, and all its others together."""

    main: Used
    others: Used

    @property
    def busy_s(self) -> float:
        """The time of all threads."""
        return self.main.busy_s + self.others.busy_s

    def since(self, before: ThreadTimes) -> ThreadTimes:
        """What has been used since an earlier reading."""
        return ThreadTimes(self.main - before.main, self.others - before.others)


def thread_times(pid: int) -> ThreadTimes:
    """The times so far, to the nanosecond where Linux counts them so (proc(5), schedstat)."""
    main = others = Used(0.0, 0)
    for thread in psutil.Process(pid).threads():
        used = _used(Path(f"/proc/{pid}/task/{thread.id}"), thread.user_time + thread.system_time)
        if thread.id == pid:
            main = used
        else:
            others = others.plus(used)
    return ThreadTimes(main, others)


def _used(folder: Path, roughly_s: float) -> Used:
    """What the files of a thread say; a time to the hundredth where they are missing."""
    try:
        busy_s = int((folder / "schedstat").read_text().split()[0]) / 1e9
        _, _, rest = (folder / "status").read_text().partition("\nvoluntary_ctxt_switches:")
        return Used(busy_s, int(rest.split()[0]))
    except (OSError, IndexError, ValueError):
        return Used(roughly_s, 0)
