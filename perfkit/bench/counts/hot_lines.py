"""The coordinator's core and a spec's codec line by line, while real messages pass through them.

A line trace runs in the process it looks at, so the cluster is the one in lockstep: whole turns of
the real coordinator, without sockets. Every result is checked before a line counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from cluster.core.scheduler import Scheduler
from cluster.spec import ClusterSpec, load_codec
from perfkit.bench.counts.lockstep import Load, Lockstep, SteppedCoordinator
from perfkit.bench.workloads.load import echo_work
from perfkit.profile.line_times import LineTimes, line_times

#: A codec's work is in its methods or in functions beside it.
CODEC_FUNCTIONS = ("encode", "events", "actions", "_pack", "_unpack", "_is_inline")


def hot_lines(spec: ClusterSpec, *, tasks: int = 4_000, seed: int = 0) -> LineTimes:
    """The functions of the spec's core and codec that every task passes through, line by line.

    The codec's lines are those of both sides of each hop, after a warm-up round. Raises WrongResult
    for a wrong result.
    """
    work = echo_work(tasks, seed)
    load = Load(tasks=tasks, run_tasks=tasks, runs_in_flight=tasks)
    lockstep = Lockstep(spec, SteppedCoordinator(spec))
    lockstep.drive(work, load)
    return line_times(hot_functions(spec), lambda: lockstep.drive(work, load), spec.name, tasks)


def hot_functions(spec: ClusterSpec) -> list[Callable[..., Any]]:
    """The core's functions that every lease passes through, and the codec's."""
    codec = type(load_codec(spec))
    beside = vars(sys.modules[codec.__module__])
    found = [getattr(codec, name, beside.get(name)) for name in CODEC_FUNCTIONS]
    core: list[Callable[..., Any]] = [Scheduler.handle, Scheduler._assign, Scheduler._finished]
    return [*core, *(function for function in found if function is not None)]
