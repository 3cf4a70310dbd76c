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
    """Tell each task that it is lost, by its id."""
    sink, run = submission.sink, submission.run or 0

    def lost(what: str, tasks: list[TaskId]) -> CoordinatorLost:
        return CoordinatorLost(
            f"the coordinator at {endpoint} was stopped, restarted or forgot this client, and lost "
            f"{what} of kind {submission.work.kind!r}; Client.resubmit hands it in again, and "
            "idempotent=True does so by itself",
            tasks,
        )

    tasks = [TaskId(run, p) for p in range(submission.count) if not submission.seen[p]]
    if isinstance(sink, Chunk):
        fail(submission, lost(f"tasks {run}:{tasks[0].position} to {tasks[-1].position}", tasks))
        return
    for task in tasks:
        set_exception(sink[task.position], lost(f"task {run}:{task.position}", [task]))
