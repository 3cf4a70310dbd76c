"""The core: who works on what, without a socket, a clock or a thread.

Events go in with the time at which they happened, actions come out. The ZeroMQ loop, the simulator
and the property tests drive this same class. What it schedules are ranges of runs (run.py), so that
its cost is per lease and per message; what concerns one task (a failure, a cancel, a death) splits
a range.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from cluster.core import inspection
from cluster.core.clients import Clients
from cluster.core.ledger import Ledger
from cluster.core.policy import POLICIES, AssignmentPolicy
from cluster.core.queue import Key, RunQueue
from cluster.core.run import Entry, Lease, Needs
from cluster.core.streams import Streams
from cluster.core.worker import WorkerState
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.lifecycle import Cause
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import TaskId

FromHolder: TypeAlias = on.TasksFinished | on.TasksReleased | on.ResultStored | on.ChunkRead


class Scheduler:
    """Decide what happens to tasks.

    ``chance`` returns floats uniform in [0, 1) for the jitter of retries. Every event is handled in
    full: an event that makes no sense any more (a stale epoch, a lease that is over) is counted in
    ``counters`` and changes nothing.
    """

    def __init__(
        self,
        policy: AssignmentPolicy,
        limits: Limits,
        chance: Callable[[], float],
        policies: Mapping[str, Callable[[], AssignmentPolicy]] = POLICIES,
        queue: Callable[[int], RunQueue] = RunQueue,
    ) -> None:
        self.policy = policy
        self.limits = limits
        self.ledger = Ledger(limits, chance, queue)
        self.clients = Clients(self.ledger)
        self.streams = Streams(self)
        self.workers: dict[str, WorkerState] = {}
        #: workers with credit left, and those with tasks in hand that can't be running
        self.spare: dict[str, WorkerState] = {}
        self.backlogged: dict[str, WorkerState] = {}
        self._policies = policies
        self._next_epoch = 1
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            on.TasksSubmitted: self.clients.submitted,
            on.TasksCancelled: self.clients.cancelled,
            on.ClientHeartbeat: self.clients.heartbeat,
            on.ClientLeft: self.clients.left,
            on.StatusRequested: self._status_requested,
            on.PolicyChanged: self._policy_changed,
            on.ChunkRequested: self.streams.requested,
            on.StreamReceived: self.streams.received,
            on.WorkerJoined: self._joined,
            on.WorkerHeartbeat: self._heartbeat,
            on.TasksFinished: self._finished,
            on.TasksReleased: self._released,
            on.WorkerDraining: self._draining,
            on.WorkerLeft: self._left,
            on.ResultStored: self.streams.kept,
            on.ChunkRead: self.streams.read,
            on.WorkerLost: self._lost,
        }
        self._timers: dict[str, Callable[[Any, float], None]] = {
            "run": self.ledger.run_due,
            "retry": self.ledger.retry_due,
            "client": self.clients.due,
            "worker": self._worker_due,
            "recall": self._recall_due,
        }

    @property
    def counters(self) -> Counter[str]:
        """How often what has happened, since the start."""
        return self.ledger.counters

    def handle(self, event: on.Event, now: float) -> list[do.Action]:
        """Take in one event; return what to do about it, in order."""
        self._handlers[type(event)](event, now)
        return self._act(now)

    def deadline(self) -> float | None:
        """When handle_timer wants to run next; None for not at all."""
        return self.ledger.timers.next_due()

    def handle_timer(self, now: float) -> list[do.Action]:
        """Do what is due at ``now``."""
        while (timer := self.ledger.timers.pop(now)) is not None:
            self._timers[timer[0]](timer[1], now)
        return self._act(now)

    def shrink(self) -> bool:
        """Let go of the room that tables have grown to; False as long as there is any task.

        A dict that has been large stays so until it is cleared.
        """
        if self.ledger.runs:
            return False
        self.ledger.shrink()
        self.clients.shrink()
        return True

    def story(self, task: TaskId) -> list[Entry]:
        """What happened to one task, in order; empty when its run is unknown or forgotten."""
        return self.ledger.story(task)

    def status(self, now: float) -> Status:
        """How the cluster is, as plain data."""
        return inspection.status(self, now)

    def validate(self) -> None:
        """Check every invariant; raises AssertionError that names the one that is broken."""
        inspection.validate(self)

    def _act(self, now: float) -> list[do.Action]:
        self._assign(now)
        self._balance(now)
        out, self.ledger.out = self.ledger.out, []
        return out

    def _assign(self, now: float) -> None:
        """Lease out what waits, in the queue's order, until nothing more fits anywhere."""
        queue, unread = self.ledger.queue, self.ledger.backpressure
        if queue.held_back:
            unread.resume(queue)
        blocked: set[Key] = set()
        while self.spare and (head := queue.head(blocked)) is not None:
            run, suspect = head
            full = unread.total_bytes >= unread.half_bytes
            if full and unread.holds_back(queue, run, suspect):
                self.counters["held_back"] += 1
                continue
            worker = self.policy.choose(run.needs, suspect)
            if worker is None:
                blocked.add((run.needs, suspect))
                continue
            most = 1
            if not suspect:
                first = run.waiting[suspect][0]
                wanted = self.policy.lease_tasks(worker, run.needs, first.stop - first.start)
                most = min(wanted, worker.free)
            lease = self.ledger.lease(run, most, suspect, worker, now)
            self._hold(worker, run.needs, lease.stop - lease.next)
            queue.granted(run)

    def _hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
        """Change what a worker holds, and every index that depends on it."""
        worker.held += change
        self.policy.hold(worker, needs, change)
        self._touch(worker)

    def _touch(self, worker: WorkerState) -> None:
        """Bring every index up to date that depends on what a worker holds, or may be given."""
        if worker.free > 0:
            self.spare[worker.id] = worker
        else:
            self.spare.pop(worker.id, None)
        if worker.held > worker.slots_taken:
            self.backlogged[worker.id] = worker
        else:
            self.backlogged.pop(worker.id, None)
        self.policy.touch(worker)

    # No worker idle while work waits behind another one

    def _idle(self) -> list[WorkerState]:
        return [w for w in self.spare.values() if w.slots_taken < w.capacity]

    def _recallable(self, worker: WorkerState, idle: list[WorkerState], now: float) -> Lease | None:
        """The newest lease of a worker whose tail somebody idle could take.

        One that was recalled is not asked for again before ``liveness_s``, as long as a silent
        worker would be waited for: then the recall or its answer got lost. It is looked for again
        at the latest with the next heartbeat of whoever holds it.
        """
        for lease in reversed(worker.leases.values()):
            asked_at = lease.recalled_at
            waits = asked_at is not None and now - asked_at < self.limits.liveness_s
            if not waits and lease.stream is None and any(w.offers(*lease.run.needs) for w in idle):
                return lease
        return None

    def _balance(self, now: float) -> None:
        """Look again shortly if somebody is idle while tasks wait in somebody else's hands."""
        if not self.backlogged or ("recall", None) in self.ledger.timers:
            return
        idle = self._idle()
        if idle and any(self._recallable(w, idle, now) for w in self.backlogged.values()):
            self.ledger.timers.set(("recall", None), now + self.limits.recall_after_s)

    def _recall_due(self, _: None, now: float) -> None:
        idle = self._idle()
        for victim in list(self.backlogged.values()):
            lease = self._recallable(victim, idle, now)
            if lease is not None and now - lease.assigned_at >= self.limits.recall_after_s:
                lease.recalled_at = now
                self.counters["recalls"] += 1
                self.ledger.out.append(do.Recall(victim.id, victim.epoch, lease.id))

    # What workers say

    def _joined(self, event: on.WorkerJoined, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None and event.incarnation < worker.incarnation:
            self.counters["stale_joins"] += 1
            return self._disconnect(event.worker, 0, "a newer worker has this name")
        if worker is not None and event.incarnation > worker.incarnation:
            self._drop(worker, "restarted", now, died=True)
            worker = None
        if worker is None:
            if len(self.workers) >= self.limits.workers:
                return self._disconnect(
                    event.worker, 0, f"{self.limits.workers} workers are here already"
                )
            worker = self.workers[event.worker] = WorkerState(event, self._next_epoch, now)
            self._next_epoch += 1
            self.counters["workers_joined"] += 1
            self.policy.join(worker)
            self._touch(worker)
            self.ledger.timers.set(("worker", worker.id), now + self.limits.liveness_s)
        worker.last_seen = now
        heartbeat_s = self.limits.heartbeat_s
        self.ledger.out.append(do.Welcome(worker.id, worker.incarnation, worker.epoch, heartbeat_s))
        return None

    def _heartbeat(self, event: on.WorkerHeartbeat, now: float) -> None:
        worker = self._speaker(event.worker, event.epoch, now)
        if worker is None:
            return
        if event.load != worker.load:
            worker.load = event.load
            self._touch(worker)
        held = set(event.held)
        for id in held - worker.leases.keys():
            self.ledger.out.append(do.Cancel(worker.id, worker.epoch, id))
        for lease in list(worker.leases.values()):
            # A lease that is missing may be on its way there, or its results on their way here:
            # only
            # one that stays missing as long as a silent worker would be trusted has been mislaid.
            if lease.id in held:
                lease.missing_since = None
            elif lease.missing_since is None:
                lease.missing_since = now
            elif now - lease.missing_since > self.limits.liveness_s:
                self.counters["mislaid_leases"] += 1
                self._give_back(lease, lease.next, Cause.RETURNED, "mislaid", now)

    def _finished(self, event: on.TasksFinished, now: float) -> None:
        lease = self._live(event, now)
        start, count = event.start, len(event.outcomes)
        stop = start + count
        if lease is None or not count or start < lease.next or stop > lease.stop:
            self.counters["late_results"] += count
            return
        worker, run = lease.worker, lease.run
        if start > lease.next:
            span = (lease.next, start)
            self.ledger.requeue(lease, span, Cause.RETURNED, "results lost on the way", now)
        if run.stamps is not None and len(run.stamps) == 2:
            run.stamps += (event.started_at, event.ended_at, now)
        busy_s = event.ended_at - event.started_at
        if 0.0 < busy_s < 1e9:  # what no clock can show is not believed
            self.policy.observe(worker, run.needs, count, busy_s)
        done, lease.next = stop - lease.next, stop
        worker.finished += count
        if event.failures or lease.revoked:
            self._settle_each(lease, event, now)
        else:
            self.ledger.finish(lease, start, event.outcomes, now)
        if lease.next == lease.stop:
            self.ledger.close(lease)
        self._hold(worker, run.needs, 0 if lease.stream else -done)

    def _settle_each(self, lease: Lease, event: on.TasksFinished, now: float) -> None:
        """Settle results among which some failed or are not wanted any more, stretch by stretch."""
        failed = {f.position: f for f in event.failures}
        offset = event.start
        wanted = lease.pieces(offset, offset + len(event.outcomes))
        late = len(event.outcomes) - sum(piece.stop - piece.start for piece in wanted)
        late -= self.streams.let_go(lease, event)
        self.counters["late_results"] += late
        for start, stop, _, _ in wanted:
            for position in [*(p for p in range(start, stop) if p in failed), stop]:
                if start < position:
                    results = event.outcomes[start - offset : position - offset]
                    self.ledger.finish(lease, start, results, now)
                if position < stop:
                    self.ledger.fail(lease, failed[position], now)
                start = position + 1

    def _released(self, event: on.TasksReleased, now: float) -> None:
        lease = self._live(event, now)
        if lease is not None and lease.next <= event.start < lease.stop:
            self._give_back(lease, event.start, Cause.RETURNED, "unstarted", now)

    def _give_back(self, lease: Lease, start: int, cause: Cause, detail: str, now: float) -> None:
        """Take the tail of a lease out of its worker's hands."""
        self.ledger.requeue(lease, (start, lease.stop), cause, detail, now)
        change, lease.stop = start - lease.stop, start
        if lease.next == lease.stop:
            self.ledger.close(lease)
        self._hold(lease.worker, lease.run.needs, 0 if lease.stream else change)

    def _draining(self, event: on.WorkerDraining, now: float) -> None:
        worker = self._speaker(event.worker, event.epoch, now)
        if worker is not None and not worker.draining:
            worker.draining = True
            self.policy.leave(worker)
            self._touch(worker)

    def _left(self, event: on.WorkerLeft, now: float) -> None:
        worker = self._speaker(event.worker, event.epoch, now)
        if worker is not None:
            self._drop(worker, event.reason or "left", now, died=False)

    def _lost(self, event: on.WorkerLost, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None:
            self._drop(worker, event.reason, now, died=True)

    def _worker_due(self, name: str, now: float) -> None:
        worker = self.workers[name]
        due = worker.last_seen + self.limits.liveness_s
        if due > now:
            self.ledger.timers.set(("worker", name), due)
        else:
            self._drop(worker, f"silent for {now - worker.last_seen:.3f} s", now, died=True)

    def _drop(self, worker: WorkerState, reason: str, now: float, *, died: bool) -> None:
        self.counters["workers_lost" if died else "workers_left"] += 1
        self.ledger.timers.clear(("worker", worker.id))
        cause = Cause.LOST if died else Cause.RETURNED
        for lease in list(worker.leases.values()):
            self._give_back(lease, lease.next, cause, reason, now)
        if not worker.draining:
            self.policy.leave(worker)
        del self.workers[worker.id]
        self.spare.pop(worker.id, None)
        self.backlogged.pop(worker.id, None)

    def _speaker(self, name: str, epoch: int, now: float) -> WorkerState | None:
        """The worker that speaks, if it speaks under its present epoch; else it is told to join
        again.
        """
        worker = self.workers.get(name)
        if worker is None or worker.epoch != epoch:
            self.counters["stale_messages"] += 1
            self._disconnect(name, epoch, f"epoch {epoch} is over; join again")
            return None
        worker.last_seen = now
        return worker

    def _live(self, event: FromHolder, now: float) -> Lease | None:
        """The lease a worker speaks of, if it is still its own."""
        worker = self._speaker(event.worker, event.epoch, now)
        return worker.leases.get(event.lease) if worker is not None else None

    def _disconnect(self, name: str, epoch: int, reason: str) -> None:
        self.ledger.out.append(do.Disconnect(name, epoch, reason))

    # What operators ask

    def _status_requested(self, event: on.StatusRequested, now: float) -> None:
        self.ledger.out.append(do.Report(event.client, event.request, self.status(now)))

    def _policy_changed(self, event: on.PolicyChanged, now: float) -> None:
        make = self._policies.get(event.policy)
        if make is None:
            error = f"no policy {event.policy!r}; there are {', '.join(sorted(self._policies))}"
            self.ledger.out.append(do.Report(event.client, event.request, None, error))
            return
        self.policy = make()
        for worker in self.workers.values():
            if not worker.draining:
                self.policy.join(worker)
        self.ledger.out.append(do.Report(event.client, event.request, self.status(now)))
