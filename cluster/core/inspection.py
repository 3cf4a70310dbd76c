"""Looking into a scheduler without touching it: its invariants checked, its state as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from heapq import nlargest

from cluster.core.clients import Clients
from cluster.core.hosts import Hosts
from cluster.core.ledger import Ledger
from cluster.core.rangeset import as_ranges
from cluster.core.roster import Roster
from cluster.core.run import Run
from cluster.core.worker import WorkerState
from cluster.vocabulary.status import HostStatus, KindStatus, Status, WorkerStatus
from cluster.vocabulary.task import Priority, State

#: the kinds in a status
MAX_KINDS = 1_024


def status(ledger: Ledger, roster: Roster, clients: Clients, hosts: Hosts, now: float) -> Status:
    """Counts by state and priority, totals, and every worker."""
    waiting = dict(zip((p.name.lower() for p in Priority), queued(ledger), strict=True))
    workers = roster.workers.values()
    return Status(
        policy=roster.policy.name,
        clients=len(clients.by_name),
        runs=len(ledger.runs),
        queued=waiting,
        assigned=sum(worker.held for worker in workers),
        delayed=sum(ledger.delayed),
        payload_bytes=ledger.payload_bytes,
        retained_bytes=ledger.retained_bytes,
        counters=ledger.counters,
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
                wanted=sorted(worker.wanted),
                trouble=worker.trouble,
                service_s_p50=worker.service.quantile_s(0.50),
                service_s_p99=worker.service.quantile_s(0.99),
                supervisor=worker.supervisor or "",
                offers=worker.revision,
            )
            for worker in workers
        ],
        hosts=[
            HostStatus(
                host=name,
                workers=len(host.report.workers),
                restarts=host.report.restarts,
                silent_s=now - host.last_seen,
                trouble=host.report.trouble,
            )
            for name, host in hosts.by_name.items()
        ],
        kinds=_kinds(ledger, workers),
        batches=roster.batches.shown(),
    )


def queued(ledger: Ledger) -> list[int]:
    """By priority, how many tasks wait for a worker; O(leases)."""
    waiting = [open - delayed for open, delayed in zip(ledger.open, ledger.delayed, strict=True)]
    for lease in ledger.leases.values():
        for piece in lease.pieces(lease.next, lease.stop):
            waiting[lease.run.priority] -= piece.stop - piece.start
    return waiting


def _kinds(ledger: Ledger, workers: Iterable[WorkerState]) -> list[KindStatus]:
    """Each kind that has tasks or is offered, by name; O(leases + what workers offer)."""
    offered = Counter(kind for worker in workers if worker.is_taking for kind in worker.kinds)
    assigned = Counter[str]()
    for lease in ledger.leases.values():
        pieces = lease.pieces(lease.next, lease.stop)
        assigned[lease.run.needs[0]] += sum(piece.stop - piece.start for piece in pieces)
    tasks = +ledger.open_by_kind
    names = {**tasks, **offered}
    shown = names if len(names) <= MAX_KINDS else nlargest(MAX_KINDS, names, key=tasks.__getitem__)
    return [
        KindStatus(kind, tasks[kind] - assigned[kind], assigned[kind], offered[kind])
        for kind in sorted(shown)
    ]


def validate(ledger: Ledger, roster: Roster, clients: Clients) -> None:
    """Check DESIGN's invariants; raises AssertionError that says which is broken and by what."""
    _check_tasks(ledger)
    _check_leases(ledger, roster)
    _check_workers(roster)
    _check_totals(ledger)
    _check_clients(ledger, clients)


def _check_tasks(ledger: Ledger) -> None:
    """Each task is queued, waiting for a retry, leased once, or terminal: the ranges partition it.

    Transitions need no check here: ``Run.note`` refuses those that TRANSITIONS lacks.
    """
    leased: dict[int, list[tuple[int, int]]] = {}
    for lease in ledger.leases.values():
        pieces = lease.pieces(lease.next, lease.stop)
        leased.setdefault(lease.run.id, []).extend([piece[:2] for piece in pieces])
    queue = {id(run) for run in ledger.queue.runs()}
    for run in ledger.runs.values():
        waiting = [piece[:2] for piece in (*run.waiting[0], *run.waiting[1])]
        terminal = _terminal(run)
        delayed = [(p, p + 1) for p in run.delayed or ()]
        places = sorted([*terminal, *delayed, *waiting, *leased.get(run.id, ())])
        whole = [p[0] for p in places] + [run.count] == [0] + [p[1] for p in places]
        assert whole, f"run {run.id} of {run.count} is not partitioned: {places}"
        assert not waiting or id(run) in queue, f"run {run.id} is queued but not in the queue"
        done = sum([stop - start for start, stop in terminal])
        assert run.open == run.count - done, f"run {run.id} miscounts its open tasks"
        if waiting or delayed:
            _check_waiting(run, ledger.limits.deaths)


def _terminal(run: Run) -> list[tuple[int, int]]:
    """The ranges of a run's tasks that have ended."""
    outcomes = run.outcomes or []
    if None not in outcomes:
        return [(0, len(outcomes))] if outcomes else []
    return as_ranges(p for p, outcome in enumerate(outcomes) if outcome is not None)


def _check_waiting(run: Run, most_deaths: int) -> None:
    """The waiting tasks of a run are in order, suspects by themselves, and have attempts left."""
    healthy, suspects = run.waiting
    assert [*healthy] == sorted(healthy), f"run {run.id} is queued out of order"
    assert [*suspects] == sorted(suspects), f"suspects of run {run.id} are queued out of order"
    assert not any(p.deaths for p in healthy), f"run {run.id} takes suspects for healthy"
    assert all(p.deaths for p in suspects), f"run {run.id} suspects the healthy"
    for piece in [*healthy, *suspects, *(run.delayed or {}).values()]:
        assert piece.attempts < run.retry.max_attempts, f"run {run.id}: attempts of {piece}"
        assert piece.deaths < most_deaths, f"run {run.id}: deaths of {piece}"


def _check_leases(ledger: Ledger, roster: Roster) -> None:
    """Each live lease has tasks, and its worker and its run know it."""
    for lease in ledger.leases.values():
        worker, run = lease.worker, lease.run
        assert roster.workers.get(worker.id) is worker, f"lease {lease.id} of a worker not here"
        assert worker.leases.get(lease.id) is lease, f"lease {lease.id} unknown to {worker.id}"
        assert lease.id in (run.leases or ()), f"lease {lease.id} unknown to its run"
        assert lease.next < lease.stop, f"lease {lease.id} is empty but live"
        assert lease.deaths < ledger.limits.deaths, f"lease {lease.id} should have been buried"
        in_turn = lease.stream is None or lease.stream.position <= lease.next
        assert in_turn, f"lease {lease.id} streams a result out of turn"
        assert lease.attempts < run.retry.max_attempts, f"lease {lease.id}: attempts"
    held = sum(len(worker.leases) for worker in roster.workers.values())
    assert held == len(ledger.leases), "a worker holds a lease that is not live"
    for run in ledger.runs.values():
        live = (run.leases or set()) <= ledger.leases.keys()
        assert live, f"run {run.id} has a lease that is not live"


def _check_workers(roster: Roster) -> None:
    """Each worker's counts agree with its leases and stay within its credit; the indexes agree."""
    workers = roster.workers.values()
    for worker in workers:
        leases = worker.leases.values()
        held = sum(lease.stop - lease.next for lease in leases if lease.stream is None)
        assert worker.held == held, f"{worker.id} holds {held}, counted {worker.held}"
        assert worker.held <= worker.credit, f"{worker.id} holds more than its credit"
        streaming = sum(lease.stream is not None for lease in leases)
        assert worker.streaming == streaming, f"{worker.id} streams results of {streaming} leases"
        suspects = sum(lease.deaths > 0 for lease in leases)
        assert worker.suspects == suspects <= 1, f"{worker.id} has {suspects} suspects"
    spare = {worker.id: worker for worker in workers if worker.free > 0}
    assert roster.spare.keys() == spare.keys(), "the index of spare workers is wrong"
    idle = {id for id, worker in spare.items() if worker.slots_taken < worker.capacity}
    assert roster.idle.keys() == idle, "the index of idle workers is wrong"
    backlogged = {worker.id for worker in workers if worker.held > worker.slots_taken}
    assert roster.backlogged.keys() == backlogged, "the index of backlogged workers is wrong"
    assert len(workers) <= roster.limits.workers, "workers"


def _check_totals(ledger: Ledger) -> None:
    """Totals equal what they total, and stay within their bounds."""
    runs, counts = ledger.runs.values(), ledger.counters
    opened, waits, delayed = ([0] * len(Priority) for _ in range(3))
    by_kind = Counter[str]()
    payload = retained = 0
    for run in runs:
        level = run.priority
        opened[level] += run.open
        delayed[level] += len(run.delayed or ())
        for pieces in run.waiting:
            for piece in pieces:
                waits[level] += piece.stop - piece.start
        by_kind[run.needs[0]] += run.open
        payload += run.payload_bytes
        retained += run.retained_bytes
    assert ledger.open_tasks == sum(ledger.open) <= ledger.limits.tasks, "open tasks"
    assert ledger.open == opened, "open tasks by priority"
    assert queued(ledger) == waits, "queued tasks"
    assert ledger.delayed == delayed, "delayed"
    assert +ledger.open_by_kind == +by_kind, "open tasks by kind"
    assert ledger.payload_bytes == payload <= ledger.limits.payload_bytes, "payload bytes"
    assert ledger.retained_bytes == retained, "retained bytes"
    ends = State.DONE, State.FAILED, State.CANCELLED, State.DEAD_LETTERED
    ended = sum(counts[state] for state in ends)
    assert counts["accepted"] == ended + ledger.open_tasks, "a task has vanished or multiplied"


def _check_clients(ledger: Ledger, clients: Clients) -> None:
    """Each run is one client's submission, and no client has more than its share."""
    known = sum(len(client.submissions) for client in clients.by_name.values())
    assert known == len(ledger.runs), "a run belongs to no client"
    most = ledger.limits.submissions_per_client
    for client in clients.by_name.values():
        assert len(client.submissions) <= most, f"{client.id} has too many submissions open"
        assert len(client.over) <= most + 1, f"{client.id} has too many ranges of submissions over"
    assert len(clients.by_name) <= ledger.limits.clients, "clients"
