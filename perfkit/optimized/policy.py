"""The optimised twins of cluster/core/policy.py: the same policies without the scan.

Three ideas, each also alone in a spec (specs.py):

* the eligible workers are remembered per need, until a worker joins or leaves and never for a fixed
  time (the capability cache);
* workers are in buckets by their score, and a bitmask tells the lowest bucket that is not empty, so
  that a choice costs the same among ten workers and a thousand (index.py);
* a lease holds about two milliseconds of work, and a busy worker gets more only while it has less
  than that in hand (sizer.py).

Nothing is locked: one thread owns the scheduler, and with it every policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from cluster.core.policy import (
    Adaptive,
    AssignmentPolicy,
    GpuMatch,
    LatencyAware,
    LeastLoaded,
    MemoryAware,
    RoundRobin,
    ScanPolicy,
)
from cluster.core.run import Needs
from cluster.core.worker import WorkerState
from perfkit.optimized.index import MAX_NEEDS, Indexed
from perfkit.optimized.sizer import LEASE_S, Sizer


class WorkShare(LeastLoaded):
    """Least-loaded with the plain policy's weights, but by work in hand instead of tasks.

    Half of the share is the slots taken, half the part of LEASE_S that lies ahead of them.
    """

    def __init__(self, sizer: Sizer) -> None:
        super().__init__()
        self._sizer = sizer

    def held_share(self, worker: WorkerState) -> float:
        """From 0, idle, to 1, all slots taken and LEASE_S of work in hand."""
        if not worker.held:
            return 0.0
        taken = worker.slots_taken / worker.capacity
        return 0.5 * taken + 0.5 * min(1.0, self._sizer.ahead_s(worker) / LEASE_S)


class WorkMatch(WorkShare, GpuMatch):
    """The smallest card that fits, then the least work in hand."""


def _step(score: float, last: int) -> int:
    """A whole number from 0 to ``last``; NaN sorts last."""
    return int(min(last, max(score, 0.0)))


def _by_load(score: float) -> int:
    """64 buckets, up to two tasks a slot in hand."""
    return _step(32.0 * score, 63)


def _by_card(score: float) -> int:
    """A spare GiB of the card outweighs any load; 16 steps of each."""
    spare, load = divmod(score, 100.0)
    return 16 * _step(spare, 15) + _step(8.0 * load, 15)


def _by_time(score: float) -> int:
    """Eight buckets for unmeasured workers, then four an octave from a microsecond up."""
    if score < 0.0:
        return _step(8.0 * (1.0 + score), 7)
    return 8 + _step(4.0 * math.log2(max(score, 1e-6) * 1e6), 120)


def _by_memory(score: float) -> int:
    """Four buckets an octave of free bytes, most first; then unknown ones, by tasks held."""
    if score < 0.0:
        return _step(160.0 - 4.0 * math.log2(max(1.0, -score)), 160)
    return 161 + _step(score, 63)


def _in_turn(score: float) -> int:
    """One bucket, in which the worker chosen longest ago comes first."""
    return 0


class IndexedAdaptive(Adaptive):
    """The plain policy's choice among three policies, each indexed."""

    def __init__(self) -> None:
        super().__init__()
        self.sizer = Sizer()
        self._load = WorkShare(self.sizer)
        self._match = WorkMatch(self.sizer)
        self._parts = (self._match, self._load, self._latency)
        self._indexes: dict[ScanPolicy, Indexed] = {
            self._match: Indexed(self._match, _by_card, self.sizer, by_needs=True),
            self._load: Indexed(self._load, _by_load, self.sizer),
            self._latency: Indexed(self._latency, _by_time, self.sizer, by_needs=True),
        }
        #: by kind its spread, and the reports left until it is computed again
        self._spreads: dict[str, tuple[float, float]] = {}
        self._reports_left: dict[str, int] = {}

    def join(self, worker: WorkerState) -> None:
        for index in self._indexes.values():
            index.join(worker)

    def leave(self, worker: WorkerState) -> None:
        """Tell every index; the spread of the others is computed again."""
        for index in self._indexes.values():
            index.leave(worker)
        self._spreads.clear()
        self._reports_left.clear()

    def offers_changed(self, worker: WorkerState) -> None:
        for index in self._indexes.values():
            index.offers_changed(worker)
        self._spreads.clear()
        self._reports_left.clear()

    def touch(self, worker: WorkerState) -> None:
        for index in self._indexes.values():
            index.touch(worker)

    def hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
        self.sizer.hold(worker, needs, change)

    def choose(self, needs: Needs, suspect: bool) -> WorkerState | None:
        """The choice of the index of the policy that fits."""
        return self._indexes[self.part(needs)].choose(needs, suspect)

    def lease_tasks(self, worker: WorkerState, needs: Needs, queued: int) -> int:
        return self.sizer.lease_tasks(worker, needs, queued)

    def observe(self, worker: WorkerState, needs: Needs, tasks: int, busy_s: float) -> None:
        super().observe(worker, needs, tasks, busy_s)
        self.sizer.observe(needs, tasks, busy_s)
        kind = needs[0]
        if kind in self._spreads:
            self._reports_left[kind] -= 1
            if not self._reports_left[kind]:
                del self._spreads[kind]

    def spread_s(self, kind: str) -> tuple[float, float]:
        """The spread, computed once in as many reports as there are workers, so that it does not
        cost more with many of them.
        """
        spread = self._spreads.get(kind)
        if spread is None:
            if len(self._spreads) >= MAX_NEEDS:
                self._spreads.clear()
                self._reports_left.clear()
            spread = self._spreads[kind] = super().spread_s(kind)
            self._reports_left[kind] = max(1, len(self._latency.workers))
        return spread


class CachedLeastLoaded(LeastLoaded):
    """The capability cache alone: the scan covers the eligible workers."""

    def __init__(self) -> None:
        super().__init__()
        self._eligible: dict[Needs, Sequence[WorkerState]] = {}

    def join(self, worker: WorkerState) -> None:
        super().join(worker)
        self._eligible.clear()

    def leave(self, worker: WorkerState) -> None:
        super().leave(worker)
        self._eligible.clear()

    def offers_changed(self, worker: WorkerState) -> None:
        self._eligible.clear()

    def eligible(self, needs: Needs) -> Sequence[WorkerState]:
        found = self._eligible.get(needs)
        if found is None:
            if len(self._eligible) >= MAX_NEEDS:
                self._eligible.clear()
            found = self._eligible[needs] = super().eligible(needs)
        return found


class SizedLeastLoaded(WorkShare):
    """Sized leases and adaptive credit alone, with a scan over all workers."""

    def __init__(self) -> None:
        super().__init__(Sizer())

    def join(self, worker: WorkerState) -> None:
        super().join(worker)
        self._sizer.join(worker)

    def leave(self, worker: WorkerState) -> None:
        super().leave(worker)
        self._sizer.leave(worker)

    def hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
        self._sizer.hold(worker, needs, change)

    def has_room(self, worker: WorkerState) -> bool:
        return self._sizer.has_room(worker)

    def lease_tasks(self, worker: WorkerState, needs: Needs, queued: int) -> int:
        return self._sizer.lease_tasks(worker, needs, queued)

    def observe(self, worker: WorkerState, needs: Needs, tasks: int, busy_s: float) -> None:
        self._sizer.observe(needs, tasks, busy_s)


def _by_work(
    scorer: type[WorkShare], bucket: Callable[[float], int], *, by_needs: bool = False
) -> Indexed:
    sizer = Sizer()
    return Indexed(scorer(sizer), bucket, sizer, by_needs=by_needs)


#: every plain policy by name, indexed, with sized leases
POLICIES: Mapping[str, Callable[[], AssignmentPolicy]] = {
    RoundRobin.name: lambda: Indexed(RoundRobin(), _in_turn, Sizer()),
    LeastLoaded.name: lambda: _by_work(WorkShare, _by_load),
    GpuMatch.name: lambda: _by_work(WorkMatch, _by_card, by_needs=True),
    LatencyAware.name: lambda: Indexed(LatencyAware(), _by_time, Sizer(), by_needs=True),
    MemoryAware.name: lambda: Indexed(MemoryAware(), _by_memory, Sizer(), by_needs=True),
    Adaptive.name: IndexedAdaptive,
}
#: one idea each, on the default policy
CACHED: Mapping[str, Callable[[], AssignmentPolicy]] = {LeastLoaded.name: CachedLeastLoaded}
INDEXED: Mapping[str, Callable[[], AssignmentPolicy]] = {
    LeastLoaded.name: lambda: Indexed(LeastLoaded(), _by_load)
}
SIZED: Mapping[str, Callable[[], AssignmentPolicy]] = {LeastLoaded.name: SizedLeastLoaded}
