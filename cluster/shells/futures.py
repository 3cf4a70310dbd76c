"""The future of a task, and the exceptions it may hold."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from contextlib import suppress
from typing import Any, TypeVar

from cluster.protocol.client_session import Settled, Submission
from cluster.transport.interrupts import GuardedLock, Latch
from cluster.vocabulary.errors import NoWorker, TaskDeadLettered, TaskFailed, TaskTimedOut
from cluster.vocabulary.printable import printable
from cluster.vocabulary.task import Failure, State, TaskId

T = TypeVar("T")

LOGGER = logging.getLogger(__name__)
OVER = CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED


class _Waiters(list[Any]):
    """Those who wait for a future; none of them may be left with a lock that blocks its owner."""

    def append(self, waiter: Any) -> None:
        if not isinstance(waiter.event, Latch):
            waiter.event = Latch()
        super().append(waiter)


class _Waiter:
    """What ``concurrent.futures.wait`` puts there, for one future."""

    def __init__(self) -> None:
        self.event = Latch()

    def add_result(self, _: Any) -> None:
        self.event.set()

    add_exception = add_cancelled = add_result


class GuardedFuture(Future[T]):
    """A future whose owner is never blocked by a thread that Ctrl-C interrupted.

    Future's own lock can stay taken by a thread that was interrupted, so this has another one.
    """

    def __init__(self) -> None:
        self._condition: Any = GuardedLock()
        self._state = PENDING
        self._result: Any = None
        self._exception = None
        #: why it was cancelled, if not by its owner
        self.reason = ""
        self._waiters: Any = _Waiters()
        self._done_callbacks: list[Callable[[Any], object]] = []

    def done(self) -> bool:
        """Whether it has a result or an error, or is cancelled."""
        return self._state in OVER

    def cancelled(self) -> bool:
        """Whether it is cancelled."""
        return self._state in OVER[:2]

    def result(self, timeout: float | None = None) -> T:
        """The result; raises its error, or TimeoutError after ``timeout`` seconds."""
        error = self.exception(timeout)
        if error is None:
            return self._result  # type: ignore[no-any-return]
        try:
            raise error
        finally:
            del self, error  # the traceback holds this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error, None once there is a result; TimeoutError after ``timeout`` seconds."""
        if self._state not in OVER and not self._wait(timeout):
            raise TimeoutError
        if self._state != FINISHED:
            raise CancelledError(self.reason)
        return self._exception

    def cancel(self) -> bool:
        """Cancel it, false if it is over. Those who wait are told."""
        with self._condition:
            cancelled = super().cancel()
            if self._state == CANCELLED:
                self.set_running_or_notify_cancel()
        return cancelled

    def _wait(self, timeout: float | None) -> bool:
        waiter = _Waiter()
        with self._condition:
            if self._state in OVER:
                return True
            self._waiters.append(waiter)
        if waiter.event.wait(timeout):
            return True
        with self._condition:
            self._waiters.remove(waiter)
        return self._state in OVER


def _run_callbacks(future: TaskFuture) -> None:
    future.run_callbacks()


class TaskFuture(GuardedFuture[bytes]):
    """A future that knows its task. ``stamps`` are the seven times of a traced task, in seconds
    (profile/latency.py). ``defer`` runs its callbacks.
    """

    def __init__(
        self,
        on_cancel: Callable[[TaskFuture], None],
        wait_for: Callable[[TaskFuture, float | None], None],
        defer: Callable[[TaskFuture], None] = _run_callbacks,
    ) -> None:
        super().__init__()
        self._on_cancel = on_cancel
        self._wait_for = wait_for
        self._defer = defer
        self.submission: Submission | None = None
        self.position = 0
        self.stamps: tuple[float, ...] = ()

    @property
    def task_id(self) -> TaskId | None:
        """The task's id, once the coordinator has accepted it."""
        if self.submission is None or self.submission.run is None:
            return None
        return TaskId(self.submission.run, self.position)

    def cancel(self) -> bool:
        """Cancel the task, which is not run unless it has been started. False if it is over."""
        was_over = self.done()
        cancelled = super().cancel()
        if cancelled and not was_over:
            self._on_cancel(self)
        return cancelled

    def run_callbacks(self) -> None:
        """Call those who asked for it; what a callback raises is logged and hurts nobody else."""
        callbacks, self._done_callbacks = self._done_callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except BaseException:
                LOGGER.exception("a callback of %r raised", self)

    def _invoke_callbacks(self) -> None:
        if self._done_callbacks:
            self._defer(self)

    def _wait(self, timeout: float | None) -> bool:
        """Lead while waiting if that is worth it, then wait for another thread that leads."""
        began = time.monotonic()
        self._wait_for(self, timeout)
        if timeout is not None:
            timeout = max(0.0, timeout - (time.monotonic() - began))
        return self.done() or super()._wait(timeout)


def as_exception(failure: Failure) -> Exception:
    """The exception a user catches for a failure."""
    if failure.state is State.CANCELLED:
        return CancelledError(printable(failure.message))
    if failure.state is State.DEAD_LETTERED:
        return TaskDeadLettered(failure.message)
    if failure.error == "TimedOut":
        return TaskTimedOut(failure.message)
    if failure.error == "NoWorker":
        return NoWorker(failure.message)
    return TaskFailed(f"{failure.error}: {failure.message}")


def set_result(future: TaskFuture, result: bytes) -> None:
    """Give a future its result, unless its owner has cancelled it."""
    try:
        future.set_result(result)
    except InvalidStateError:
        return


def set_exception(future: TaskFuture, error: Exception) -> None:
    """Give a future its error, unless its owner has cancelled it."""
    if isinstance(error, CancelledError):
        future.reason = str(error)
        GuardedFuture.cancel(future)
    else:
        with suppress(InvalidStateError):
            future.set_exception(error)


def settle_futures(futures: list[TaskFuture], news: Settled, now: float) -> None:
    """Give futures their results; a traced one its times as well."""
    if news.stamps and news.submission.sent_at is not None:
        for future in futures[news.start : news.start + len(news.results)]:
            future.stamps = (news.submission.sent_at, *news.stamps, now)
    settle_column(futures, news.start, news.results, news.failures)


def settle_column(
    futures: Sequence[TaskFuture],
    start: int,
    results: Sequence[bytes],
    failures: Sequence[Failure],
) -> None:
    """Give the futures from position ``start`` on their results, or the errors in their places."""
    failed = {failure.position: failure for failure in failures}
    for position, result in enumerate(results, start):
        if position in failed:
            set_exception(futures[position], as_exception(failed[position]))
        else:
            set_result(futures[position], result)
