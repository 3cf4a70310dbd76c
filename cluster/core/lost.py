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
from cluster.vocabulary.lifecycle import Cause
from cluster.vocabulary.task import RunId, State


class LostWorker(NamedTuple):
    """A lost worker, and the tasks that it held."""

    worker: WorkerState
    held: list[tuple[RunId, Span]]


class LostWorkers:
    """The lost workers by name, at most ``limits.workers``, for ``client_liveness_s``."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._by_name: dict[str, LostWorker] = {}

    def add(self, worker: WorkerState, now: float) -> None:
        """Remember a worker that is about to be dropped, with what it holds."""
        positions: dict[RunId, set[int]] = {}
        for lease in worker.leases.values():
            # A suspect that was taken from it may be what kills it.
            positions.setdefault(lease.run.id, set()).update(range(lease.next, lease.stop))
        held = [(run, span) for run, some in positions.items() for span in as_ranges(some)]
        if len(self._by_name) >= self._ledger.limits.workers:
            self.forget(next(iter(self._by_name)))
        self._by_name[worker.id] = LostWorker(worker, held)
        due = now + self._ledger.limits.client_liveness_s
        self._ledger.timers.set(("lost", worker.id), due)

    def find(self, name: str) -> WorkerState | None:
        """The worker of this name that was lost last."""
        lost = self._by_name.get(name)
        return lost.worker if lost is not None else None

    def forget(self, name: str, _: float = 0.0) -> None:
        """Forget a worker that lives, that ended in order, or of which nothing was heard."""
        self._by_name.pop(name, None)
        self._ledger.timers.clear(("lost", name))

    def died(self, name: str, reason: str, now: float) -> None:
        """Count the death of a lost worker for the tasks that it held."""
        lost = self._by_name.get(name)
        if lost is not None:
            self.forget(name)
            self._ledger.counters["worker_deaths"] += 1
            for run, span in lost.held:
                self._count(run, span, f"{name}: {reason}", now)

    def _count(self, id: RunId, span: Span, detail: str, now: float) -> None:
        """Count a death for the open tasks of a range; bury those that saw too many.

        Those that are on another worker by now are taken from it: a suspect must be alone.
        """
        ledger = self._ledger
        run = ledger.runs.get(id)
        if run is None:
            return
        for state, piece in ledger.withdraw(run, span):
            deaths = piece.deaths + 1
            if deaths >= ledger.limits.deaths:
                ledger.bury(run, state, piece, f"death {deaths}, the last: {detail}", now)
                continue
            if state is State.ASSIGNED:
                why = f"a suspect since the death of {detail}"
                most = ledger.limits.story_entries
                run.note(state, Cause.RETURNED, piece.start, piece.stop, why, now, most)
            run.put_back(piece._replace(deaths=deaths))
        ledger.queue.push(run)
