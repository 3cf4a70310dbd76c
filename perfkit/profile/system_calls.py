"""The system calls of a living process, counted from outside with strace.

No profile of Python shows what a message costs in the kernel. How many system calls a task takes
depends little on how fast the machine is. Tracing slows each of them down, so strace's times are
left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from perfkit.profile.tracer import program, trace_to_file

#: A line of `strace -c`: share, seconds, µs per call, calls, perhaps errors, name.
_LINE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)\s*$")


@dataclass(frozen=True)
class SystemCalls:
    """Calls by name; where they could not be counted, none and the `reason`."""

    calls: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None

    @property
    def total(self) -> int | None:
        """The number of calls; None where they could not be counted."""
        return None if self.reason else sum(self.calls.values())


def count_system_calls(pid: int, work: Callable[[], object]) -> SystemCalls:
    """Count the system calls of every thread of a process while `work()` runs.

    Without strace, or where the kernel refuses it, the work is not done and `reason` says why.
    """
    tracer = program("strace")
    if tracer is None:
        return SystemCalls(reason="strace is not installed: the system's packages have it")
    argv = [tracer, "-c", "-f", "-p", str(pid)]
    summary, reason = trace_to_file(argv, "-o", " attached", work)
    return SystemCalls(reason=reason) if reason else read_summary(summary)


def read_summary(text: str) -> SystemCalls:
    """The calls in what `strace -c` writes."""
    found = (_LINE.match(line) for line in text.splitlines())
    return SystemCalls({line[2]: int(line[1]) for line in found if line and line[2] != "total"})
