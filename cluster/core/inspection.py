"""Looking into a scheduler without touching it: its invariants checked, its state as plain data."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cluster.core.rangeset import as_ranges
from cluster.vocabulary.status import Status, WorkerStatus
from cluster.vocabulary.task import Priority, State

if TYPE_CHECKING:
    from cluster.core.scheduler import Scheduler


def status(scheduler: Scheduler, now: float) -> Status:
    """Counts by state and priority, totals, and every worker."""
    ledger = scheduler.ledger
    queued = {priority.name.lower(): 0 for priority in Priority}
    for run in ledger.queue.runs():
        waiting = [piece for pieces in run.waiting for piece in pieces]
        queued[run.priority.name.lower()] += sum(p.stop - p.start for p in waiting)
    return Status(
        policy=scheduler.policy.name,
        clients=len(scheduler.clients.by_name),
        runs=len(ledger.runs),
        queued=queued,
        assigned=sum(worker.held for worker in scheduler.workers.values()),
        delayed=sum(len(run.delayed or ()) for run in ledger.runs.values()),
        payload_bytes=ledger.payload_bytes,
        retained_bytes=ledger.retained_bytes,
        counters=dict(ledger.counters),
        workers=[
            WorkerStatus(
                worker=worker.id,
                epoch=worker.epoch,
                host=worker.host,
                pid=worker.pid,
                capacity=worker.capacity,
                credit=worker.credit,
                held=worker.held,
                leases=len(worker.leases),
                finished=worker.finished,
                draining=worker.draining,
                silent_s=now - worker.last_seen,
                kinds=sorted(worker.kinds),
                models=sorted(worker.models),
                gpus=worker.gpus,
                load=worker.load,
            )
            for worker in scheduler.workers.values()
        ],
    )


def validate(scheduler: Scheduler) -> None:
    """Check DESIGN's invariants; raises AssertionError that says which is broken and by what."""
    _check_tasks(scheduler)
    _check_leases(scheduler)
    _check_workers(scheduler)
    _check_accounts(scheduler)


def _check_tasks(scheduler: Scheduler) -> None:
    """Each task is queued, waiting for a retry, leased once, or terminal: the ranges partition it.

    That every move was one that TRANSITIONS has need not be checked: ``Run.note`` refuses others.
    """
    leased: dict[int, list[tuple[int, int]]] = {}
    for lease in scheduler.ledger.leases.values():
        pieces = lease.pieces(lease.next, lease.stop)
        leased.setdefault(lease.run.id, []).extend((p.start, p.stop) for p in pieces)
    waiting = {id(run) for run in scheduler.ledger.queue.runs()}
    for run in scheduler.ledger.runs.values():
        terminal = as_ranges(
            p for p, outcome in enumerate(run.outcomes or ()) if outcome is not None
        )
        delayed = [(p, p + 1) for p in run.delayed or ()]
        queued = [(p.start, p.stop) for pieces in run.waiting for p in pieces]
        places = sorted([*terminal, *delayed, *queued, *leased.get(run.id, ())])
        joints = pairwise([(0, 0), *places, (run.count, run.count)])
        whole = all(before[1] == after[0] for before, after in joints)
        assert whole, f"run {run.id} of {run.count} is not partitioned: {places}"
        healthy, suspects = run.waiting
        assert [*healthy] == sorted(healthy), f"run {run.id} is queued out of order"
        assert [*suspects] == sorted(suspects), f"suspects of run {run.id} are queued out of order"
        assert not any(p.deaths for p in healthy), f"run {run.id} takes suspects for healthy"
        assert all(p.deaths for p in suspects), f"run {run.id} suspects the healthy"
        assert not queued or id(run) in waiting, f"run {run.id} is queued but not in the queue"
        done = sum(stop - start for start, stop in terminal)
        assert run.open == run.count - done, f"run {run.id} miscounts what is open"
        for piece in [*healthy, *suspects, *(run.delayed or {}).values()]:
            assert piece.attempts < run.retry.max_attempts, f"run {run.id}: attempts of {piece}"
            assert piece.deaths < scheduler.limits.deaths, f"run {run.id}: deaths of {piece}"


def _check_leases(scheduler: Scheduler) -> None:
    """Each live lease is its worker's, who is here under the lease's epoch, and is not empty."""
    ledger = scheduler.ledger
    for lease in ledger.leases.values():
        worker = lease.worker
        assert scheduler.workers.get(worker.id) is worker, f"lease {lease.id} of a worker not here"
        assert worker.leases.get(lease.id) is lease, f"lease {lease.id} unknown to {worker.id}"
        assert (lease.run.leases or {}).get(lease.id) is lease, (
            f"lease {lease.id} unknown to its run"
        )
        assert lease.next < lease.stop, f"lease {lease.id} is empty but live"
        assert lease.deaths < scheduler.limits.deaths, f"lease {lease.id} should have been buried"
        streamed = lease.stream is None or lease.stream.position <= lease.next
        assert streamed, f"lease {lease.id} streams a result out of turn"
        assert lease.attempts < lease.run.retry.max_attempts, f"lease {lease.id}: attempts"
    held = sum(len(worker.leases) for worker in scheduler.workers.values())
    assert held == len(ledger.leases), "a worker holds a lease that is not live"
    for run in ledger.runs.values():
        kept = (run.leases or {}).keys()
        assert kept <= ledger.leases.keys(), f"run {run.id} keeps a lease that is over"


def _check_workers(scheduler: Scheduler) -> None:
    """What a worker holds is what its leases say, within its credit; the indexes agree."""
    for worker in scheduler.workers.values():
        leases = worker.leases.values()
        held = sum(lease.stop - lease.next for lease in leases if lease.stream is None)
        assert worker.held == held, f"{worker.id} holds {held}, counted {worker.held}"
        assert worker.held <= worker.credit, f"{worker.id} holds more than its credit"
        keeping = sum(1 for lease in leases if lease.stream is not None)
        assert worker.keeping == keeping, f"{worker.id} keeps the results of {keeping} leases"
        suspects = sum(1 for lease in worker.leases.values() if lease.deaths)
        assert worker.suspects == suspects <= 1, f"{worker.id} has {suspects} suspects"
    spare = {worker.id for worker in scheduler.workers.values() if worker.free > 0}
    assert scheduler.spare.keys() == spare, "the index of spare workers is wrong"
    backlogged = {w.id for w in scheduler.workers.values() if w.held > w.slots_taken}
    assert scheduler.backlogged.keys() == backlogged, "the index of backlogged workers is wrong"


def _check_accounts(scheduler: Scheduler) -> None:
    """Totals equal what they total, and stay within their bounds."""
    ledger, limits = scheduler.ledger, scheduler.limits
    runs = ledger.runs.values()
    assert ledger.open_tasks == sum(run.open for run in runs) <= limits.tasks, "open tasks"
    payload = sum(run.payload_bytes for run in runs)
    assert ledger.payload_bytes == payload <= limits.payload_bytes, "payload bytes"
    assert ledger.retained_bytes == sum(run.retained_bytes for run in runs), "retained bytes"
    known = sum(len(client.submissions) for client in scheduler.clients.by_name.values())
    assert known == len(ledger.runs), "a run belongs to no client"
    most = limits.submissions_per_client
    for client in scheduler.clients.by_name.values():
        assert len(client.submissions) <= most, f"{client.id} has too many submissions open"
        assert len(client.over) <= most + 1, f"{client.id}: what is over takes too much room"
    assert len(scheduler.clients.by_name) <= limits.clients, "clients"
    assert len(scheduler.workers) <= limits.workers, "workers"
    counts = ledger.counters
    ended = counts["done"] + sum(
        counts[s] for s in (State.FAILED, State.CANCELLED, State.DEAD_LETTERED)
    )
    assert counts["accepted"] == ended + ledger.open_tasks, "a task has vanished or multiplied"
