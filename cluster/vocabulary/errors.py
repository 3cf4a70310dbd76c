"""The exceptions that a user of the cluster may catch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.vocabulary.task import TaskId

from cluster.vocabulary.printable import printable


class ClusterError(Exception):
    """The root of all errors that the cluster reports. Its text may come from another machine."""

    def __str__(self) -> str:
        """The message, fit for a terminal."""
        return printable(super().__str__())


class ProtocolError(ClusterError):
    """A message that cannot be understood: malformed, of another version, or over a bound."""


class Unreachable(ClusterError):
    """No answer from the endpoint in time."""


class Busy(ClusterError):
    """The coordinator refused a submission at a bound, named in the message; try again later."""


class ClientClosed(ClusterError):
    """The client was closed, or its process forked, before this was done."""


class Superseded(ClusterError):
    """A newer client of the same name has taken this one's place."""


class CoordinatorLost(ClusterError):
    """The coordinator was restarted, or forgot this client, and lost what it had accepted.

    ``tasks`` are the ids that the lost tasks had. Client.resubmit hands them in again.
    """

    def __init__(self, message: str, tasks: Sequence[TaskId] = ()) -> None:
        super().__init__(message)
        self.tasks = tuple(tasks)


class TaskError(ClusterError):
    """A task ended without a result."""


class TaskFailed(TaskError):
    """The handler raised in every attempt; the message carries the remote error."""


class TaskTimedOut(TaskError, TimeoutError):
    """The task's ``timeout_s`` passed before it had a result."""


class NoWorker(TaskError):
    """No worker offered what the task needs; the message names what is missing."""


class TaskDeadLettered(TaskError):
    """The task was on three workers when they died; the message carries its story."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """``; did you mean 'x'?`` to end an error with, or "" if no known word is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""
