"""Processor time of a process, its main thread apart: one thread can't use more than a core."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import psutil


class ThreadTimes(NamedTuple):
    """Seconds of processor time of the main thread and of all others; `waits` is how often the
    main thread went to sleep.
    """

    main_s: float
    others_s: float
    waits: int

    @property
    def all_s(self) -> float:
        """The time of all threads."""
        return self.main_s + self.others_s

    def since(self, before: ThreadTimes) -> ThreadTimes:
        """What has been used since an earlier reading."""
        return ThreadTimes(
            self.main_s - before.main_s, self.others_s - before.others_s, self.waits - before.waits
        )


def thread_times(pid: int) -> ThreadTimes:
    """The times so far, to the nanosecond where Linux counts them so (proc(5), schedstat)."""
    main_s = others_s = 0.0
    process = psutil.Process(pid)
    for thread in process.threads():
        try:
            stat = Path(f"/proc/{pid}/task/{thread.id}/schedstat").read_text()
            used_s = int(stat.split()[0]) / 1e9
        except (OSError, IndexError):
            used_s = thread.user_time + thread.system_time
        if thread.id == pid:
            main_s = used_s
        else:
            others_s += used_s
    return ThreadTimes(main_s, others_s, process.num_ctx_switches().voluntary)
