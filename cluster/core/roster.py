"""The workers: who is here, what each holds, who has room and who has too much.

Every change of what a worker holds goes through `Roster`, which keeps its indexes and the policy.
"""

from __future__ import annotations

import math
from collections.abc import Set
from typing import TypeAlias

from cluster.core.ledger import Ledger
from cluster.core.lost import LostWorkers
from cluster.core.policy import AssignmentPolicy
from cluster.core.run import Needs
from cluster.core.worker import NO_ROUTE, BatchTotals, Lease, Report, WorkerState
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.lifecycle import Cause
from cluster.vocabulary.limits import SLOW_LINE
from cluster.vocabulary.printable import count_of
from cluster.vocabulary.task import ProcessState

#: models that operators want loaded, or unloaded, at once
MAX_WANTED = 1_024
FromHolder: TypeAlias = Report | on.TasksReleased | on.ChunkRead


class Roster:
    """All workers, by name.

    A worker that stays silent too long is lost, and its tasks are queued again. It has died only if
    its supervisor says that its process ended, or if a newer process has its name.
    """

    def __init__(self, ledger: Ledger, policy: AssignmentPolicy) -> None:
        self.policy = policy
        self.workers: dict[str, WorkerState] = {}
        #: workers with credit left
        self.spare: dict[str, WorkerState] = {}
        #: those of them that have a slot without work
        self.idle: dict[str, WorkerState] = {}
        #: workers with tasks that wait for a slot
        self.backlogged: dict[str, WorkerState] = {}
        #: the models that workers are wanted to load, or not to, whatever they were started with
        self._load: frozenset[str] = frozenset()
        self._unload: frozenset[str] = frozenset()
        self.batches = BatchTotals(ledger.counters)
        self._ledger = ledger
        self.lost = LostWorkers(ledger)
        self.limits = ledger.limits
        self._next_epoch = 1

    def joined(self, event: on.WorkerJoined, now: float) -> None:
        """Admit a worker under a new epoch, recognise a repeat, or send it away with a reason."""
        worker = self.workers.get(event.worker)
        if worker is not None and event.incarnation != worker.incarnation:
            if reason := self._why_refused(worker, event, now):
                self._ledger.counters["stale_joins"] += 1
                self._disconnect(event.worker, 0, reason)
                return
            self._died(worker, "restarted", now)
            worker = None
        if is_new := worker is None:
            self._meet_again(event, now)
            if len(self.workers) >= self.limits.workers:
                reason = f"there is room for {count_of(self.limits.workers, 'worker')} only"
                self._disconnect(event.worker, 0, reason)
                return
            epoch = max(self._next_epoch, event.epoch + 1)
            worker = self.workers[event.worker] = WorkerState(event, epoch, now)
            self._next_epoch = epoch + 1
            self._ledger.counters["workers_joined"] += 1
            self.policy.join(worker)
            self.touch(worker)
            self._ledger.timers.set(("worker", worker.id), now + self.limits.liveness_s)
        if worker.barred == NO_ROUTE:  # this message shows a new one
            worker.barred = ""
            self.touch(worker)
        worker.last_seen = now
        period_s = self.limits.heartbeat_s
        self._ledger.out.append(do.Welcome(worker.id, worker.incarnation, worker.epoch, period_s))
        if is_new:
            self._want(worker, self._load, self._unload)

    def heartbeat(self, event: on.WorkerHeartbeat, now: float) -> None:
        """Compare the leases that a worker has with those that it should have."""
        worker = self._speaker(event.worker, event.epoch, now)
        if worker is None:
            return
        if event.load != worker.load:
            before = [card.gpu for card in worker.cards]
            worker.load = event.load
            if before != [card.gpu for card in worker.cards]:
                self.policy.offers_changed(worker)
            self.touch(worker)
        if worker.barred == NO_ROUTE and now - worker.barred_at > self.limits.heartbeat_s:
            # It lives, so its way to work is broken: it finds another one by joining again.
            self._drop(worker, NO_ROUTE, now, Cause.RETURNED)
            self._disconnect(worker.id, worker.epoch, "there is no route to you; join again")
            return
        self._ledger.out += worker.orders.values()  # they may have got lost
        worker.said_held = event.held
        if worker.take_wants(event.wants, event.credit):
            self.touch(worker)
        self.batches.add(worker, event.batches)
        held = set(event.held)
        for id in held - worker.leases.keys():
            self._ledger.out.append(do.Cancel(worker.id, worker.epoch, id))
        late: list[tuple[float, Lease]] = []
        for lease in worker.leases.values():
            if lease.id in held:
                lease.missing_since = None
            elif lease.missing_since is None:
                lease.missing_since = now
            elif (missing_s := now - lease.missing_since) > self.limits.liveness_s:
                late.append((missing_s, lease))
        # They or their results may be on the way, which takes a while on a slow line.
        way_s = self.limits.liveness_s + sum(x.payload_bytes for _, x in late) / SLOW_LINE
        for missing_s, lease in late:
            if missing_s > way_s:
                self._ledger.counters["mislaid_leases"] += 1
                self.give_back(lease, lease.next, Cause.RETURNED, "mislaid", now)

    def draining(self, event: on.WorkerDraining, now: float) -> None:
        """Give a worker nothing more."""
        worker = self._speaker(event.worker, event.epoch, now)
        if worker is not None:
            worker.orders.pop(do.Drain, None)
            self._drain(worker)

    def offers(self, event: on.WorkerOffers, now: float) -> None:
        """Take in what a worker offers from now on. Leases of what it has given up end as it
        reports.
        """
        worker = self._speaker(event.worker, event.epoch, now)
        if worker is None:
            return
        if event.heard >= worker.serves:
            worker.orders.pop(do.Serve, None)
        if event.revision > worker.revision:
            worker.revision, worker.trouble = event.revision, event.trouble
            worker.kinds, worker.models = frozenset(event.kinds), frozenset(event.models)
            worker.batches = event.batches
            self.policy.offers_changed(worker)
            self.touch(worker)
        self._ledger.out.append(do.Acknowledge(worker.id, worker.epoch, event.revision))

    def want(self, load: set[str], unload: set[str]) -> str:
        """Have all workers load and unload models, and those that join later; returns why not."""
        wanted = (self._load - unload) | load, (self._unload - load) | unload
        if max(map(len, wanted)) > MAX_WANTED:
            return f"operators want more than {MAX_WANTED} models loaded, or unloaded"
        self._load, self._unload = wanted
        for worker in self.workers.values():
            if not worker.draining:
                worker.wanted -= load  # so it is ordered, as a file of it may have changed
                self._want(worker, load, unload)
        return ""

    def dismiss(self, name: str, pid: int, *, again: bool) -> str:
        """Have a worker's process leave, and if ``again`` its supervisor start another one; returns
        why not.
        """
        worker = self.workers.get(name)
        if worker is None or worker.pid != pid:
            return ""
        order: do.Drain | do.Restart = do.Drain(worker.id, worker.epoch)
        if again and worker.supervisor is None:
            return f"worker {name!r} has no supervisor, so nothing would start it again; drain it"
        if again and worker.supervisor is not None:
            order = do.Restart(worker.supervisor, worker.id, worker.pid)
        worker.orders[do.Drain] = order
        self._ledger.out.append(order)
        self._drain(worker)
        return ""

    def left(self, event: on.WorkerLeft, now: float) -> None:
        """Let a worker go that left in order, and queue its tasks again. With tasks, it waits for
        ``heartbeat_s``: they may have been reported on another connection.
        """
        lost = self.lost.find(event.worker)
        if lost is not None and lost.epoch == event.epoch:
            self.lost.forget(event.worker)
        worker = self._speaker(event.worker, event.epoch, now)
        if worker is not None:
            self._part(worker, event.reason or "left", now)

    def unreachable(self, event: on.WorkerUnreachable, now: float) -> None:
        """Take back the leases that could not be sent to a worker, and give it nothing more.

        It may have said goodbye in a message that is not read yet, so this is no verdict.
        """
        worker = self.workers.get(event.worker)
        if worker is None:
            return
        self.bar(worker, NO_ROUTE, now)
        for lease in [worker.leases[id] for id in event.leases if id in worker.leases]:
            self.give_back(lease, lease.next, Cause.RETURNED, "it was not sent", now)

    def seen(self, host: str, name: str, pid: int, state: ProcessState, now: float) -> None:
        """Take in what the supervisor ``host`` sees of a worker's process."""
        is_over = state in (ProcessState.KILLED, ProcessState.GONE)
        worker = self.workers.get(name)
        if worker is not None and worker.pid == pid and worker.supervisor in (None, host):
            if not is_over:
                worker.supervisor = host
                worker.vouched_at = now if state is ProcessState.RUNNING else -math.inf
            elif worker.goodbye or (state is ProcessState.KILLED and not worker.is_doomed):
                self._part(worker, "ended in order", now)
            else:
                self._died(worker, "its process ended", now)
        elif is_over and (lost := self.lost.find(name)) is not None and lost.pid == pid:
            if state is ProcessState.GONE:
                self.lost.died(name, "its process ended", now)
            self.lost.forget(name)

    def bar(self, worker: WorkerState, reason: str, now: float) -> None:
        """Give a worker nothing more."""
        if not worker.barred:
            worker.barred, worker.barred_at = reason, now
            self.touch(worker)

    def due(self, name: str, now: float) -> None:
        """Drop a worker that has left, or has been silent for too long and nobody vouches for."""
        worker = self.workers[name]
        due = worker.alive_at + self.limits.liveness_s
        if worker.goodbye:
            due = worker.last_seen + self.limits.heartbeat_s
        if due > now:
            self._ledger.timers.set(("worker", name), due)
        elif worker.goodbye:
            self._left(worker, worker.goodbye, now)
        else:
            self._lose(worker, f"silent for {now - worker.last_seen:.3f} s", now)

    def grant(self, pause_s: float) -> None:
        """Move forward what was seen before a pause of this process: it was not their silence."""
        for worker in self.workers.values():
            worker.last_seen += pause_s
            worker.vouched_at += pause_s
            for lease in worker.leases.values():
                if lease.missing_since is not None:
                    lease.missing_since += pause_s

    def live(self, event: FromHolder, now: float) -> Lease | None:
        """The lease that a worker's message is about, if the worker still holds it."""
        worker = self._speaker(event.worker, event.epoch, now)
        return worker.leases.get(event.lease) if worker is not None else None

    def switch(self, policy: AssignmentPolicy) -> None:
        """Let another policy choose from now on."""
        self.policy = policy
        for worker in self.workers.values():
            if not worker.draining:
                policy.join(worker)

    # What a worker holds

    def hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
        """Change how many tasks a worker holds."""
        worker.held += change
        self.policy.hold(worker, needs, change)
        self.touch(worker)

    def touch(self, worker: WorkerState) -> None:
        """Bring every index up to date after a change of one worker."""
        taken = worker.slots_taken
        if worker.free > 0:
            self.spare[worker.id] = worker
        else:
            self.spare.pop(worker.id, None)
        if taken < worker.capacity and worker.id in self.spare:
            self.idle[worker.id] = worker
        else:
            self.idle.pop(worker.id, None)
        if worker.held > taken:
            self.backlogged[worker.id] = worker
        else:
            self.backlogged.pop(worker.id, None)
        self.policy.touch(worker)

    def keep(self, lease: Lease, position: int, event: Report, now: float) -> None:
        """Keep a report that has come before an earlier one: a worker's connections are in no
        order. After ``heartbeat_s`` what is missing counts as lost.
        """
        lease.early = lease.early or {}
        lease.early[position] = event
        self._ledger.counters["early_reports"] += 1
        gap = "gap", lease.id
        if gap not in self._ledger.timers:
            self._ledger.timers.set(gap, now + self.limits.heartbeat_s)

    def skip(self, lease: Lease, position: int, now: float) -> None:
        """Requeue the tasks of a lease before ``position``, whose results were lost on the way."""
        span = (lease.next, position)
        self._ledger.requeue(lease, span, Cause.RETURNED, "results lost on the way", now)
        lease.next = position
        self.hold(lease.worker, lease.run.needs, 0 if lease.stream else span[0] - position)

    def give_back(self, lease: Lease, start: int, cause: Cause, detail: str, now: float) -> None:
        """Requeue the tail of a lease, from ``start`` on."""
        self._ledger.requeue(lease, (start, lease.stop), cause, detail, now)
        change, lease.stop = start - lease.stop, start
        if lease.next == lease.stop:
            self._ledger.close(lease)
        self.hold(lease.worker, lease.run.needs, 0 if lease.stream else change)

    def measured(self, lease: Lease, event: Report, tasks: int, now: float) -> None:
        """Note how long ``tasks`` tasks took: in the run's trace, and for the policy."""
        run = lease.run
        if run.stamps is not None and len(run.stamps) == 2:
            run.stamps += (event.started_at, event.ended_at, now)
        busy_s = event.ended_at - event.started_at
        if 0.0 < busy_s < 1e9:  # no clock can show anything else
            lease.worker.service.add(tasks, busy_s)
            self.policy.observe(lease.worker, run.needs, tasks, busy_s)

    def _drain(self, worker: WorkerState) -> None:
        """Give a worker nothing more."""
        if not worker.draining:
            worker.draining = True
            self.policy.leave(worker)
            self.touch(worker)

    def _want(self, worker: WorkerState, load: Set[str], unload: Set[str]) -> None:
        before, worker.wanted = worker.wanted, (worker.wanted - unload) | load
        if not before == worker.wanted == worker.models:
            worker.serves += 1
            order = do.Serve(worker.id, worker.epoch, sorted(worker.wanted), worker.serves)
            worker.orders[do.Serve] = order
            self._ledger.out.append(order)

    def _why_refused(self, here: WorkerState, event: on.WorkerJoined, now: float) -> str:
        """Why a process may not take the name of a worker that is here; "" if it may."""
        is_other = (here.host, here.pid) != (event.host, event.pid)
        is_here = not here.goodbye and now - here.alive_at < self.limits.liveness_s
        if is_other and is_here:
            place = f"process {here.pid} on {here.host}"
            return f"another worker of this name is alive: {place}; choose another name"
        return "a newer worker has this name" if event.incarnation < here.incarnation else ""

    def _meet_again(self, event: on.WorkerJoined, now: float) -> None:
        """A lost worker has come back, or has died if a newer process has its name."""
        lost = self.lost.find(event.worker)
        if lost is not None and event.incarnation > lost.incarnation:
            self.lost.died(event.worker, "restarted", now)
        self.lost.forget(event.worker)

    def _part(self, worker: WorkerState, reason: str, now: float) -> None:
        """Let a worker go whose process ends in order, once its last reports had time to come."""
        if not worker.goodbye:
            worker.goodbye, worker.last_seen = reason, now
            self._drain(worker)
            self._ledger.timers.set(("worker", worker.id), now + self.limits.heartbeat_s)
        if not worker.leases:
            self._left(worker, worker.goodbye, now)

    def _left(self, worker: WorkerState, reason: str, now: float) -> None:
        self._ledger.counters["workers_left"] += 1
        self._drop(worker, reason, now, Cause.RETURNED)

    def _died(self, worker: WorkerState, reason: str, now: float) -> None:
        if worker.is_doomed or worker.goodbye:
            self._left(worker, worker.goodbye or "killed", now)
            return
        self._lose(worker, reason, now)
        self.lost.died(worker.id, reason, now)

    def _lose(self, worker: WorkerState, reason: str, now: float) -> None:
        """Queue the tasks of a worker again, and remember which they were."""
        self._ledger.counters["workers_lost"] += 1
        if not worker.is_doomed:
            self.lost.add(worker, now)
        self._drop(worker, reason, now, Cause.LOST)

    def _drop(self, worker: WorkerState, reason: str, now: float, cause: Cause) -> None:
        self._ledger.timers.clear(("worker", worker.id))
        for lease in list(worker.leases.values()):
            self.give_back(lease, lease.next, cause, reason, now)
        if not worker.draining:
            self.policy.leave(worker)
        del self.workers[worker.id]
        for index in (self.spare, self.idle, self.backlogged):
            index.pop(worker.id, None)

    def _speaker(self, name: str, epoch: int, now: float) -> WorkerState | None:
        """The worker that sent a message; one under a past epoch is told to join again."""
        worker = self.workers.get(name)
        if worker is None or worker.epoch != epoch:
            self._ledger.counters["stale_messages"] += 1
            self._disconnect(name, epoch, f"epoch {epoch} is over; join again")
            return None
        worker.last_seen = now
        return worker

    def _disconnect(self, name: str, epoch: int, reason: str) -> None:
        self._ledger.out.append(do.Disconnect(name, epoch, reason))
