"""Workers that are lost, remembered until it is known whether their processes have died.

Silence is not death: the tasks of a silent worker are queued again and have lost no worker. If its
supervisor says later that the process has ended, or a newer process takes its name, that death is
counted for the tasks it held.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.core.ledger import Ledger, Span
from cluster.core.rangeset import as_ranges
from cluster.core.worker import WorkerState
from cluster.vocabulary.task import RunId


class LostWorker(NamedTuple):
    """A lost worker, and the tasks that it held."""

    worker: WorkerState
    held: list[tuple[RunId, Span]]


class LostWorkers:
    """The lost workers by name, at most ``limits.workers``; the oldest is forgotten first."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._by_name: dict[str, LostWorker] = {}

    def add(self, worker: WorkerState) -> None:
        """Remember a worker that is about to be dropped, with what it holds."""
        positions: dict[RunId, set[int]] = {}
        for lease in worker.leases.values():
            # A suspect that was taken from it may be what kills it.
            positions.setdefault(lease.run.id, set()).update(range(lease.next, lease.stop))
        held = [(run, span) for run, some in positions.items() for span in as_ranges(some)]
        if len(self._by_name) >= self._ledger.limits.workers:
            del self._by_name[next(iter(self._by_name))]
        self._by_name[worker.id] = LostWorker(worker, held)

    def find(self, name: str) -> WorkerState | None:
        """The worker of this name that was lost last."""
        lost = self._by_name.get(name)
        return lost.worker if lost is not None else None

    def forget(self, name: str) -> None:
        """Forget a worker that lives, or that ended in order."""
        self._by_name.pop(name, None)

    def died(self, name: str, reason: str, now: float) -> None:
        """Count the death of a lost worker for the tasks that it held."""
        lost = self._by_name.pop(name, None)
        if lost is not None:
            self._ledger.counters["worker_deaths"] += 1
            for run, span in lost.held:
                self._ledger.count_death(run, span, f"{name}: {reason}", now)
