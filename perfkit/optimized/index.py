"""The score index: workers in buckets by their score, so that nobody has to be scanned.

A bitmask knows the lowest bucket that is not empty, so a choice costs the same among ten workers
and a thousand. What costs is a change, one step for each index a worker is in; who offers what is
remembered per need, and forgotten when a worker joins or leaves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from cluster.core.policy import ScanPolicy
from cluster.core.run import Needs
from cluster.core.worker import WorkerState
from perfkit.optimized.sizer import Sizer

#: needs remembered, and different sets of workers that offer them; clients make needs up, so there
#: are bounds, and the oldest goes
MAX_NEEDS, MAX_INDEXES = 4_096, 64


class Buckets:
    """Workers that offer the same, by score: an entry of the capability cache, and its index.

    Within a bucket whoever was chosen longest ago comes first.
    """

    __slots__ = ("_full", "_place", "_rows", "eligible", "needs")

    def __init__(self, eligible: Iterable[WorkerState], needs: Needs) -> None:
        self.eligible = {worker.id: worker for worker in eligible}
        #: the first needs that were asked of them; of a scorer that looks at needs, the only ones
        self.needs = needs
        self._rows: dict[int, OrderedDict[str, WorkerState]] = {}
        #: bit n is set while row n holds somebody
        self._full = 0
        self._place: dict[str, int] = {}

    def put(self, worker: WorkerState, bucket: int | None) -> None:
        """Move a worker to a bucket, or out of all of them."""
        before = self._place.get(worker.id)
        if before == bucket:
            return
        if before is not None:
            row = self._rows[before]
            del row[worker.id]
            if not row:
                self._full ^= 1 << before
        if bucket is None:
            del self._place[worker.id]
            return
        self._place[worker.id] = bucket
        try:
            self._rows[bucket][worker.id] = worker
        except KeyError:
            self._rows[bucket] = OrderedDict({worker.id: worker})
        self._full |= 1 << bucket

    def choose(self) -> WorkerState | None:
        """Somebody of the lowest bucket."""
        full = self._full
        if not full:
            return None
        row = self._rows[(full & -full).bit_length() - 1]
        worker = next(iter(row.values()))
        row.move_to_end(worker.id)
        return worker

    def choose_unsuspected(self) -> WorkerState | None:
        """Somebody who holds no suspect task, of the lowest bucket that has one; O(workers)."""
        full = self._full
        while full:
            lowest = full & -full
            row = self._rows[lowest.bit_length() - 1]
            for worker in row.values():
                if not worker.suspects:
                    row.move_to_end(worker.id)
                    return worker
            full ^= lowest
        return None


class Indexed:
    """A plain policy's scores, kept in buckets instead of being scanned for.

    ``bucket`` turns a score into a small number that orders as the scores do. With a ``sizer``
    leases hold many tasks and a worker is passed over while it has enough in hand. Where the scores
    do not depend on the needs, needs that the same workers offer share an index, so that a change
    costs one step for each set of workers that differ; else (``by_needs``) each has its own.
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
        #: whoever was chosen longest ago comes first
        self._workers: OrderedDict[str, WorkerState] = OrderedDict()
        self._by_needs: dict[Needs, Buckets] = {}
        self._indexes: dict[object, Buckets] = {}

    def join(self, worker: WorkerState) -> None:
        """Enter a worker; who offers what has to be found out again."""
        self._workers[worker.id] = worker
        self._scorer.join(worker)
        if self.sizer is not None:
            self.sizer.join(worker)
        self._forget()

    def leave(self, worker: WorkerState) -> None:
        """Take a worker out; who offers what has to be found out again."""
        self._workers.pop(worker.id, None)
        self._scorer.leave(worker)
        if self.sizer is not None:
            self.sizer.leave(worker)
        self._forget()

    def touch(self, worker: WorkerState) -> None:
        """Put it where its score belongs now; O(indexes)."""
        for buckets in self._indexes.values():
            # A namesake may be touched that left before this one joined.
            if buckets.eligible.get(worker.id) is worker:
                buckets.put(worker, self._place(worker, buckets.needs))

    def hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
        """Count what it has in hand."""
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
        """By the sizer; without one, one task at a time."""
        return 1 if self.sizer is None else self.sizer.lease_tasks(worker, needs, queued)

    def observe(self, worker: WorkerState, needs: Needs, tasks: int, busy_s: float) -> None:
        """Learn the service times."""
        self._scorer.observe(worker, needs, tasks, busy_s)
        if self.sizer is not None:
            self.sizer.observe(needs, tasks, busy_s)

    def score(self, worker: WorkerState, needs: Needs) -> float:
        """The bucket it belongs in; those in one bucket count as equals."""
        return self._bucket(self._scorer.score(worker, needs))

    def _place(self, worker: WorkerState, needs: Needs) -> int | None:
        sizer = self.sizer
        if not (worker.free > 0 if sizer is None else sizer.has_room(worker)):
            return None
        return self._bucket(self._scorer.score(worker, needs))

    def _learn(self, needs: Needs) -> Buckets:
        """Find out who offers what is needed; O(workers), once until somebody comes or goes."""
        eligible = [worker for worker in self._workers.values() if worker.offers(*needs)]
        key: object = needs if self._is_by_needs else frozenset(w.id for w in eligible)
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
