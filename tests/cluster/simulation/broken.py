"""Schedulers with one guarantee taken out each: what the simulator is for is to catch them.

Each says in one line what it does wrong. They are written against the inside of the scheduler on
purpose: a mutation that needs ten lines is one that nobody would make by mistake.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any
from unittest import mock

from msgspec.structs import replace

from cluster.core.backpressure import Backpressure
from cluster.core.clients import Clients, ClientState
from cluster.core.ledger import Ledger
from cluster.core.policy import POLICIES, AssignmentPolicy
from cluster.core.queue import Key, RunQueue
from cluster.core.rangeset import RangeSet
from cluster.core.roster import FromHolder, Roster
from cluster.core.run import Needs, Range, Run
from cluster.core.scheduler import Scheduler
from cluster.core.streams import Streams
from cluster.core.worker import Lease, WorkerState
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.lifecycle import Cause
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import Failure


class Broken(Scheduler):
    """A scheduler made of the parts that a subclass names."""

    Books: type[Ledger] = Ledger
    Desk: type[Clients] = Clients
    Staff: type[Roster] = Roster
    Flow: type[Streams] = Streams

    def __init__(
        self,
        policy: AssignmentPolicy,
        limits: Limits,
        chance: Callable[[], float],
        policies: Mapping[str, Callable[[], AssignmentPolicy]] = POLICIES,
    ) -> None:
        parts = {
            "Ledger": self.Books,
            "Clients": self.Desk,
            "Roster": self.Staff,
            "Streams": self.Flow,
        }
        with mock.patch.multiple("cluster.core.scheduler", **parts):  # type: ignore[arg-type]
            super().__init__(policy, limits, chance, policies)


# Large results


class TakesAskingForHaving(Broken):
    """Ends a task when its client begins to fetch its result."""

    class Flow(Streams):
        def requested(self, event: on.ChunkRequested, now: float) -> None:
            super().requested(event, now)
            place = event.submission, event.position, event.lease
            self.received(on.StreamReceived(event.client, *place), now)


class OffersWhatIsOver(Broken):
    """Offers a large result to its client whatever has become of the task."""

    class Flow(Streams):
        def stored(self, event: on.ResultStored, now: float) -> None:
            super().stored(event, now)
            lease = self._ledger.leases.get(event.lease)
            if lease is not None:
                run, place = lease.run, (event.position, lease.id, event.size_bytes)
                self._ledger.out.append(do.Offer(run.client, run.submission, *place))


# Leases and epochs


class DropsTheEpochCheck(Broken):
    """Listens to whoever uses a worker's name, under whatever epoch."""

    class Staff(Roster):
        def _speaker(self, name: str, epoch: int, now: float) -> WorkerState | None:
            worker = self.workers.get(name)
            return super()._speaker(name, worker.epoch if worker else epoch, now)


class SettlesExpiredLeases(Broken):
    """Takes results from a lease that was given to somebody else meanwhile."""

    class Staff(Roster):
        def live(self, event: FromHolder, now: float) -> Lease | None:
            lease = super().live(event, now)
            self.past: dict[int, Lease] = getattr(self, "past", {}) | dict(self._ledger.leases)
            return lease or self.past.get(event.lease)

    def _finished(self, event: on.TasksFinished, now: float) -> None:
        lease = self.roster.live(event, now)
        if lease is not None and lease.id not in self.ledger.leases:
            self.ledger.finish(lease, event.start, event.outcomes, now)
        else:
            super()._finished(event, now)


class ForgetsToCloseLeases(Broken):
    """Keeps leases of which nothing is left."""

    class Books(Ledger):
        def close(self, lease: Lease) -> None:
            pass


class TrustsThatNothingIsMislaid(Broken):
    """Waits for a lease as long as its worker lives, whatever became of the message."""

    class Staff(Roster):
        def heartbeat(self, event: on.WorkerHeartbeat, now: float) -> None:
            worker = self.workers.get(event.worker)
            leases = [*worker.leases] if worker else []
            super().heartbeat(on.WorkerHeartbeat(event.worker, event.epoch, leases), now)


class IgnoresGapsInResults(Broken):
    """Takes the results after a lost message for all there are."""

    class Staff(Roster):
        def skip(self, lease: Lease, position: int, now: float) -> None:
            with mock.patch.object(self._ledger, "requeue"):
                super().skip(lease, position, now)


class LosesRecalledTails(Broken):
    """Takes back what a worker had not started, and drops it."""

    def _released(self, event: on.TasksReleased, now: float) -> None:
        with mock.patch.object(self.ledger, "requeue"):
            super()._released(event, now)


class RequeuesTwice(Broken):
    """Queues what a lost worker held once more than it was there."""

    class Books(Ledger):
        def requeue(self, lease: Lease, span: tuple[int, int], cause: Cause, *rest: Any) -> None:
            super().requeue(lease, span, cause, *rest)
            if cause is Cause.LOST:
                super().requeue(lease, span, cause, *rest)


class LeasesTheLostToNobody(Broken):
    """Forgets the tasks of a lost worker."""

    class Books(Ledger):
        def requeue(self, lease: Lease, span: tuple[int, int], cause: Cause, *rest: Any) -> None:
            if cause is not Cause.LOST:
                super().requeue(lease, span, cause, *rest)


# Credit and deaths


class ForgetsCredit(Broken):
    """Does not count what it hands out."""

    class Staff(Roster):
        def hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
            super().hold(worker, needs, min(change, 0) if worker.held + change > 3 else change)


class OverdrawsCredit(Broken):
    """Takes each worker for three times as large as it said."""

    class Staff(Roster):
        def joined(self, event: on.WorkerJoined, now: float) -> None:
            super().joined(event, now)
            if event.worker in self.workers:
                self.workers[event.worker].credit = 3 * event.credit


class NeverBuries(Broken):
    """Hands a task that kills workers to one after the other."""

    def __init__(self, policy: AssignmentPolicy, limits: Limits, *rest: Any) -> None:
        super().__init__(policy, replace(limits, deaths=1 << 30), *rest)


class BuriesAtOnce(Broken):
    """Gives a task up when the first worker that held it dies."""

    class Books(Ledger):
        def requeue(self, lease: Lease, span: tuple[int, int], cause: Cause, *rest: Any) -> None:
            deaths, lease.deaths = lease.deaths, self.limits.deaths - 1
            super().requeue(lease, span, cause, *rest)
            lease.deaths = deaths


class RetriesForEver(Broken):
    """Forgets how often a task has failed."""

    class Books(Ledger):
        def fail(self, lease: Lease, failure: Failure, now: float) -> None:
            lease.attempts = 0 if lease.run.retry.max_attempts > 1 else lease.attempts
            super().fail(lease, failure, now)


class ForgetsRetries(Broken):
    """Puts a failed task aside without a timer to bring it back."""

    class Books(Ledger):
        def fail(self, lease: Lease, failure: Failure, now: float) -> None:
            super().fail(lease, failure, now)
            self.timers.clear(("retry", (lease.run.id, failure.position)))


# What clients are told


class IgnoresDuplicateSubmissions(Broken):
    """Takes a repeated message for a new run."""

    class Desk(Clients):
        def submitted(self, event: on.TasksSubmitted, now: float) -> None:
            client = self.by_name.get(event.client)
            if client is not None:
                client.submissions.pop(event.submission, None)
            super().submitted(event, now)


class RestartsWhatIsOver(Broken):
    """Forgets which submissions a client has received, so that a late repeat starts them again."""

    class Desk(Clients):
        def heartbeat(self, event: on.ClientHeartbeat, now: float) -> None:
            super().heartbeat(event, now)
            self.by_name[event.client].over = RangeSet(99)
            self.by_name[event.client].floor = 0


class TakesTheNextForOver(Broken):
    """Takes the submission after one that was received for received as well."""

    class Desk(Clients):
        def _received(self, client: ClientState, submission: int, now: float) -> None:
            super()._received(client, submission, now)
            if submission + 1 not in client.submissions:
                client.over.add(submission + 1)


class WaitsForNobodyToRead(Broken):
    """Goes on for a client however much of its results it has not read."""

    class Books(Ledger):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            self.backpressure = Backpressure(1 << 40)


class NeverResumes(Broken):
    """Leaves a client held back that has read everything."""

    class Books(Ledger):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            self.backpressure.resume = lambda _: None  # type: ignore[method-assign]


class DeliversTwice(Broken):
    """Gives a client every outcome twice, asked or not."""

    class Books(Ledger):
        def finish(self, lease: Lease, start: int, outcomes: list[bytes], now: float) -> None:
            super().finish(lease, start, outcomes, now)
            self.out.append(self.out[-1])


class DeliversLateResults(Broken):
    """Passes results on although their tasks have ended otherwise."""

    def _settle_each(self, lease: Lease, event: on.TasksFinished, now: float) -> None:
        super()._settle_each(lease, event, now)
        for position in lease.revoked or ():
            if 0 <= position - event.start < len(event.outcomes):
                result = event.outcomes[position - event.start]
                run = lease.run
                self.ledger.out.append(do.Deliver(run.client, run.submission, position, [result]))


class NeverRedelivers(Broken):
    """Sends each outcome once, and trusts the network."""

    class Books(Ledger):
        def redeliver(self, run: Run) -> None:
            pass


class MixesUpResults(Broken):
    """Files the results of a message in the wrong order."""

    class Books(Ledger):
        def finish(self, lease: Lease, start: int, outcomes: list[bytes], now: float) -> None:
            super().finish(lease, start, outcomes[::-1], now)


class IgnoresCancels(Broken):
    """Works on although nobody wants it."""

    class Desk(Clients):
        def cancelled(self, event: on.TasksCancelled, now: float) -> None:
            pass


class ForgetsDeadlines(Broken):
    """Accepts a time limit and never looks at it again."""

    class Books(Ledger):
        def accept(self, event: on.TasksSubmitted, *rest: Any) -> Run:
            run = super().accept(event, *rest)
            self.timers.clear(("run", run.id))
            return run


# The order of the queue


class Backwards(RunQueue):
    """The least urgent level first."""

    def _reorder(self) -> None:
        super()._reorder()
        self._order = sorted(self._order, reverse=True)


class ServesLowBeforeHigh(Broken):
    """Takes the priorities the wrong way round."""

    class Books(Ledger):
        def __init__(self, limits: Limits, chance: Callable[[], float], _: Any) -> None:
            super().__init__(limits, chance)
            self.queue = Backwards(limits.bypasses)


class LetsLowStarve(Broken):
    """Serves urgent work first, always."""

    class Books(Ledger):
        def __init__(self, limits: Limits, chance: Callable[[], float], _: Any) -> None:
            super().__init__(limits, chance)
            self.queue = RunQueue(1 << 30)


class LastComeFirstServed(Broken):
    """Serves the newest run of a priority first."""

    class Books(Ledger):
        def accept(self, event: on.TasksSubmitted, *rest: Any) -> Run:
            self._next_run -= 2
            return super().accept(event, *rest)


class OneLine(RunQueue):
    """Suspects and healthy of the same needs wait for one another."""

    def head(self, blocked: AbstractSet[Key]) -> tuple[Run, bool] | None:
        found = super().head(blocked)
        return None if found and (found[0].needs, True) in blocked else found


class LetsSuspectsBlock(Broken):
    """Lets tasks that nobody may take yet hold up those that anybody could."""

    class Books(Ledger):
        def __init__(self, limits: Limits, chance: Callable[[], float], _: Any) -> None:
            super().__init__(limits, chance)
            self.queue = OneLine(limits.bypasses)


class ServesTheNextOneToo(Broken):
    """Leases a task that a neighbour in its run holds already."""

    class Books(Ledger):
        def lease(self, run: Run, *rest: Any) -> Lease:
            lease = super().lease(run, *rest)
            if lease.stop < run.count and not any(run.waiting):
                run.put_back(Range(lease.stop - 1, lease.stop))
            return lease


BROKEN = Broken.__subclasses__()
