"""The optimised coordinator, and the specs under study by name.

BASELINE uses the plain parts, OPTIMIZED those of this package. Each of ABLATIONS is the baseline
with one idea switched on, under the plan's own name for it; LADDER climbs from one to the other,
one idea a rung, so that a notebook can show which idea earned what. "Lock-free" is no entry: one
thread owns the scheduler, so there is nothing to lock or to do without locks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from cluster.coordinator import LOCAL_ONLY, ClusterCoordinator
from cluster.errors import ClusterError
from cluster.limits import Limits
from cluster.spec import BASELINE, ClusterSpec, SocketOptions

RUNS = {"burst": 2_048, "credit": 8_192, "limits": Limits(recall_after_s=0.001)}
PACKED = {"codec": "perfkit.codec:PackedCodec"}
INDEXED = {"policies": "perfkit.policy:POLICIES"}
SORTED = {"queue": "perfkit.queue:SortedQueue"}
UNCOPIED = {"sockets": SocketOptions(zero_copy_bytes=65_536)}
FEWER_ANSWERS = {"answer_after_s": 0.005}


def _with(base: ClusterSpec, name: str, *ideas: Mapping[str, Any]) -> ClusterSpec:
    changes = {knob: value for idea in ideas for knob, value in idea.items()}
    return msgspec.structs.replace(base, name=name, **changes)


OPTIMIZED = _with(BASELINE, "optimized", RUNS, PACKED, INDEXED, UNCOPIED, FEWER_ANSWERS)

#: by the plan's names for the ideas
ABLATIONS: Mapping[str, ClusterSpec] = {
    spec.name: spec
    for spec in (
        _with(BASELINE, "capability-cache", {"policies": "perfkit.policy:CACHED"}),
        _with(BASELINE, "load-scores", {"policies": "perfkit.policy:INDEXED"}),
        _with(BASELINE, "priority-queue", SORTED),
        _with(BASELINE, "batch-assignment", RUNS, {"policies": "perfkit.policy:SIZED"}),
        _with(BASELINE, "packed-codec", PACKED),
        _with(BASELINE, "zero-copy", UNCOPIED),
        _with(BASELINE, "pooling", {"codec": "perfkit.codec:PooledCodec"}),
        _with(BASELINE, "fewer-handshakes", FEWER_ANSWERS),
        _with(
            BASELINE,
            "socket-tuning",
            {"sockets": SocketOptions(high_water_mark=100_000, buffer_bytes=4 << 20)},
        ),
        _with(BASELINE, "pipelining", {"credit": 32}),
    )
}
#: from the baseline up, each with all that is below it
LADDER: tuple[ClusterSpec, ...] = (
    BASELINE,
    _with(BASELINE, "runs", RUNS, {"policies": "perfkit.policy:SIZED"}),
    _with(BASELINE, "runs+packed", RUNS, {"policies": "perfkit.policy:SIZED"}, PACKED),
    _with(BASELINE, "runs+packed+index", RUNS, PACKED, INDEXED),
    _with(BASELINE, "runs+packed+index+zero-copy", RUNS, PACKED, INDEXED, UNCOPIED),
    OPTIMIZED,
)
SPECS: Mapping[str, ClusterSpec] = {
    spec.name: spec for spec in (BASELINE, OPTIMIZED, *ABLATIONS.values(), *LADDER)
}


def spec_named(name: str) -> ClusterSpec:
    """The spec of that name; ClusterError lists what there is."""
    if name in SPECS:
        return SPECS[name]
    close = get_close_matches(name, SPECS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ClusterError(f"no spec {name!r}; there are {', '.join(SPECS)}{hint}")


class PerformanceStats(msgspec.Struct, frozen=True):
    """What a coordinator has done since it was made; rates are None before anything has happened.

    ``service_s_by_kind`` is what a task of a kind takes on a worker, as leases are sized by it.
    """

    uptime_s: float
    accepted_tasks: int
    done_tasks: int
    queued_tasks: int
    assigned_tasks: int
    tasks_per_s: float | None
    tasks_per_lease: float | None
    messages_per_task: float | None
    bytes_per_task: float | None
    recalls: int
    workers: int
    service_s_by_kind: dict[str, float]


class OptimizedCoordinator(ClusterCoordinator):
    """The cluster's coordinator with the optimised parts, and figures of how it does.

    Its life is that of ClusterCoordinator: ``start``, ``submit_task``, ``get_result``, ``stop``.
    """

    def __init__(
        self, spec: ClusterSpec = OPTIMIZED, bind: str = LOCAL_ONLY, *, insecure: bool = False
    ) -> None:
        super().__init__(spec, bind, insecure=insecure)
        self._made_at = time.monotonic()

    def get_performance_stats(self) -> PerformanceStats:
        """Figures since this coordinator was made. They are read while it works, so they may be a
        message apart from each other.
        """
        counts, ledger, channel = self.scheduler.counters, self.scheduler.ledger, self._channel
        uptime_s, done = time.monotonic() - self._made_at, counts["done"]
        assigned = sum(worker.held for worker in [*self.scheduler.workers.values()])
        sizer = getattr(self.scheduler.policy, "sizer", None)
        messages = channel.messages_in + channel.messages_out
        return PerformanceStats(
            uptime_s=uptime_s,
            accepted_tasks=counts["accepted"],
            done_tasks=done,
            queued_tasks=ledger.open_tasks - assigned,
            assigned_tasks=assigned,
            tasks_per_s=done / uptime_s if done else None,
            tasks_per_lease=done / ledger.leases_granted if done else None,
            messages_per_task=messages / done if done else None,
            bytes_per_task=(channel.bytes_in + channel.bytes_out) / done if done else None,
            recalls=counts["recalls"],
            workers=len(self.scheduler.workers),
            service_s_by_kind={} if sizer is None else dict(sizer.service_s),
        )
