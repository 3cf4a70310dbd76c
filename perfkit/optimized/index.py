"""The score index: workers in buckets by their score, so that a choice needs no scan.

A bitmask tells the lowest bucket that is not empty, so a choice costs the same among ten workers
and a thousand. A change of score costs one step for each index of the worker. The eligible workers
are remembered per need until a worker joins or leaves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from cluster.core.policy import ScanPolicy
from cluster.core.run import Needs
from cluster.core.worker import WorkerState
from perfkit.optimized.sizer import Sizer

#: needs remembered, and different sets of workers that offer them; clients choose the needs, so
#: both are bounded, and the oldest is dropped
MAX_NEEDS, MAX_INDEXES = 4_096, 64


class Buckets:
    """Workers that offer the same, by score: an entry of the capability cache, and its index.

    Within a bucket the worker chosen longest ago comes first.
    """

    __slots__ = ("_full", "_members", "_place", "eligible", "needs")

    def __init__(self, eligible: Iterable[WorkerState], needs: Needs) -> None:
        self.eligible = {worker.id: worker for worker in eligible}
        #: the first needs asked of them; the only ones, if the score depends on needs
        self.needs = needs
        self._members: dict[int, OrderedDict[str, WorkerState]] = {}
        #: bit n is set while bucket n is not empty
        self._full = 0
        self._place: dict[str, int] = {}

    def put(self, worker: WorkerState, bucket: int | None) -> None:
        """Move a worker to a bucket; None takes it out."""
        before = self._place.get(worker.id)
        if before == bucket:
            return
        if before is not None:
            members = self._members[before]
            del members[worker.id]
            if not members:
                self._full ^= 1 << before
        if bucket is None:
            del self._place[worker.id]
            return
        self._place[worker.id] = bucket
        try:
            self._members[bucket][worker.id] = worker
        except KeyError:
            self._members[bucket] = OrderedDict({worker.id: worker})
        self._full |= 1 << bucket

    def choose(self) -> WorkerState | None:
        """A worker of the lowest bucket."""
        full = self._full
        if not full:
            return None
        members = self._members[(full & -full).bit_length() - 1]
        worker = next(iter(members.values()))
        members.move_to_end(worker.id)
        return worker

    def choose_unsuspected(self) -> WorkerState | None:
        """A worker without a suspect task, of the lowest bucket with one; O(workers)."""
        full = self._full
        while full:
            lowest = full & -full
            members = self._members[lowest.bit_length() - 1]
            for worker in members.values():
                if not worker.suspects:
                    members.move_to_end(worker.id)
                    return worker
            full ^= lowest
        return None


class Indexed:
    """A plain policy with its scores in buckets instead of a scan.

    ``bucket`` maps a score to a small number of the same order. With a ``sizer`` leases hold many
    tasks, and a worker with enough work in hand is skipped. Needs that ask for the same card and
    that the same workers offer share an index, so that a change costs one step for each of these;
    ``by_needs`` gives all needs their own, for scores that depend on more.
    """

    def __init__(
        self,
        scorer: ScanPolicy,
        bucket: Callable[[float], int],
        sizer: Sizer | None = None,
        *,
        by_needs: bool = False,
    ) -> None:
        self.name = scorer.name
        self.sizer = sizer
        self._scorer = scorer
        self._bucket = bucket
        self._is_by_needs = by_needs
        #: the one chosen longest ago comes first
        self._workers: OrderedDict[str, WorkerState] = OrderedDict()
        self._by_needs: dict[Needs, Buckets] = {}
        self._indexes: dict[object, Buckets] = {}

    def join(self, worker: WorkerState) -> None:
        """Add a worker and drop the cached offers."""
        self._workers[worker.id] = worker
        self._scorer.join(worker)
        if self.sizer is not None:
            self.sizer.join(worker)
        self._forget()

    def leave(self, worker: WorkerState) -> None:
        """Remove a worker and drop the cached offers."""
        self._workers.pop(worker.id, None)
        self._scorer.leave(worker)
        if self.sizer is not None:
            self.sizer.leave(worker)
        self._forget()

    def offers_changed(self, worker: WorkerState) -> None:
        """Drop the cached offers."""
        self._scorer.offers_changed(worker)
        self._forget()

    def touch(self, worker: WorkerState) -> None:
        """Move a worker to the bucket of its score; O(indexes)."""
        for buckets in self._indexes.values():
            # It may be an earlier worker of the same name, which has left.
            if buckets.eligible.get(worker.id) is worker:
                buckets.put(worker, self._place(worker, buckets.needs))

    def hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
        if self.sizer is not None:
            self.sizer.hold(worker, needs, change)

    def choose(self, needs: Needs, suspect: bool) -> WorkerState | None:
        """An eligible worker of the lowest bucket; O(1)."""
        buckets = self._by_needs.get(needs) or self._learn(needs)
        chosen = buckets.choose_unsuspected() if suspect else buckets.choose()
        if chosen is not None:
            self._workers.move_to_end(chosen.id)
        return chosen

    def lease_tasks(self, worker: WorkerState, needs: Needs, queued: int) -> int:
        return 1 if self.sizer is None else self.sizer.lease_tasks(worker, needs, queued)

    def observe(self, worker: WorkerState, needs: Needs, tasks: int, busy_s: float) -> None:
        self._scorer.observe(worker, needs, tasks, busy_s)
        if self.sizer is not None:
            self.sizer.observe(needs, tasks, busy_s)

    def score(self, worker: WorkerState, needs: Needs) -> float:
        """The bucket of its score; workers in one bucket are equal."""
        return self._bucket(self._scorer.score(worker, needs))

    def _place(self, worker: WorkerState, needs: Needs) -> int | None:
        sizer = self.sizer
        if not (worker.free > 0 if sizer is None else sizer.has_room(worker)):
            return None
        return self._bucket(self._scorer.score(worker, needs))

    def _learn(self, needs: Needs) -> Buckets:
        """Find the workers that offer it; O(workers), once until a worker joins or leaves."""
        eligible = [worker for worker in self._workers.values() if worker.offers(*needs)]
        card = needs[1].min_vram_bytes, needs[1].gpu_family
        key: object = needs if self._is_by_needs else (card, frozenset(w.id for w in eligible))
        buckets = self._indexes.get(key)
        if buckets is None:
            if len(self._indexes) >= MAX_INDEXES:
                gone = self._indexes.pop(next(iter(self._indexes)))
                self._by_needs = {n: b for n, b in self._by_needs.items() if b is not gone}
            buckets = self._indexes[key] = Buckets(eligible, needs)
            for worker in eligible:
                buckets.put(worker, self._place(worker, needs))
        if len(self._by_needs) >= MAX_NEEDS:
            del self._by_needs[next(iter(self._by_needs))]
        self._by_needs[needs] = buckets
        return buckets

    def _forget(self) -> None:
        self._by_needs.clear()
        self._indexes.clear()
