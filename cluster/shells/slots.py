"""A worker's slots: leases that are run, one after another or a model's together, and reported.

The session is shared with the threads that hear the coordinator, under one lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from cluster.protocol.held_lease import HeldLease
from cluster.protocol.stored_results import FinishedTasks
from cluster.protocol.worker_session import WorkerSession
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.work.batch_run import TASKS_MAX, BatchRuns
from cluster.work.forks import end_copy
from cluster.work.handlers import Handlers, Model
from cluster.work.lease_runner import LeaseRunner

REPORT_AFTER_S = 0.001


class Line(Protocol):
    """Where a slot reports: a connection to a coordinator, or what stands in for one."""

    #: the slot's thread
    thread: int
    #: held from collecting outcomes until they are sent, which keeps them in order
    lock: threading.Lock

    @property
    def send(self) -> Callable[[Sequence[on.Event]], None]:
        """Sends events."""

    def tend(self) -> None:
        """Receives, and sees to it that the line is alive."""


class Slots:
    """Runs the leases of ``session``; ``wake`` is called when a slot of several is done with one.

    Each slot is a thread in `work`, and one more is in `read_ahead`; a worker with one slot and
    without models calls `run_next` instead.
    """

    def __init__(
        self,
        session: WorkerSession,
        handlers: Handlers,
        batches: BatchRuns,
        limits: Limits,
        wake: Callable[[], None],
    ) -> None:
        #: held by each thread that uses the session
        self.lock = threading.Lock()
        self._work = threading.Condition(self.lock)
        #: wakes the thread that reads ahead, while every slot is busy
        self._all_busy = threading.Condition(self.lock)
        self._session = session
        self._handlers = handlers
        self._batches = batches
        self._limits = limits
        self._wake = wake
        self._idle = 0
        self._is_over = False
        #: how many tasks of a kind to run between two looks at the clock
        self._steps: dict[str, int] = {}
        self._runners: dict[Line, LeaseRunner] = {}
        #: of the threads in `work`
        self._lines: list[Line] = []
        #: whether this is the copy in a forked child of a handler
        self._is_copy = False

    def current_task(self) -> str:
        """The task that the calling thread runs, as lease.position; "" in a thread without one."""
        thread = threading.get_ident()
        for line, runner in list(self._runners.items()):
            if line.thread == thread:
                return f"{runner.lease.id}.{runner.lease.next - 1}"
        return ""

    def become_copy(self) -> None:
        """In a forked child: run no more tasks."""
        self._is_copy = True
        for runner in self._runners.values():
            runner.lease.pending.clear()

    def notify(self) -> None:
        """Wake those who wait for work; the caller holds the lock."""
        self._work.notify_all()
        if not self._idle:
            self._all_busy.notify()

    @property
    def idle(self) -> int:
        """How many threads wait for work."""
        return self._idle

    def end(self) -> None:
        """Let the threads end."""
        with self.lock:
            self._is_over = True
            self._work.notify_all()
            self._all_busy.notify()

    def work(self, line: Line) -> None:
        """Run leases in one of several slots, until the end."""
        self._lines.append(line)
        begun: list[HeldLease] = []
        try:
            while (lease := self._wait_for_lease(begun)) is not None:
                model = self._handlers.models.get(lease.kind)
                if model is not None:
                    begun = self._run_batch([lease, *begun], model, line)
                elif lease.kind in self._handlers:
                    self._run_lease(lease, line)
                else:  # its model was unloaded when the lease had been taken
                    self._give_back(lease, line)
                self._wake()
        finally:
            with line.lock:
                self._lines.remove(line)

    def run_next(self, line: Line) -> bool:
        """Run a lease in the calling thread; false without one."""
        with self.lock:
            lease = self._session.take()
        if lease is not None:
            self._run_lease(lease, line)
        return lease is not None

    def read_ahead(self) -> None:
        """Have models read payloads that wait while every slot is busy, until the end."""
        while not self._is_over:
            with self._all_busy:
                unread = [] if self._idle else self._batches.unread(self._session.ready)
                if not unread:
                    self._all_busy.wait()
            self._batches.read(unread)

    def tend(self) -> None:
        """Report outcomes that slow handlers hold up, and tend the lines of busy and idle slots."""
        for line in list(self._lines) or list(self._runners):
            # A taken lock means that its slot is reporting, so nothing is held up.
            if not line.lock.acquire(blocking=False):
                continue
            try:
                runner = self._runners.get(line)
                if runner is not None:
                    self._report(runner.lease, runner.collect(), line)
                if runner is not None or line in self._lines:
                    line.tend()
            finally:
                line.lock.release()

    def _wait_for_lease(self, begun: list[HeldLease]) -> HeldLease | None:
        """The next lease, the caller's, of those that it has begun if there is one; None at the
        end.
        """
        with self._work:
            while not self._is_over:
                if begun:
                    return begun.pop(0)
                if (lease := self._session.take()) is not None:
                    return lease
                self._idle += 1
                self._work.wait()
                self._idle -= 1
        return None

    def _run_batch(self, begun: list[HeldLease], model: Model, line: Line) -> list[HeldLease]:
        """Run tasks of these leases and of others of their kind together; returns those with tasks
        left, which stay with this line, so that a lease's reports are in order.
        """
        batch = self._batches.begin(begun[0].kind, model, self._limits)
        with self.lock:
            leases = [*begun, *self._session.take_like(begun[0], TASKS_MAX)]
        left = batch.take(leases, time.monotonic())
        with self.lock:
            own = [*begun, *batch.leases]
            self._session.put_back([x for x in left if x not in own])
            if self._session.ready:
                self.notify()
        batch.run(time.monotonic)
        with line.lock:
            for ended, finished in batch.finished():
                self._report(ended, finished, line, is_over=True)
        return [lease for lease in left if lease in own and lease.pending]

    def _run_lease(self, lease: HeldLease, line: Line) -> None:
        """Run a lease step by step, so that results don't wait long."""
        step = self._steps.get(lease.kind, 1)
        runner = LeaseRunner(lease, self._handlers, step, self._limits)
        self._runners[line] = runner
        while runner.go_on():
            if runner.waits_s() > REPORT_AFTER_S:
                with line.lock:
                    self._report(lease, runner.collect(), line)
        if self._is_copy:
            end_copy(runner)
        del self._runners[line]
        self._steps[lease.kind] = runner.step
        with line.lock:
            self._report(lease, runner.collect(), line, is_over=True)

    def _give_back(self, lease: HeldLease, line: Line) -> None:
        """Give back what is not started of a lease."""
        with line.lock:
            with self.lock:
                events = self._session.give_back(lease)
            line.send(events)

    def _report(
        self,
        lease: HeldLease,
        finished: FinishedTasks,
        line: Line,
        *,
        is_over: bool = False,
    ) -> None:
        """Report the outcomes so far, and give back at the end what would wait behind a large
        result; the caller holds the line's lock.
        """
        with self.lock:
            events = []
            if finished.outcomes:
                parts = finished.parts(self._limits.message_bytes // 2, lease.reported)
                events = [e for part in parts for e in self._session.report(lease, *part)]
            if is_over and lease.stored is not None:
                events += self._session.give_back(lease)
        if events:
            line.send(events)
