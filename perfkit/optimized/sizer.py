"""How large a lease is, and how much a worker is given ahead of what it can run at once.

A large lease costs little per task, a small one traps little behind a slow task and loses little
with a lost worker. Both are had by measuring: a lease holds about two milliseconds of work, by the
service time of its kind, and more is handed to a busy worker only while what it has will not last
that long (adaptive credit). Leases start small and grow while it pays.
"""

from __future__ import annotations

import math

from cluster.core.policy import SMOOTHING
from cluster.core.run import Needs
from cluster.core.worker import WorkerState

#: how much work a lease should hold, and how much a worker may have in hand beyond what it can run
#: at once: enough to hide the round trip (a tenth of it), so little that a slow task traps little
LEASE_S = 0.002
MAX_LEASE = 1_024
#: a kind that nobody has measured is leased by so many, since a lease is one slot's work and the
#: other slots would have none; then a lease may grow so fast
FIRST_LEASE, GROWTH = 1, 4
#: a shorter or longer service time changes no decision, so it is not believed either: one wrong
#: report of years is outweighed by some dozens of right ones
MIN_SERVICE_S, MAX_SERVICE_S = 1e-9, 1.0
#: kinds remembered; past that the oldest is unmeasured again
MAX_KINDS = 4_096


class Sizer:
    """How many tasks make a lease, and whether a worker has enough in hand.

    The service time of a kind is an exponentially weighted mean over reports. An unmeasured kind is
    taken to be slow, so that nothing waits behind its first tasks.
    """

    def __init__(self) -> None:
        self.service_s: dict[str, float] = {}
        self._grown: dict[str, int] = {}
        #: tasks in a worker's hands by kind
        self._held: dict[str, dict[str, int]] = {}

    def join(self, worker: WorkerState) -> None:
        """Count what it holds already: a policy may be switched on while work is under way."""
        held = self._held[worker.id] = {}
        for lease in worker.leases.values():
            kind = lease.run.needs[0]
            held[kind] = held.get(kind, 0) + lease.stop - lease.next

    def leave(self, worker: WorkerState) -> None:
        """Forget it."""
        self._held.pop(worker.id, None)

    def hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
        """It holds so many more tasks of a kind, or fewer."""
        held = self._held.get(worker.id)
        if held is not None:
            count = held.get(needs[0], 0) + change
            if count:
                held[needs[0]] = count
            else:
                held.pop(needs[0], None)

    def ahead_s(self, worker: WorkerState) -> float:
        """Seconds until a slot of it will have worked through what is in its hands."""
        held, service_s = self._held.get(worker.id), self.service_s
        if not held:
            return 0.0
        ahead = 0.0
        for kind in held:
            ahead += held[kind] * service_s.get(kind, LEASE_S)
        return ahead / worker.capacity

    def has_room(self, worker: WorkerState) -> bool:
        """Whether it would soon be idle without more; never beyond its credit."""
        if worker.slots_taken < worker.capacity:
            return worker.free > 0
        return worker.free > 0 and self.ahead_s(worker) < LEASE_S

    def lease_tasks(self, worker: WorkerState, needs: Needs, queued: int) -> int:
        """So many as make LEASE_S of work, at most what a lease of the kind has grown to, and a
        slot's share of what waits.
        """
        kind = needs[0]
        service_s = self.service_s.get(kind)
        if service_s is None:
            return min(queued, FIRST_LEASE)
        share = -(-queued // worker.capacity)
        most = min(share, MAX_LEASE, self._grown.get(kind, FIRST_LEASE))
        return max(1, min(most, int(LEASE_S / service_s)))

    def observe(self, needs: Needs, tasks: int, busy_s: float) -> None:
        """Move the mean towards what was measured.

        No time at all, or one that is no number, is what a worker without a clock reports, or one
        that lies: it teaches nothing.
        """
        if tasks < 1 or not 0.0 < busy_s < math.inf:
            return
        kind = needs[0]
        per_task_s = min(max(busy_s / tasks, MIN_SERVICE_S), MAX_SERVICE_S)
        before = self.service_s.get(kind, per_task_s)
        self.service_s[kind] = before + SMOOTHING * (per_task_s - before)
        if len(self.service_s) > MAX_KINDS:
            oldest = next(iter(self.service_s))
            del self.service_s[oldest]
            self._grown.pop(oldest, None)
        grown = self._grown.get(kind, FIRST_LEASE)
        if grown < MAX_LEASE and tasks * GROWTH > grown:
            self._grown[kind] = min(MAX_LEASE, tasks * GROWTH)
