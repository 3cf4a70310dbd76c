"""Workers as seen from outside the scheduler: what they offer, and how much they certainly hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cluster.core.run import Needs
from cluster.core.worker import NO_ROUTE, OVERRUN, WorkerState
from cluster.simulation.verdicts import ENDED, FROM_WORKER, FromWorker, Held
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits


class Presence:
    """Workers as seen from outside.

    In doubt a worker holds more tasks than it really does, and is gone earlier.
    """

    def __init__(self, limits: Limits) -> None:
        self._liveness_s = limits.liveness_s
        self._patience_s = limits.heartbeat_s + limits.liveness_s
        self._workers: dict[str, WorkerState] = {}
        #: the last epoch of each that is gone: in doubt it stays so until the next
        self._past: dict[str, int] = {}
        #: the tasks of each lease, by worker and id
        self._open: dict[tuple[str, int], Held] = {}

    def observe(self, event: on.Event | None, actions: Sequence[do.Action], now: float) -> None:
        """Take in the messages from and to workers."""
        if event is None:
            for silent in [*self._workers.values()]:
                if silent.last_seen + self._liveness_s <= now:
                    self._gone(silent.id)
            for held in self._open.values():
                held.look(now)
        elif isinstance(event, on.WorkerUnreachable):
            self._bar(event.worker, NO_ROUTE)
        elif isinstance(event, on.HostReported):
            for name, pid, state in event.workers:
                if state in ENDED and name in self._workers and self._workers[name].pid == pid:
                    self._gone(name)
        elif isinstance(event, FROM_WORKER):
            worker = self._workers.get(event.worker)
            if worker is not None and worker.epoch == event.epoch:
                worker.last_seen = now
                self._said(worker, event, now)
        for action in actions:
            if isinstance(action, do.Welcome) and isinstance(event, on.WorkerJoined):
                self._welcomed(event, action.epoch, now)
            elif isinstance(action, do.Assign):
                stop = action.start + len(action.payloads)
                held = Held(action.start, stop, self._patience_s)
                self._open[action.worker, action.lease] = held
            elif isinstance(action, do.Kill):
                self._bar(action.worker, OVERRUN)
            elif isinstance(action, do.Drain | do.Restart) and action.worker in self._workers:
                self._workers[action.worker].draining = True
            elif isinstance(action, do.Disconnect) and self._epoch(action.worker) == action.epoch:
                self._gone(action.worker)
            elif isinstance(action, do.Offer) and isinstance(event, on.ResultStored):
                # A result that waits to be fetched takes no credit.
                self._open.pop((event.worker, event.lease), None)

    def idle(self, needs: Needs) -> WorkerState | None:
        """A worker that meets the needs and certainly has a slot without work.

        The policy decides how many tasks a busy worker gets ahead.
        """
        holds = Counter[str]()
        for (name, _), held in self._open.items():
            holds[name] += len(held.positions)
        for worker in self._workers.values():
            worker.held = holds[worker.id]
            if worker.free > 0 and worker.held < worker.capacity and worker.offers(*needs):
                return worker
        return None

    def offers(self, needs: Needs) -> bool:
        """Whether a worker is certainly here that takes such tasks, now or later."""
        return any(w.is_taking and w.offers(*needs) for w in self._workers.values())

    def may_take(self, name: str, needs: Needs) -> bool:
        """Whether a worker, as far as it is here, offers what such tasks need and goes on."""
        worker = self._workers.get(name)
        return worker is None or (worker.offers(*needs) and not worker.draining)

    def _welcomed(self, event: on.WorkerJoined, epoch: int, now: float) -> None:
        worker = self._workers.get(event.worker)
        if self._past.get(event.worker) == epoch:
            return
        if worker is None or worker.epoch != epoch:
            self._gone(event.worker)
            self._workers[event.worker] = WorkerState(event, epoch, now)
        else:
            worker.last_seen = now
            worker.barred = worker.barred if worker.is_doomed else ""

    def _said(self, worker: WorkerState, event: FromWorker, now: float) -> None:
        if isinstance(event, on.WorkerLeft):
            self._gone(worker.id)
        elif isinstance(event, on.WorkerDraining):
            worker.draining = True
        elif isinstance(event, on.WorkerHeartbeat):
            worker.load = event.load
            worker.take_wants(event.wants, event.credit)
        elif isinstance(event, on.WorkerOffers):
            if event.revision > worker.revision:
                worker.revision = event.revision
                worker.kinds, worker.models = frozenset(event.kinds), frozenset(event.models)
        elif isinstance(event, on.TasksFinished | on.TasksReleased):
            held = self._open.get((worker.id, event.lease))
            if held is not None:
                held.take(event, now)
                if not held.positions:
                    del self._open[worker.id, event.lease]

    def _bar(self, name: str, reason: str) -> None:
        if name in self._workers:
            self._workers[name].barred = reason

    def _epoch(self, name: str) -> int | None:
        return self._workers[name].epoch if name in self._workers else None

    def _gone(self, name: str) -> None:
        if (worker := self._workers.pop(name, None)) is not None:
            self._past[name] = worker.epoch
        self._open = {key: span for key, span in self._open.items() if key[0] != name}
