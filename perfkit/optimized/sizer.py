"""The size of leases, and how much work a busy worker is given ahead.

A large lease costs little per task. A small one delays little behind a slow task and loses little
with a lost worker. So a lease holds about two milliseconds of work, by the measured service time of
its kind, and a busy worker gets more only while it has less than that in hand (adaptive credit).
Leases start small and grow.
"""

from __future__ import annotations

import math

from cluster.core.policy import SMOOTHING
from cluster.core.run import Needs
from cluster.core.worker import WorkerState

#: the work in a lease, and in a worker's hands beyond what it runs at once: ten times a round trip,
#: to hide it, and little enough to wait behind a slow task
LEASE_S = 0.002
MAX_LEASE = 1_024
#: the batches of a kind in a worker's hands, for each slot
BATCHES_AHEAD = 2
#: a task under this is short: the round trip after it would be more than a hundredth of it
SHORT_S = 0.02
#: the lease of an unmeasured kind, which leaves tasks for the other slots, and how fast it may grow
FIRST_LEASE, GROWTH = 1, 4
#: times beyond these would change no decision; clamped, some dozens of right reports outweigh one
#: wrong report of years
MIN_SERVICE_S, MAX_SERVICE_S = 1e-9, 1.0
#: kinds remembered; beyond that the oldest is dropped
MAX_KINDS = 4_096


class Sizer:
    """Decides how many tasks make a lease, and whether a worker has room for more.

    The service time of a kind is an exponentially weighted mean over reports. An unmeasured kind
    counts as slow, so that nothing waits behind its first tasks.
    """

    def __init__(self) -> None:
        self.service_s: dict[str, float] = {}
        self._grown: dict[str, int] = {}
        #: tasks in a worker's hands by kind
        self._held: dict[str, dict[str, int]] = {}

    def join(self, worker: WorkerState) -> None:
        """Count the tasks it already holds, for a policy that is switched on during work."""
        held = self._held[worker.id] = {}
        for lease in worker.leases.values():
            kind = lease.run.needs[0]
            held[kind] = held.get(kind, 0) + lease.stop - lease.next

    def leave(self, worker: WorkerState) -> None:
        """Forget a worker."""
        self._held.pop(worker.id, None)

    def hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
        """Add ``change`` to the tasks of a kind in its hands."""
        held = self._held.get(worker.id)
        if held is not None:
            count = held.get(needs[0], 0) + change
            if count:
                held[needs[0]] = count
            else:
                held.pop(needs[0], None)

    def ahead_s(self, worker: WorkerState) -> float:
        """Seconds until its slots will have finished the tasks in its hands."""
        held, service_s = self._held.get(worker.id), self.service_s
        if not held:
            return 0.0
        ahead = 0.0
        for kind in held:
            ahead += held[kind] * service_s.get(kind, LEASE_S)
        return ahead / worker.capacity

    def has_room(self, worker: WorkerState) -> bool:
        """Whether it would soon be idle without more tasks; never beyond its credit."""
        if worker.free <= 0:
            return False
        if worker.slots_taken < worker.capacity:
            return True
        ahead_s = self.ahead_s(worker)
        if ahead_s < LEASE_S or (ahead_s < SHORT_S and self._runs_single_tasks(worker)):
            return True
        return bool(worker.batches) and self._has_room_in_batches(worker)

    def _has_room_in_batches(self, worker: WorkerState) -> bool:
        """Whether it holds only tasks that it runs together, and less than two batches a slot: one
        that it runs, and one that forms meanwhile.
        """
        held, ahead = self._held.get(worker.id, {}), BATCHES_AHEAD * worker.capacity
        return all(held[kind] < ahead * worker.wanted_for_batch(kind) for kind in held)

    def _runs_single_tasks(self, worker: WorkerState) -> bool:
        """Whether each slot has one task of a measured kind and none behind it, so that it would
        idle for a round trip.
        """
        kinds = self._held.get(worker.id, {})
        return worker.held == worker.capacity and kinds.keys() <= self.service_s.keys()

    def lease_tasks(self, worker: WorkerState, needs: Needs, queued: int) -> int:
        """As many as make LEASE_S of work, at most the size the kind has grown to, and at most a
        slot's share of the queued tasks.
        """
        kind = needs[0]
        service_s = self.service_s.get(kind)
        if service_s is None:
            return min(queued, FIRST_LEASE)
        share = -(-queued // worker.capacity)
        most = min(share, MAX_LEASE, self._grown.get(kind, FIRST_LEASE))
        return max(1, min(most, int(LEASE_S / service_s)))

    def observe(self, needs: Needs, tasks: int, busy_s: float) -> None:
        """Move the mean towards a report; a time that is not positive and finite is ignored."""
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
