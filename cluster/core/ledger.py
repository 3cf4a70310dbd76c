"""The ledger of tasks: every accepted task is in it once, queued, under one lease, or terminal.

It moves ranges through TRANSITIONS and keeps totals and stories. The scheduler decides which worker
gets a lease.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from cluster.core.queue import Backpressure, RunQueue
from cluster.core.rangeset import as_ranges
from cluster.core.run import (
    NOTHING,
    Entry,
    Outcome,
    Past,
    Range,
    Received,
    Run,
    Streamed,
    as_text,
    pack,
    unpack,
)
from cluster.core.timers import Timers
from cluster.core.worker import Lease, WorkerState
from cluster.vocabulary import actions as do
from cluster.vocabulary.events import TasksSubmitted
from cluster.vocabulary.lifecycle import Cause
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.printable import count_of
from cluster.vocabulary.task import Failure, Priority, RunId, State, TaskId

Timer: TypeAlias = tuple[str, Any]
#: positions ``start <= p < stop`` of a run
Span: TypeAlias = tuple[int, int]
V = TypeVar("V", bound=Hashable)
CANCELLED = Failure(0, "Cancelled", "cancelled", State.CANCELLED)
#: bound once: in Python 3.11 reaching an enum member costs as much as writing a story's entry
QUEUED, ASSIGNED = State.QUEUED, State.ASSIGNED
TO_ASSIGN, TO_FINISH = Cause.ASSIGNED, Cause.FINISHED
#: more than a codec puts around one outcome
OUTCOME_FRAME_BYTES = 64
#: kinds without tasks that are kept in a table, since they come again
KINDS_KEPT = 64
#: at this many interned values all are forgotten
MAX_INTERNED = 4_096


def weight(outcome: bytes | Failure) -> int:
    """Bytes that an outcome takes up in a message, with its frame."""
    if isinstance(outcome, Failure):
        return len(outcome.error) + len(outcome.message) + OUTCOME_FRAME_BYTES
    return len(outcome) + OUTCOME_FRAME_BYTES


class Ledger:
    """Runs, leases and undelivered results. Actions to take are appended to ``out``."""

    def __init__(
        self,
        limits: Limits,
        chance: Callable[[], float],
        queue: Callable[[int], RunQueue] = RunQueue,
    ) -> None:
        self.limits = limits
        self.out: list[do.Action] = []
        self.counters: Counter[str] = Counter()
        self.timers: Timers[Timer] = Timers()
        self.queue = queue(limits.bypasses)
        self.runs: dict[RunId, Run] = {}
        self.leases: dict[int, Lease] = {}
        #: finished and received runs, packed, for their stories
        self.history: deque[bytes] = deque(maxlen=limits.history_runs)
        #: by priority, the tasks that are not terminal, and of those the ones that wait for a retry
        self.open, self.delayed = [0] * len(Priority), [0] * len(Priority)
        self.open_tasks = 0
        #: by kind, the tasks that are not terminal
        self.open_by_kind: Counter[str] = Counter()
        #: payload bytes of runs with open tasks
        self.payload_bytes = 0
        self.backpressure = Backpressure(limits.retained_bytes)
        #: bound of one delivery: a character of a failure may take four bytes
        self._delivery_bytes = limits.message_bytes // 4
        self._entries = limits.story_entries
        self._chance = chance
        self._interned: dict[Any, Any] = {}
        self._next_run = 1
        self._next_lease = 1

    @property
    def leases_granted(self) -> int:
        """How many leases there have been."""
        return self._next_lease - 1

    @property
    def retained_bytes(self) -> int:
        """Bytes of outcomes that their clients have not acknowledged."""
        return self.backpressure.total_bytes

    def full(self, tasks: int, payload_bytes: int) -> str | None:
        """Which bound a submission of this size would break, in words; None when there is room."""
        limits, retained_bytes = self.limits, self.backpressure.total_bytes
        if self.open_tasks + tasks > limits.tasks:
            return f"open: {count_of(self.open_tasks, 'task')}, of at most {limits.tasks}"
        if self.payload_bytes + payload_bytes > limits.payload_bytes:
            return f"payloads hold {self.payload_bytes} bytes, of at most {limits.payload_bytes}"
        if retained_bytes > limits.retained_bytes:
            waiting = f"{retained_bytes} bytes of results wait to be received"
            return f"{waiting}, of at most {limits.retained_bytes}"
        return None

    def accept(self, event: TasksSubmitted, payload_bytes: int, now: float) -> Run:
        """Take a run in: each of its tasks will have exactly one outcome."""
        run = Run(self._next_run, event, now)
        run.needs, run.retry = self._intern(run.needs), self._intern(run.retry)
        self._next_run += 1
        self.runs[run.id] = run
        self._count_open(run, run.count)
        self.payload_bytes += payload_bytes
        self.counters["accepted"] += run.count
        self.out.append(do.Accept(run.client, run.submission, run.id))
        if run.due_at is not None:
            self.timers.set(("run", run.id), run.due_at)
        self.queue.push(run)
        return run

    def _intern(self, value: V) -> V:
        """One object for equal values: a peer repeats the same few in every message."""
        if len(self._interned) >= MAX_INTERNED:
            self._interned.clear()
        interned: V = self._interned.setdefault(value, value)
        return interned

    def lease(self, run: Run, most: int, suspect: bool, worker: WorkerState, now: float) -> Lease:
        """Give a worker at most ``most`` healthy or suspect tasks from the front of a run."""
        piece = run.take(most, suspect)
        start, stop = piece.start, piece.stop
        lease = Lease(self._next_lease, run, worker, now, start, stop, piece.attempts, piece.deaths)
        self._next_lease += 1
        self.leases[lease.id] = worker.leases[lease.id] = lease
        if run.leases is None:
            run.leases = {lease.id}
        else:
            run.leases.add(lease.id)
        if lease.deaths:
            worker.suspects += 1
        run.note(QUEUED, TO_ASSIGN, start, stop, worker.id, now, self._entries)
        if run.stamps is not None and len(run.stamps) == 1:
            run.stamps.append(now)
        column = run.payloads
        payloads = column[start:stop] if isinstance(column, list) else [column]
        kind = run.needs[0]
        left_s = None if run.due_at is None else run.due_at - now
        self.out.append(do.Assign(worker.id, worker.epoch, lease.id, kind, start, payloads, left_s))
        return lease

    def close(self, lease: Lease) -> None:
        """End a lease that has no tasks left."""
        del self.leases[lease.id]
        del lease.worker.leases[lease.id]
        assert lease.run.leases is not None
        lease.run.leases.remove(lease.id)
        if lease.deaths:
            lease.worker.suspects -= 1
        if lease.stream is not None:
            lease.worker.streaming -= 1

    def finish(self, lease: Lease, start: int, outcomes: list[bytes], now: float) -> None:
        """Settle a range of a lease with its results, and deliver them."""
        run, stop = lease.run, start + len(outcomes)
        run.note(ASSIGNED, TO_FINISH, start, stop, lease.worker.id, now, self._entries)
        self.counters["done"] += len(outcomes)
        size_bytes = sum(map(len, outcomes))
        self._settle(run, start, outcomes, size_bytes)
        if size_bytes + OUTCOME_FRAME_BYTES * len(outcomes) <= self._delivery_bytes:
            self._send(run, start, outcomes, [])
        else:
            self._deliver(run, start, stop)

    def finish_streamed(self, lease: Lease, now: float) -> None:
        """Settle the first task of a lease, whose result its client has fetched."""
        run, position = lease.run, lease.next
        run.note(ASSIGNED, TO_FINISH, position, position + 1, lease.worker.id, now, self._entries)
        self.counters["done"] += 1
        self._settle(run, position, [Streamed(lease.id)], 0)
        self.confirm(run, position, lease.id)

    def confirm(self, run: Run, position: int, lease: int) -> None:
        """Tell a client that the result it has fetched is the outcome."""
        stamps = run.stamps if run.stamps is not None and len(run.stamps) == 5 else []
        self.out.append(do.Confirm(run.client, run.submission, position, lease, stamps))

    def fail(self, lease: Lease, failure: Failure, now: float) -> None:
        """Retry a failed task after a wait, or settle it at its last attempt."""
        run, position, attempts = lease.run, failure.position, lease.attempts + 1
        failure = Failure(position, failure.error, failure.message)  # its state is not the worker's
        detail = f"{failure.error} on {lease.worker.id}"
        if attempts >= run.retry.max_attempts:
            self.end_piece(run, ASSIGNED, Cause.FAILED, (position, position + 1), failure, now)
            return
        self.counters["retried"] += 1
        run.note(ASSIGNED, Cause.RETRIED, position, position + 1, detail, now, self._entries)
        self.delayed[run.priority] += 1
        run.delayed = run.delayed or {}
        run.delayed[position] = Range(position, position + 1, attempts, lease.deaths)
        due = now + run.retry.wait_s(attempts, self._chance())
        self.timers.set(("retry", (run.id, position)), due)

    def retry_due(self, task: tuple[RunId, int], now: float) -> None:
        """Queue a failed task again."""
        run = self.runs[task[0]]
        assert run.delayed is not None
        self.delayed[run.priority] -= 1
        run.put_back(run.delayed.pop(task[1]))
        self.queue.push(run)

    def requeue(self, lease: Lease, span: Span, cause: Cause, detail: str, now: float) -> None:
        """Queue a range of a lease again."""
        run, detail = lease.run, f"{lease.worker.id}: {detail}"
        self.counters[cause.value] += span[1] - span[0]
        for piece in lease.pieces(*span):
            run.note(ASSIGNED, cause, piece.start, piece.stop, detail, now, self._entries)
            run.put_back(piece)
        self.queue.push(run)

    def bury(self, run: Run, state: State, piece: Range, last: str, now: float) -> None:
        """Dead-letter a range of tasks with their story, whose ``last`` line is given."""
        message = as_text(self.story(TaskId(run.id, piece.start)), f"{now:.3f} {last}")
        buried = Failure(0, "DeadLettered", message, State.DEAD_LETTERED)
        self.end_piece(run, state, Cause.BURIED, piece[:2], buried, now)

    def end(self, run: Run, span: Span, cause: Cause, failure: Failure, now: float) -> None:
        """Settle the open tasks of positions ``span`` as ``failure``, and tell their workers."""
        for state, piece in self.withdraw(run, span):
            self.end_piece(run, state, cause, piece[:2], failure, now)

    def withdraw(self, run: Run, span: Span) -> Iterator[tuple[State, Range]]:
        """Take the open tasks of positions ``span`` from where they are, and yield their state and
        range: from the queue, from the wait for a retry, from their workers.
        """
        if not run.open:
            return
        for piece in run.withdraw(*span):
            yield QUEUED, piece
        for position in [p for p in run.delayed or () if span[0] <= p < span[1]]:
            assert run.delayed is not None
            self.timers.clear(("retry", (run.id, position)))
            self.delayed[run.priority] -= 1
            yield QUEUED, run.delayed.pop(position)
        for lease in [self.leases[id] for id in sorted(run.leases or ())]:
            pieces = lease.pieces(max(span[0], lease.next), min(span[1], lease.stop))
            positions = [p for piece in pieces for p in range(piece.start, piece.stop)]
            if not positions:
                continue
            lease.revoked = (lease.revoked or set()).union(positions)
            if (due := self.timers.due(("run", run.id))) is not None:
                self._watch(lease, due)  # it may never end
            worker = lease.worker
            self.out.append(do.Cancel(worker.id, worker.epoch, lease.id, positions))
            for piece in pieces:
                yield ASSIGNED, piece

    def run_due(self, id: RunId, now: float) -> None:
        """Fail the open tasks of a run whose time limit has passed."""
        run = self.runs[id]
        waited_s = now - run.accepted_at
        late = Failure(0, "TimedOut", f"no result within {waited_s:.3f} s", State.FAILED)
        self.end(run, (0, run.count), Cause.TIMED_OUT, late, now)
        for lease in [self.leases[id] for id in run.leases or ()]:
            self._watch(lease, now)

    def _watch(self, lease: Lease, due: float) -> None:
        """See a little after a time limit whether a worker still runs the task that it is about."""
        overrun = ("overrun", (lease.id, lease.next))
        self.timers.set(overrun, due + self.limits.overrun_s)

    def redeliver(self, run: Run, most_bytes: int) -> int:
        """Deliver the outcomes again that the client has not acknowledged, from the first on, until
        ``most_bytes`` are reached; returns how many bytes that were.
        """
        assert run.outcomes is not None
        self.counters["redelivered"] += 1
        size_bytes, settled = 0, list[int]()
        for position, outcome in enumerate(run.outcomes):
            if outcome is None or isinstance(outcome, Received):
                continue
            if isinstance(outcome, Streamed):
                self.confirm(run, position, outcome.lease)
                size_bytes += OUTCOME_FRAME_BYTES
            else:
                settled.append(position)
                size_bytes += weight(outcome)
            if size_bytes >= most_bytes:
                break
        for start, stop in as_ranges(settled):
            self._deliver(run, start, stop)
        return size_bytes

    def forget(self, run: Run, now: float) -> None:
        """Drop a run that its client needs no more, silently ending its open tasks.

        Only its story is kept.
        """
        if run.open == run.count and not run.leases and not run.delayed:
            self._drop_waiting(run)
        elif run.open:
            mark = len(self.out)
            self.end(run, (0, run.count), Cause.CANCELLED, CANCELLED, now)
            self.out[mark:] = [a for a in self.out[mark:] if not isinstance(a, do.Deliver)]
        self.backpressure.add(run.client, -run.retained_bytes)
        del self.runs[run.id]
        if run.has_story:
            self.history.append(pack(run))

    def _drop_waiting(self, run: Run) -> None:
        """End a run that has only waited: a client may have left hundreds of thousands of them."""
        run.waiting = NOTHING
        self._count_open(run, -run.count)
        self.counters[State.CANCELLED.value] += run.count
        self.payload_bytes -= run.payload_bytes
        self.timers.clear(("run", run.id))

    def shrink(self) -> None:
        """Release the memory of tables that are empty now."""
        self.runs.clear()
        self.leases.clear()
        self._interned.clear()

    def run(self, id: RunId) -> Run | Past | None:
        """A run, open or ended; None when it is unknown or forgotten."""
        past = (p for p in map(unpack, reversed(self.history)) if p.id == id)
        return self.runs.get(id) or next(past, None)

    def story(self, task: TaskId) -> list[Entry]:
        """What happened to one task, in order; empty when its run is unknown or forgotten."""
        run = self.run(task.run)
        if run is None or not 0 <= task.position < run.count:
            return []
        first = Entry(run.accepted_at, "accepted", QUEUED, 0, run.count, f"from {run.client}")
        return [first, *(e for e in run.story if e.start <= task.position < e.stop)]

    def end_piece(
        self, run: Run, state: State, cause: Cause, span: Sequence[int], why: Failure, now: float
    ) -> None:
        """Settle a range of open tasks, which is taken from where it was, as ``why``."""
        start, stop = span
        run.note(state, cause, start, stop, why.error, now, self._entries)
        failures = [Failure(p, why.error, why.message, why.state) for p in range(start, stop)]
        self.counters[why.state.value] += len(failures)
        self._settle(run, start, failures, len(why.message) * len(failures))
        self._deliver(run, start, stop)

    def _count_open(self, run: Run, change: int) -> None:
        self.open[run.priority] += change
        self.open_tasks += change
        by_kind, kind = self.open_by_kind, run.needs[0]
        by_kind[kind] = open = by_kind.get(kind, 0) + change
        if not open and len(by_kind) > KINDS_KEPT:
            del by_kind[kind]

    def _settle(self, run: Run, start: int, outcomes: Sequence[Outcome], size_bytes: int) -> None:
        run.settle(start, outcomes, size_bytes)
        self._count_open(run, -len(outcomes))
        self.backpressure.add(run.client, size_bytes)
        if not run.open:
            self.payload_bytes -= run.payload_bytes
            run.payloads = []
            self.timers.clear(("run", run.id))

    def _deliver(self, run: Run, start: int, stop: int) -> None:
        """Deliver settled outcomes in messages that stay within the bound of one delivery."""
        assert run.outcomes is not None
        results: list[bytes] = []
        failures: list[Failure] = []
        room = self._delivery_bytes
        for position in range(start, stop):
            outcome = run.outcomes[position]
            assert outcome is not None
            assert not isinstance(outcome, Streamed | Received)
            size_bytes = weight(outcome)
            room -= size_bytes
            if room < 0 and results:
                self._send(run, position - len(results), results, failures)
                results, failures = [], []
                room = self._delivery_bytes - size_bytes
            if isinstance(outcome, Failure):
                failures.append(outcome)
                results.append(b"")
            else:
                results.append(outcome)
        self._send(run, stop - len(results), results, failures)

    def _send(self, run: Run, start: int, results: list[bytes], failures: list[Failure]) -> None:
        stamps = run.stamps if run.stamps is not None and len(run.stamps) == 5 else []
        self.out.append(do.Deliver(run.client, run.submission, start, results, failures, stamps))
