"""The core: who works on what, without a socket, a clock or a thread.

Events and their times go in, actions come out. The ZeroMQ loop, the simulator and the property
tests drive this same class. It schedules ranges of runs (run.py), so its cost is per lease and per
message; only a failure, a cancel or a death of one task splits a range.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from cluster.core import inspection
from cluster.core.administration import Administration
from cluster.core.clients import Clients
from cluster.core.hosts import Hosts
from cluster.core.ledger import Ledger, Timer
from cluster.core.policy import POLICIES, AssignmentPolicy
from cluster.core.queue import Key, RunQueue
from cluster.core.roster import Roster
from cluster.core.run import Entry, Streamed
from cluster.core.streams import Streams
from cluster.core.unserved import ROUND, Unserved
from cluster.core.worker import OVERRUN, Lease, WorkerState
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.lifecycle import Cause
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import TaskId

#: the timers that end in a verdict about peers that may have spoken
VERDICTS = frozenset({"worker", "client", "host", "overrun", "gap", "unserved"})


class Scheduler:
    """Decide what happens to tasks.

    ``chance`` returns floats uniform in [0, 1) for the jitter of retries. An event that makes no
    sense any more (a stale epoch, a closed lease) is counted in ``counters`` and changes nothing.
    """

    def __init__(
        self,
        policy: AssignmentPolicy,
        limits: Limits,
        chance: Callable[[], float],
        policies: Mapping[str, Callable[[], AssignmentPolicy]] = POLICIES,
        queue: Callable[[int], RunQueue] = RunQueue,
    ) -> None:
        self.limits = limits
        self.ledger = Ledger(limits, chance, queue)
        self.clients = Clients(self.ledger)
        self.roster = Roster(self.ledger, policy)
        self.hosts = Hosts(self.ledger, self.roster)
        self.unserved = Unserved(self.ledger, self.roster)
        self.streams = Streams(self.ledger, self.roster, self.clients)
        self.workers = self.roster.workers
        self.administration = Administration(
            self.ledger, self.roster, self.clients, self.hosts, policies
        )
        #: when this was called last, and how late a call must be to count as a pause
        self._called_at = math.inf
        self._pause_s = limits.liveness_s / 4
        self._behind_since: float | None = None
        self._is_draining = False
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            on.TasksSubmitted: self.clients.submitted,
            on.TasksCancelled: self.clients.cancelled,
            on.ClientHeartbeat: self.clients.heartbeat,
            on.ClientLeft: self.clients.left,
            on.StatusRequested: self.administration.status_requested,
            on.PolicyChanged: self.administration.policy_changed,
            on.ModelsRequested: self.administration.models_requested,
            on.LeaveRequested: self.administration.leave_requested,
            on.TasksRequested: self.administration.tasks_requested,
            on.StoryRequested: self.administration.story_requested,
            on.CancelRequested: self.administration.cancel_requested,
            on.ChunkRequested: self.streams.requested,
            on.StreamReceived: self.streams.received,
            on.WorkerJoined: self._joined,
            on.WorkerHeartbeat: self.roster.heartbeat,
            on.TasksFinished: self._finished,
            on.TasksReleased: self._released,
            on.WorkerDraining: self.roster.draining,
            on.WorkerLeft: self.roster.left,
            on.WorkerOffers: self._offers,
            on.ResultStored: self.streams.stored,
            on.ChunkRead: self.streams.read,
            on.HostReported: self.hosts.reported,
            on.HostLeft: self.hosts.left,
            on.WorkerUnreachable: self.roster.unreachable,
        }
        self._timers: dict[str, Callable[[Any, float], None]] = {
            "run": self.ledger.run_due,
            "retry": self.ledger.retry_due,
            "client": self.clients.due,
            "worker": self.roster.due,
            "host": self.hosts.due,
            "lost": self.roster.lost.forget,
            "recall": self._recall_due,
            "overrun": self._overrun_due,
            "gap": self._gap_due,
            "unserved": self.unserved.due,
        }

    @property
    def counters(self) -> Counter[str]:
        """How often each thing has happened since the start."""
        return self.ledger.counters

    @property
    def policy(self) -> AssignmentPolicy:
        """The policy that chooses workers now."""
        return self.roster.policy

    def handle(self, event: on.Event, now: float) -> list[do.Action]:
        """Take in one event; return what to do about it, in order."""
        if now - self._called_at > self._pause_s:
            self._forgive(now)
        self._called_at = now
        self._handlers[type(event)](event, now)
        return self._act(now)

    def deadline(self) -> float | None:
        """When `handle_timer` wants to run next; None while no timer is set."""
        return self.ledger.timers.next_due()

    def handle_timer(self, now: float, *, behind: bool = False) -> list[do.Action]:
        """Do what is due at ``now``.

        ``behind`` says that messages wait unread: a peer that seems silent may have spoken, so it
        is judged later, but not later than after ``liveness_s`` of being behind.
        """
        if now - self._called_at > self._pause_s:
            self._forgive(now)
        self._called_at = now
        may_judge, timers = self._may_judge(now, behind=behind), self.ledger.timers
        put_off: list[Timer] = []
        while (timer := timers.pop(now)) is not None:
            if may_judge or timer[0] not in VERDICTS:
                self._timers[timer[0]](timer[1], now)
            else:
                put_off.append(timer)
        for timer in put_off:
            timers.set(timer, now + self.limits.heartbeat_s / 4)
        return self._act(now)

    def _forgive(self, now: float) -> None:
        """Grant a pause of this process to all peers: nothing they sent meanwhile was heard."""
        due = self.deadline()
        if due is not None and now - due > self._pause_s:
            self.counters["pauses"] += 1
            for part in (self.roster, self.clients, self.hosts, self.unserved):
                part.grant(now - self._called_at)

    def _may_judge(self, now: float, *, behind: bool) -> bool:
        if not behind:
            self._behind_since = None
            return True
        if self._behind_since is None:
            self._behind_since = now
        return now - self._behind_since > self.limits.liveness_s

    def drain(self) -> None:
        """Accept nothing more and begin nothing more; what workers hold may end."""
        self._is_draining = self.clients.is_closing = True

    def dismiss(self) -> list[do.Action]:
        """Tell every client what will have no outcome, because this ends. What is handed in again
        gets no answer, so that it reaches the next scheduler.
        """
        self.clients.dismiss()
        self._handlers[on.TasksSubmitted] = lambda event, now: None
        out, self.ledger.out = self.ledger.out, []
        return out

    def shrink(self) -> bool:
        """Release the memory that tables have grown to; False while there is any task.

        A dict that has been large stays so until it is cleared. A worker may still hold a lease of
        a run that is forgotten.
        """
        if self.ledger.runs or self.ledger.leases:
            return False
        self.ledger.shrink()
        self.clients.shrink()
        return True

    def story(self, task: TaskId) -> list[Entry]:
        """What happened to one task, in order; empty when its run is unknown or forgotten."""
        return self.ledger.story(task)

    def status(self, now: float) -> Status:
        """How the cluster is, as plain data."""
        return self.administration.status(now)

    def validate(self) -> None:
        """Check every invariant; raises AssertionError that names the one that is broken."""
        inspection.validate(self.ledger, self.roster, self.clients)

    def _act(self, now: float) -> list[do.Action]:
        self._assign(now)
        self._balance(now)
        out, self.ledger.out = self.ledger.out, []
        return out

    def _assign(self, now: float) -> None:
        """Lease out what waits, in the queue's order, until nothing more fits anywhere."""
        queue, backpressure, roster = self.ledger.queue, self.ledger.backpressure, self.roster
        if self._is_draining:
            return
        if queue.held_back:
            backpressure.resume(queue)
        blocked: set[Key] = set()
        while roster.spare and (head := queue.head(blocked)) is not None:
            run, suspect = head
            full = backpressure.total_bytes >= backpressure.half_bytes
            if full and backpressure.is_over(run.client):
                queue.hold_back(run.client)
                self.counters["held_back"] += 1
                continue
            policy = roster.policy
            worker = policy.choose(run.needs, suspect)
            if worker is None:
                blocked.add((run.needs, suspect))
                continue
            most = 1
            if not suspect:
                first = run.waiting[suspect][0]
                wanted = policy.lease_tasks(worker, run.needs, first.stop - first.start)
                most = min(wanted, worker.free)
            lease = self.ledger.lease(run, most, suspect, worker, now)
            roster.hold(worker, run.needs, lease.stop - lease.next)
            queue.granted(run)
        if queue.order and ROUND not in self.ledger.timers:
            self.ledger.timers.set(ROUND, now + self.unserved.period_s)

    def _balance(self, now: float) -> None:
        """Set a timer if a worker is idle while tasks wait behind another one."""
        roster = self.roster
        if not roster.backlogged or not roster.idle or ("recall", None) in self.ledger.timers:
            return
        if any(self._recallable(worker, now) for worker in roster.backlogged.values()):
            self.ledger.timers.set(("recall", None), now + self.limits.recall_after_s)

    def _recall_due(self, _: None, now: float) -> None:
        for victim in list(self.roster.backlogged.values()):
            lease = self._recallable(victim, now)
            if lease is not None and now - lease.assigned_at >= self.limits.recall_after_s:
                lease.recalled_at = now
                self.counters["recalls"] += 1
                self.ledger.out.append(do.Recall(victim.id, victim.epoch, lease.id))

    def _recallable(self, worker: WorkerState, now: float) -> Lease | None:
        """A worker's newest lease whose tail an idle one could take.

        A lease that was recalled less than ``liveness_s`` ago is passed over; after that the recall
        or its answer must have been lost.
        """
        for lease in reversed(worker.leases.values()):
            asked_at = lease.recalled_at
            waits = asked_at is not None and now - asked_at < self.limits.liveness_s
            if not waits and lease.stream is None:
                needs = lease.run.needs
                if any(other.offers(*needs) for other in self.roster.idle.values()):
                    return lease
        return None

    def _joined(self, event: on.WorkerJoined, now: float) -> None:
        self.roster.joined(event, now)
        self._offered(event.worker)

    def _offers(self, event: on.WorkerOffers, now: float) -> None:
        self.roster.offers(event, now)
        self._offered(event.worker)

    def _offered(self, name: str) -> None:
        if (worker := self.workers.get(name)) is not None:
            self.unserved.offered(worker)

    def _finished(self, event: on.TasksFinished, now: float) -> None:
        lease = self.roster.live(event, now)
        if lease is None:
            self.counters["late_results"] += len(event.outcomes)
            return
        self._take(lease, event, now)
        if lease.early:
            self._catch_up(lease, now)

    def _take(self, lease: Lease, event: on.TasksFinished, now: float) -> None:
        """Settle the next tasks of a lease."""
        start, count = event.start, len(event.outcomes)
        stop = start + count
        if not count or start < lease.next or stop > lease.stop:
            self.counters["late_results"] += count
            return
        if start > lease.next:
            self.roster.keep(lease, start, event, now)
            return
        self.roster.measured(lease, event, count, now)
        lease.next = stop
        lease.worker.finished += count
        if event.failures or lease.revoked:
            self._settle_each(lease, event, now)
        else:
            self.ledger.finish(lease, start, event.outcomes, now)
        if stop == lease.stop:
            self.ledger.close(lease)
        self.roster.hold(lease.worker, lease.run.needs, 0 if lease.stream else -count)

    def _catch_up(self, lease: Lease, now: float) -> None:
        """Take the reports that came early, up to the next gap."""
        while lease.early and (first := min(lease.early)) <= lease.next:
            event = lease.early.pop(first)
            if isinstance(event, on.TasksFinished):
                self._take(lease, event, now)
            else:
                self.streams.take(lease, event, now)
        if not lease.early:
            self.ledger.timers.clear(("gap", lease.id))

    def _gap_due(self, id: int, now: float) -> None:
        """Give up what is missing before the reports that came early."""
        lease = self.ledger.leases.get(id)
        if lease is None or not lease.early:
            return
        if (first := min(lease.early)) > lease.next:
            self.roster.skip(lease, first, now)
        self._catch_up(lease, now)
        if lease.early:
            self.ledger.timers.set(("gap", id), now + self.limits.heartbeat_s)

    def _overrun_due(self, place: tuple[int, int], now: float) -> None:
        """Have a worker killed that still runs a task whose time limit has passed."""
        id, position = place
        lease = self.ledger.leases.get(id)
        if lease is None:
            return
        worker, wait_s = lease.worker, self.limits.overrun_s
        is_stuck = (
            lease.next == position and position in (lease.revoked or ()) and not worker.goodbye
        )
        if is_stuck and worker.runs(lease) and worker.supervisor is not None:
            wait_s = self.limits.liveness_s  # the order may get lost
            self.roster.bar(worker, OVERRUN, now)
            self.ledger.counters["kills"] += 1
            reason = f"task {position} of run {lease.run.id} did not end in time"
            kill = do.Kill(worker.supervisor, worker.id, worker.pid, reason)
            self.ledger.out.append(kill)
        self.ledger.timers.set(("overrun", (id, lease.next)), now + wait_s)

    def _settle_each(self, lease: Lease, event: on.TasksFinished, now: float) -> None:
        """Settle results range by range, since some failed or were revoked."""
        failed = {f.position: f for f in event.failures}
        offset, end = event.start, event.start + len(event.outcomes)
        wanted = lease.pieces(offset, end)
        # The placeholder of a streamed result is not late.
        streamed = sum(isinstance(lease.run.outcome(p), Streamed) for p in range(offset, end))
        on_time = sum(piece.stop - piece.start for piece in wanted)
        self.counters["late_results"] += end - offset - on_time - streamed
        for start, stop, _, _ in wanted:
            for position in [*(p for p in range(start, stop) if p in failed), stop]:
                if start < position:
                    results = event.outcomes[start - offset : position - offset]
                    self.ledger.finish(lease, start, results, now)
                if position < stop:
                    self.ledger.fail(lease, failed[position], now)
                start = position + 1

    def _released(self, event: on.TasksReleased, now: float) -> None:
        lease = self.roster.live(event, now)
        if lease is not None and lease.next <= event.start < lease.stop:
            self.roster.give_back(lease, event.start, Cause.RETURNED, "unstarted", now)
