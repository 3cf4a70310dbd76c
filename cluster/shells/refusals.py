"""How a submission that ends as a whole tells its tasks."""

from __future__ import annotations

from cluster.protocol.client_session import Refused, Submission
from cluster.shells.futures import set_exception
from cluster.shells.mapping import Chunk
from cluster.vocabulary.errors import Busy, CoordinatorLost, Superseded
from cluster.vocabulary.task import TaskId


def fail(submission: Submission, error: Exception) -> None:
    """Give the tasks that have no outcome one error."""
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
        what = f"tasks {run}:{missing[0]} to {missing[-1]}" if tasks else f"{len(missing)} tasks"
        fail(submission, lost(what, tasks))
        return
    for position in missing:
        task = None if run is None else TaskId(run, position)
        what = "a task" if task is None else f"task {run}:{position}"
        set_exception(sink[position], lost(what, [] if task is None else [task]))
