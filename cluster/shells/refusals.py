"""How a submission that ends as a whole tells its tasks, and who else hears of submissions."""

from __future__ import annotations

import time
from typing import Protocol

import msgspec

from cluster.protocol.client_session import Refused, Settled, Submission
from cluster.shells.futures import set_exception
from cluster.shells.mapping import Chunk
from cluster.vocabulary.errors import Busy, CoordinatorLost, Superseded
from cluster.vocabulary.events import TasksSubmitted
from cluster.vocabulary.printable import count_of
from cluster.vocabulary.task import TaskId


class Watcher(Protocol):
    """Hears of the submissions of all clients of this process.

    It is called under a client's lock, so it returns at once, never raises, and calls no client.
    """

    def opened(self, endpoint: str, submission: Submission, now: float) -> bool:
        """A submission is about to be sent; returns whether to trace it."""

    def settled(self, news: Settled, now: float) -> None:
        """Some tasks of a submission have their outcomes."""

    def ended(self, submission: Submission, error: str) -> None:
        """The tasks that have no outcome end with the error of this name."""


#: a client without any pays nothing for them but a look at this
WATCHERS: list[Watcher] = []


def watched(endpoint: str, submission: Submission, event: TasksSubmitted) -> TasksSubmitted:
    """Tell the watchers of a submission; returns the event to send, traced if one wants that."""
    now = time.monotonic()
    wanted = [watcher.opened(endpoint, submission, now) for watcher in tuple(WATCHERS)]
    if any(wanted) and event.sent_at is None:
        event = msgspec.structs.replace(event, sent_at=now)
        submission.event = submission.work = event
        submission.sent_at = now
    return event


def fail(submission: Submission, error: Exception) -> None:
    """Give the tasks that have no outcome one error."""
    for watcher in tuple(WATCHERS):
        watcher.ended(submission, type(error).__name__)
    sink = submission.sink
    if isinstance(sink, Chunk):
        sink.fail(error, submission.seen)
    else:
        for future in sink:
            set_exception(future, error)


def refuse(news: Refused, endpoint: str) -> None:
    """Give the tasks of a refused submission the exception that the refusal names."""
    if news.error == CoordinatorLost.__name__:
        _lose(news.submission, endpoint)
    elif news.error == Superseded.__name__:
        fail(news.submission, Superseded(f"the coordinator refused: {news.reason}"))
    else:
        fail(news.submission, Busy(f"the coordinator refused: {news.reason}"))


def _lose(submission: Submission, endpoint: str) -> None:
    """Tell each task that it is lost, by its id if it has one."""
    sink, run = submission.sink, submission.run

    def lost(what: str, tasks: list[TaskId]) -> CoordinatorLost:
        return CoordinatorLost(
            f"the coordinator at {endpoint} was stopped, restarted or forgot this client, and lost "
            f"{what} of kind {submission.work.kind!r}; Client.resubmit hands it in again, and "
            "idempotent=True does so by itself",
            tasks,
        )

    missing = [p for p in range(submission.count) if not submission.seen[p]]
    if isinstance(sink, Chunk):
        tasks = [] if run is None else [TaskId(run, p) for p in missing]
        what = (
            f"tasks {run}:{missing[0]} to {missing[-1]}"
            if tasks
            else count_of(len(missing), "task")
        )
        fail(submission, lost(what, tasks))
        return
    for watcher in tuple(WATCHERS):
        watcher.ended(submission, CoordinatorLost.__name__)
    for position in missing:
        task = None if run is None else TaskId(run, position)
        what = "a task" if task is None else f"task {run}:{position}"
        set_exception(sink[position], lost(what, [] if task is None else [task]))
