"""How often a living process asks the kernel for something, counted from outside with strace.

A system call is what a message costs that no profile of Python shows. Which of them are made, and
how many for a task, depends little on how fast the machine is; tracing slows each of them down, so
the times that strace tells are left alone.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perfkit.profile.attach import program, watch

#: A row of `strace -c`: share, seconds, µs per call, calls, perhaps errors, name.
_ROW = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)\s*$")


@dataclass(frozen=True)
class SystemCalls:
    """Calls by name; empty where nobody could count, and `reason` says why."""

    calls: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None

    @property
    def total(self) -> int | None:
        """All calls; None where nobody could count."""
        return None if self.reason else sum(self.calls.values())


def count_system_calls(pid: int, work: Callable[[], object]) -> SystemCalls:
    """Count the system calls of every thread of a process while `work()` runs.

    Without strace, or where the kernel refuses it, the counts are empty and `reason` says why.
    """
    tracer = program("strace")
    if tracer is None:
        return SystemCalls(reason="strace is not installed: the system's packages have it")
    with tempfile.TemporaryDirectory(prefix="perfkit-strace-") as folder:
        summary = Path(folder) / "summary.txt"
        argv = [tracer, "-c", "-f", "-p", str(pid), "-o", str(summary)]
        reason = watch(argv, " attached", work)
        if reason is None and not summary.is_file():
            reason = "strace wrote no summary"
        return SystemCalls(reason=reason) if reason else read_summary(summary.read_text())


def read_summary(text: str) -> SystemCalls:
    """The calls in what `strace -c` writes."""
    rows = (_ROW.match(line) for line in text.splitlines())
    return SystemCalls({row[2]: int(row[1]) for row in rows if row and row[2] != "total"})
