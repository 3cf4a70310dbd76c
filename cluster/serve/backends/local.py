"""Models in the API's own process, in slots like a worker's, without a coordinator.

There is no hop between processes, so it is the fastest way on one machine. The price: a model that
crashes takes the API along, and nobody else does its work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import CancelledError
from functools import partial
from itertools import count

from cluster.protocol.worker_session import WorkerSession
from cluster.shells.futures import TaskFuture, as_exception, set_exception, settle_column
from cluster.shells.slots import Slots
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import Busy, ClientClosed, NoWorker
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.printable import count_of
from cluster.vocabulary.task import Failure, Priority
from cluster.work.batch_run import BatchRuns
from cluster.work.handlers import Handlers, sort_out

#: the most tasks that wait or run
TASKS_MAX = 65_536
#: results are handed over in memory, however large they are
LIMITS = Limits(message_bytes=1 << 31, stream_bytes=1 << 30)
NAME, EPOCH = "local", 1
#: A batch that takes less than this runs at once in the caller's thread, which is the API's loop:
#: to wake a slot's thread and to hear from it takes 0.1 ms, and the threads would take turns at
#: Python's lock. The loop has at least as much time for itself.
QUICK_S = 0.001
#: Payloads that are longer in all, or more, are read by another thread.
QUICK_BYTES, QUICK_TASKS = 1 << 16, 256


class LocalBackend:
    """A `Backend` that runs the tasks of ``handlers`` itself, in ``slots`` threads, or in the
    caller's while all of them are idle and it is quick.
    """

    name = NAME

    def __init__(self, handlers: Handlers, slots: int = 1) -> None:
        self._handlers = handlers
        self._session = WorkerSession(NAME, 1, slots, TASKS_MAX, handlers.kinds())
        self._session.handle(do.Welcome(NAME, 1, EPOCH, 1.0))
        self._batches = BatchRuns(handlers)
        #: how batches formed so far
        self.batches = self._batches.counts
        self._slots = Slots(self._session, handlers, self._batches, LIMITS, lambda: None)
        self._slot_count = slots
        #: held by a thread that runs a batch inline
        self._inline = threading.Lock()
        #: how long batches took inline of late, at the end of the last one
        self._inline_s = self._inline_at_s = 0.0
        self._leases = count(1)
        self._futures: dict[int, list[TaskFuture]] = {}
        self._open = 0
        self._is_closed = False
        self._threads = [
            *(threading.Thread(target=self._work, daemon=True) for _ in range(slots)),
            threading.Thread(target=self._slots.read_ahead, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def submit_batch(
        self,
        kind: str,
        payloads: Sequence[bytes],
        *,
        priority: Priority = Priority.NORMAL,
        timeout_s: float | None = None,
    ) -> Sequence[TaskFuture | bytes | Exception]:
        """An outcome for each payload, in order, if they were run at once, otherwise a future.
        Tasks run in the order of their arrival.

        Raises:
            NoWorker: no handler has that name.
            Busy: `TASKS_MAX` tasks wait or run.
            ClientClosed: it is closed.
        """
        if kind not in self._handlers:
            raise NoWorker(f"there is no model {kind!r} here")
        if (outcomes := self._run_inline(kind, payloads, timeout_s)) is not None:
            return outcomes
        lease, now = next(self._leases), time.monotonic()
        cancel = partial(self._cancel, lease)
        futures = [TaskFuture(cancel, lambda *_: None) for _ in payloads]
        for position, future in enumerate(futures):
            future.position = position
        assign = do.Assign(NAME, EPOCH, lease, kind, 0, list(payloads), timeout_s)
        with self._slots.lock:
            if self._is_closed:
                raise ClientClosed("the API is closing")
            if self._open + len(futures) > TASKS_MAX:
                raise Busy(f"open: {count_of(self._open, 'task')}, of at most {TASKS_MAX}")
            self._open += len(futures)
            self._futures[lease] = [*futures]
            self._session.handle(assign, now)
            self._slots.notify()
        return futures

    def _run_inline(
        self, kind: str, payloads: Sequence[bytes], timeout_s: float | None
    ) -> list[bytes | Exception] | None:
        """The outcomes of tasks that can be run in this thread at once; None if slots must."""
        is_busy = self._session.ready or self._slots.idle < self._slot_count or self._is_closed
        if is_busy or len(payloads) > QUICK_TASKS or sum(map(len, payloads)) > QUICK_BYTES:
            return None
        if not self._inline.acquire(blocking=False):
            return None
        try:
            began_s = time.monotonic()
            spent_s = max(0.0, self._inline_s - (began_s - self._inline_at_s))
            most_s = min(QUICK_S - spent_s, QUICK_S if timeout_s is None else timeout_s)
            found = self._batches.run_quick(kind, payloads, most_s, time.monotonic)
            self._inline_at_s = time.monotonic()
            self._inline_s = spent_s + self._inline_at_s - began_s
        finally:
            self._inline.release()
        if found is None:
            return None
        results: list[bytes] = []
        failures: list[Failure] = []
        sort_out(found, 0, results, failures, LIMITS.result_bytes)
        outcomes: list[bytes | Exception] = [*results]
        for failure in failures:
            outcomes[failure.position] = as_exception(failure)
        return outcomes

    def kinds(self) -> Collection[str]:
        """The names of its handlers."""
        return self._handlers.kinds()

    def models(self) -> Collection[str]:
        """The names of its models, whose kinds are ``name`` and ``name/version``."""
        return [kind for kind in self._handlers.models if "/" not in kind]

    def lacks(self, model: str) -> bool:
        """Never: without all of its models it does not start."""
        return False

    def generation(self) -> int:
        """Always the same: what it offers does not change."""
        return 1

    def ready(self) -> bool:
        """Whether it takes tasks."""
        return not self._is_closed

    def close(self) -> None:
        """End after the tasks that run; those that wait fail with ClientClosed."""
        with self._slots.lock:
            self._is_closed = True
            self._session.drain()
        self._slots.end()
        for thread in self._threads:
            thread.join()
        for futures in list(self._futures.values()):
            for future in futures:
                set_exception(future, ClientClosed("the API closed before this was done"))
        self._futures.clear()

    def _work(self) -> None:
        self._slots.work(Reports(self))

    def _cancel(self, lease: int, future: TaskFuture) -> None:
        with self._slots.lock:
            events = self._session.handle(do.Cancel(NAME, EPOCH, lease, [future.position]))
        self.hear(events)

    def hear(self, events: Sequence[on.Event]) -> None:
        """Settle the futures of what the slots report."""
        for event in events:
            if isinstance(event, on.TasksFinished):
                futures = self._futures[event.lease]
                settle_column(futures, event.start, event.outcomes, event.failures)
                self._ended(event.lease, event.start + len(event.outcomes), len(event.outcomes))
            elif isinstance(event, on.TasksReleased):
                futures = self._futures[event.lease][event.start :]
                for future in futures:
                    set_exception(future, CancelledError())
                del self._futures[event.lease][event.start :]
                self._ended(event.lease, event.start, len(futures))

    def _ended(self, lease: int, stop: int, tasks: int) -> None:
        with self._slots.lock:
            self._open -= tasks
            if stop >= len(self._futures[lease]) and lease not in self._session.leases:
                del self._futures[lease]


def make_backend(models: Sequence[str], workers: int = 1, **_: object) -> LocalBackend:
    """A backend with these models, in as many slots as there would be workers.

    Raises:
        ModelError: from the first of them that can't be loaded.
    """
    from cluster.model_offers import ModelOffers

    handlers = Handlers()
    ModelOffers(handlers, models)
    return LocalBackend(handlers, workers)


class Reports:
    """Where a slot reports: it hands its events to the backend."""

    def __init__(self, backend: LocalBackend) -> None:
        self.thread = threading.get_ident()
        self.lock = threading.Lock()
        self.send = backend.hear

    def tend(self) -> None:
        """Do nothing: there is no line to keep alive."""
