"""The future of a task, and the exceptions it may hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress

from cluster.protocol.client_session import Settled, Submission
from cluster.vocabulary.errors import TaskDeadLettered, TaskFailed, TaskTimedOut
from cluster.vocabulary.printable import printable
from cluster.vocabulary.task import Failure, State, TaskId


class TaskFuture(Future[bytes]):
    """A future that knows its task. ``stamps`` are the seven times of a traced task, in seconds
    (profile/latency.py).
    """

    def __init__(
        self,
        on_cancel: Callable[[TaskFuture], None],
        wait_for: Callable[[TaskFuture, float | None], None],
    ) -> None:
        super().__init__()
        self._on_cancel = on_cancel
        self._wait_for = wait_for
        self.submission: Submission | None = None
        self.position = 0
        self.stamps: tuple[float, ...] = ()

    @property
    def task_id(self) -> TaskId | None:
        """The task's id, once the coordinator has accepted it."""
        if self.submission is None or self.submission.run is None:
            return None
        return TaskId(self.submission.run, self.position)

    def result(self, timeout: float | None = None) -> bytes:
        """The result; raises the task's error, or TimeoutError after ``timeout`` seconds."""
        return super().result(self._awaited(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error, None once there is a result; TimeoutError after ``timeout`` seconds."""
        return super().exception(self._awaited(timeout))

    def _awaited(self, timeout: float | None) -> float | None:
        """Wait for the task if the client can lead; returns the rest of the time-out."""
        if self.done():
            return timeout
        began = time.monotonic()
        self._wait_for(self, timeout)
        return timeout if timeout is None else max(0.0, timeout - (time.monotonic() - began))

    def cancel(self) -> bool:
        """Cancel the task, which is not run unless it has been started. False if it is over."""
        cancelled = super().cancel()
        if cancelled:
            self._on_cancel(self)
        return cancelled


def as_exception(failure: Failure) -> Exception:
    """The exception a user catches for a failure."""
    if failure.state is State.CANCELLED:
        return CancelledError(printable(failure.message))
    if failure.state is State.DEAD_LETTERED:
        return TaskDeadLettered(failure.message)
    if failure.error == "TimedOut":
        return TaskTimedOut(failure.message)
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
        Future.cancel(future)
    else:
        with suppress(InvalidStateError):
            future.set_exception(error)


def settle_futures(futures: list[TaskFuture], news: Settled, now: float) -> None:
    """Give futures their results; a traced one its times as well."""
    failed = {failure.position: failure for failure in news.failures}
    for position, result in enumerate(news.results, news.start):
        future = futures[position]
        if news.stamps and news.submission.sent_at is not None:
            future.stamps = (news.submission.sent_at, *news.stamps, now)
        if position in failed:
            set_exception(future, as_exception(failed[position]))
        else:
            set_result(future, result)
