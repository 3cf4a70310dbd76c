"""Schedulers with one guarantee taken out each: the simulator exists to catch them.

Each is one method of the core replaced by a function that gets the real one first, and says in one
line what it does wrong. They reach into the core on purpose: a mutation that needs ten lines is one
that nobody would make by mistake.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from functools import partial, wraps
from typing import Any
from unittest import mock

from msgspec.structs import replace

from cluster.core.administration import Administration
from cluster.core.clients import Clients, ClientState
from cluster.core.hosts import Hosts
from cluster.core.ledger import Ledger, Span
from cluster.core.lost import LostWorkers
from cluster.core.queue import Backpressure, Key, RunQueue
from cluster.core.rangeset import RangeSet
from cluster.core.roster import Roster
from cluster.core.run import Needs, Range, Run
from cluster.core.scheduler import Scheduler
from cluster.core.streams import Streams
from cluster.core.unserved import Unserved
from cluster.core.worker import Lease, WorkerState
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.lifecycle import Cause
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import Failure

#: by name, a context in which the core is broken
BROKEN: dict[str, Callable[[], AbstractContextManager[Any]]] = {}
Real = Callable[..., Any]


def breaks(owner: type, method: str) -> Callable[[Real], Real]:
    """Enter a function in BROKEN that is called with the real method and its arguments."""

    def enter(function: Real) -> Real:
        real = getattr(owner, method)

        @wraps(function)
        def broken(*arguments: Any, **named: Any) -> Any:
            return function(real, *arguments, **named)

        BROKEN[function.__name__] = lambda: mock.patch.object(owner, method, broken)
        return function

    return enter


# Methods that do nothing

for name, owner, method in (
    ("forgets_to_close_leases", Ledger, "close"),
    ("ignores_cancels", Clients, "cancelled"),
    ("never_redelivers", Ledger, "redeliver"),
    ("ignores_new_offers", Roster, "offers"),
    ("ignores_operators_who_cancel", Administration, "cancel_requested"),
    ("never_resumes", Backpressure, "resume"),
):
    BROKEN[name] = partial(mock.patch.object, owner, method, lambda *_: 0)


# Large results


@breaks(Streams, "requested")
def takes_asking_for_having(
    real: Real, streams: Streams, event: on.ChunkRequested, now: float
) -> None:
    """Ends a task when its client begins to fetch its result."""
    real(streams, event, now)
    place = event.submission, event.position, event.lease
    streams.received(on.StreamReceived(event.client, *place), now)


@breaks(Streams, "stored")
def offers_finished_results(
    real: Real, streams: Streams, event: on.ResultStored, now: float
) -> None:
    """Offers a large result to its client even if the task has ended."""
    real(streams, event, now)
    lease = streams._ledger.leases.get(event.lease)
    if lease is not None:
        run, place = lease.run, (event.position, lease.id, event.size_bytes)
        streams._ledger.out.append(do.Offer(run.client, run.submission, *place))


# Leases and epochs


@breaks(Roster, "_speaker")
def drops_the_epoch_check(real: Real, roster: Roster, name: str, epoch: int, now: float) -> Any:
    """Accepts messages under a worker's name from every epoch."""
    worker = roster.workers.get(name)
    return real(roster, name, worker.epoch if worker else epoch, now)


@breaks(Scheduler, "_finished")
def settles_expired_leases(
    real: Real, scheduler: Scheduler, event: on.TasksFinished, now: float
) -> None:
    """Takes results from a lease that has passed to another worker."""
    past: dict[int, Lease] = scheduler.__dict__.setdefault("past", {})
    past |= scheduler.ledger.leases
    lease = past.get(event.lease)
    if lease is not None and lease.id not in scheduler.ledger.leases:
        scheduler.ledger.finish(lease, event.start, event.outcomes, now)
    else:
        real(scheduler, event, now)


@breaks(Roster, "heartbeat")
def trusts_that_nothing_is_mislaid(
    real: Real, roster: Roster, event: on.WorkerHeartbeat, now: float
) -> None:
    """Waits for a lost lease while its worker lives."""
    worker = roster.workers.get(event.worker)
    leases = [*worker.leases] if worker else []
    real(roster, on.WorkerHeartbeat(event.worker, event.epoch, leases), now)


@breaks(Roster, "skip")
def ignores_gaps_in_results(real: Real, roster: Roster, *rest: Any) -> None:
    """Forgets the tasks whose results were in a lost message."""
    with mock.patch.object(roster._ledger, "requeue"):
        real(roster, *rest)


@breaks(Scheduler, "_released")
def loses_recalled_tails(real: Real, scheduler: Scheduler, *rest: Any) -> None:
    """Forgets the tasks that a worker gave back."""
    with mock.patch.object(scheduler.ledger, "requeue"):
        real(scheduler, *rest)


@breaks(Ledger, "requeue")
def requeues_twice(
    real: Real, ledger: Ledger, lease: Lease, span: Span, cause: Cause, *rest: Any
) -> None:
    """Queues the tasks of a lost worker twice."""
    for _ in range(1 + (cause is Cause.LOST)):
        real(ledger, lease, span, cause, *rest)


@breaks(Ledger, "requeue")
def leases_the_lost_to_nobody(
    real: Real, ledger: Ledger, lease: Lease, span: Span, cause: Cause, *rest: Any
) -> None:
    """Forgets the tasks of a lost worker."""
    if cause is not Cause.LOST:
        real(ledger, lease, span, cause, *rest)


# Who is dead


@breaks(Roster, "due")
def takes_silence_for_death(real: Real, roster: Roster, name: str, now: float) -> None:
    """Counts a death for each task of a silent worker."""
    worker = roster.workers[name]
    if worker.alive_at + roster.limits.liveness_s > now:
        real(roster, name, now)
    else:
        roster._died(worker, "silent", now)


@breaks(LostWorkers, "died")
def forgets_deaths_that_are_told_late(
    real: Real, lost: LostWorkers, name: str, reason: str, now: float
) -> None:
    """Counts a death only if it is told before the silence."""
    lost.forget(name)


@breaks(Roster, "unreachable")
def gives_up_workers_that_cannot_be_reached(
    real: Real, roster: Roster, event: on.WorkerUnreachable, now: float
) -> None:
    """Drops a worker at once when a message can't be sent to it."""
    worker = roster.workers.get(event.worker)
    if worker is not None:
        roster._died(worker, "unreachable", now)


@breaks(Hosts, "reported")
def hears_no_supervisor(real: Real, hosts: Hosts, event: on.HostReported, now: float) -> None:
    """Trusts in heartbeats alone."""


@breaks(Scheduler, "_overrun_due")
def lets_overrun_tasks_run(
    real: Real, scheduler: Scheduler, place: tuple[int, int], now: float
) -> None:
    """Waits for a task that never ends."""


@breaks(Scheduler, "_forgive")
def forgives_no_pause(real: Real, scheduler: Scheduler, now: float) -> None:
    """Takes its own pause for everybody's silence."""


@breaks(Scheduler, "_may_judge")
def judges_while_messages_wait(
    real: Real, scheduler: Scheduler, now: float, *, behind: bool
) -> bool:
    """Takes a worker for silent whose messages it has not read."""
    return True


# Credit and deaths


@breaks(Roster, "hold")
def forgets_credit(
    real: Real, roster: Roster, worker: WorkerState, needs: Needs, change: int
) -> None:
    """Does not count all tasks that it leases."""
    real(roster, worker, needs, min(change, 0) if worker.held + change > 3 else change)


@breaks(Roster, "joined")
def overdraws_credit(real: Real, roster: Roster, event: on.WorkerJoined, now: float) -> None:
    """Takes each worker for three times as large as it said."""
    real(roster, event, now)
    if event.worker in roster.workers:
        roster.workers[event.worker].credit = 3 * event.credit


@breaks(Ledger, "__init__")
def never_buries(real: Real, ledger: Ledger, limits: Limits, *rest: Any) -> None:
    """Leases a task that kills workers again and again."""
    real(ledger, replace(limits, deaths=1 << 30), *rest)


@breaks(LostWorkers, "_count")
def buries_at_once(real: Real, lost: LostWorkers, *rest: Any) -> None:
    """Gives a task up when the first worker that held it dies."""
    ledger = lost._ledger
    limits, ledger.limits = ledger.limits, replace(ledger.limits, deaths=1)
    real(lost, *rest)
    ledger.limits = limits


@breaks(Ledger, "fail")
def retries_for_ever(real: Real, ledger: Ledger, lease: Lease, *rest: Any) -> None:
    """Forgets how often a task has failed."""
    lease.attempts = 0 if lease.run.retry.max_attempts > 1 else lease.attempts
    real(ledger, lease, *rest)


@breaks(Ledger, "fail")
def forgets_retries(real: Real, ledger: Ledger, lease: Lease, failure: Failure, now: float) -> None:
    """Sets a failed task aside without a timer to bring it back."""
    real(ledger, lease, failure, now)
    ledger.timers.clear(("retry", (lease.run.id, failure.position)))


# What clients are told


@breaks(Clients, "submitted")
def ignores_duplicate_submissions(
    real: Real, clients: Clients, event: on.TasksSubmitted, now: float
) -> None:
    """Takes a repeated message for a new run."""
    client = clients.by_name.get(event.client)
    if client is not None:
        client.submissions.pop(event.submission, None)
    real(clients, event, now)


@breaks(Clients, "heartbeat")
def restarts_finished_submissions(
    real: Real, clients: Clients, event: on.ClientHeartbeat, now: float
) -> None:
    """Forgets which submissions a client has received, so that a late repeat starts them again."""
    real(clients, event, now)
    clients.by_name[event.client].over = RangeSet(99)
    clients.by_name[event.client].floor = 0


@breaks(Clients, "_received")
def takes_the_next_for_over(
    real: Real, clients: Clients, client: ClientState, submission: int, now: float
) -> None:
    """Takes the submission after one that was received for received as well."""
    real(clients, client, submission, now)
    if submission + 1 not in client.submissions:
        client.over.add(submission + 1)


@breaks(Backpressure, "is_over")
def ignores_backpressure(real: Real, backpressure: Backpressure, client: str) -> bool:
    """Goes on for a client that acknowledges nothing."""
    return False


@breaks(Ledger, "finish")
def delivers_twice(real: Real, ledger: Ledger, *rest: Any) -> None:
    """Sends every outcome twice, requested or not."""
    real(ledger, *rest)
    ledger.out.append(ledger.out[-1])


@breaks(Scheduler, "_settle_each")
def delivers_late_results(
    real: Real, scheduler: Scheduler, lease: Lease, event: on.TasksFinished, now: float
) -> None:
    """Passes results on although their tasks have ended otherwise."""
    real(scheduler, lease, event, now)
    for position in lease.revoked or ():
        if 0 <= position - event.start < len(event.outcomes):
            place = lease.run.client, lease.run.submission, position
            result = event.outcomes[position - event.start]
            scheduler.ledger.out.append(do.Deliver(*place, [result]))


@breaks(Ledger, "redeliver")
def redelivers_without_a_bound(real: Real, ledger: Ledger, run: Run, most_bytes: int) -> int:
    """Sends everything again for one reminder."""
    sent: int = real(ledger, run, 1 << 30)
    return sent


@breaks(Unserved, "due")
def leaves_the_unserved_waiting(real: Real, unserved: Unserved, _: Any, now: float) -> None:
    """Says nothing to a client whose tasks nobody serves."""


@breaks(Unserved, "_unserved_since")
def takes_busy_workers_for_absent(
    real: Real, unserved: Unserved, needs: Needs, now: float
) -> float | None:
    """Gives tasks up that wait for a busy worker."""
    return unserved._found.setdefault(needs, unserved._since.get(needs, now))


@breaks(Ledger, "accept")
def forgets_patience(real: Real, ledger: Ledger, *rest: Any) -> Any:
    """Gives tasks up whose client wants to wait for a worker."""
    run = real(ledger, *rest)
    run.is_patient = False
    return run


@breaks(Ledger, "finish")
def mixes_up_results(
    real: Real, ledger: Ledger, lease: Lease, start: int, outcomes: list[bytes], now: float
) -> None:
    """Files the results of a message in the wrong order."""
    real(ledger, lease, start, outcomes[::-1], now)


@breaks(Ledger, "accept")
def forgets_deadlines(real: Real, ledger: Ledger, *rest: Any) -> Any:
    """Accepts a time limit and never looks at it again."""
    run = real(ledger, *rest)
    ledger.timers.clear(("run", run.id))
    return run


# Operators and offers


@breaks(Roster, "offers")
def takes_older_offers_for_newer(
    real: Real, roster: Roster, event: on.WorkerOffers, now: float
) -> None:
    """Believes the offers that came last, whichever are newer."""
    if (worker := roster.workers.get(event.worker)) is not None:
        worker.revision = 0
    real(roster, event, now)


@breaks(Roster, "dismiss")
def goes_on_with_a_dismissed_worker(
    real: Real, roster: Roster, name: str, pid: int, *, again: bool
) -> str:
    """Gives work to a worker that an operator wants to leave."""
    why_not: str = real(roster, name, pid, again=again)
    if (worker := roster.workers.get(name)) is not None and worker.orders.get(do.Drain):
        worker.draining = False
        roster.policy.join(worker)
        roster.touch(worker)
    return why_not


# The order of the queue


@breaks(RunQueue, "_reorder")
def serves_low_before_high(real: Real, queue: RunQueue) -> None:
    """Takes the priorities the wrong way round."""
    real(queue)
    queue.order = sorted(queue.order, reverse=True)


@breaks(RunQueue, "granted")
def lets_one_client_take_all(real: Real, queue: RunQueue, run: Run) -> None:
    """Serves the client that came first until it has no more."""
    turn = queue._turns[run.priority][run.client]
    real(queue, run)
    queue._turns[run.priority][run.client] = turn


@breaks(RunQueue, "__init__")
def lets_low_starve(real: Real, queue: RunQueue, bypasses: int) -> None:
    """Serves urgent work first, always."""
    real(queue, 1 << 30)


@breaks(Ledger, "accept")
def last_come_first_served(real: Real, ledger: Ledger, *rest: Any) -> Any:
    """Serves the newest run of a priority first."""
    ledger._next_run -= 2
    return real(ledger, *rest)


@breaks(RunQueue, "head")
def lets_suspects_block(real: Real, queue: RunQueue, blocked: AbstractSet[Key]) -> Any:
    """Lets suspects that no worker may take yet block healthy tasks."""
    found = real(queue, blocked)
    return None if found and (found[0].needs, True) in blocked else found


@breaks(Ledger, "lease")
def serves_the_next_one_too(real: Real, ledger: Ledger, run: Run, *rest: Any) -> Any:
    """Leases a task that is in its neighbour's lease already."""
    lease = real(ledger, run, *rest)
    if lease.stop < run.count and not any(run.waiting):
        run.put_back(Range(lease.stop - 1, lease.stop))
    return lease
