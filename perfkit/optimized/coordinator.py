"""The optimised coordinator: the cluster's own, with the optimised parts and performance figures.

Its codec, its policy and its limits are what makes it faster; the spec names them (specs.py). It
has no life cycle and no loop of its own.
"""

from __future__ import annotations

import time

import msgspec

from cluster.shells.coordinator import LOCAL_ONLY, ClusterCoordinator
from cluster.spec import ClusterSpec
from perfkit.optimized.specs import OPTIMIZED


class PerformanceStats(msgspec.Struct, frozen=True):
    """What a coordinator has done since it was made; rates are None before the first result.

    ``service_s_by_kind`` is the mean time of a task on a worker, which sizes the leases.
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
    """Serve workers and clients with the optimised parts: start, submit_task, get_result, stop.

    ``with OptimizedCoordinator() as coordinator`` serves in a thread of its own. Workers and
    clients connect to ``coordinator.endpoint`` with ``spec=OPTIMIZED``.
    """

    def __init__(
        self, spec: ClusterSpec = OPTIMIZED, bind: str = LOCAL_ONLY, *, insecure: bool = False
    ) -> None:
        super().__init__(spec, bind, insecure=insecure)
        self._made_at = time.monotonic()

    def get_performance_stats(self) -> PerformanceStats:
        """Figures since this coordinator was made, read while it works: they may be a message apart
        from each other.
        """
        counts, ledger, channel = self.scheduler.counters, self.scheduler.ledger, self._channel
        uptime_s, done = time.monotonic() - self._made_at, counts["done"]
        assigned = sum(worker.held for worker in list(self.scheduler.workers.values()))
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
