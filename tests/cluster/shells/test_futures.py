"""A task's future knows its task, and each way of ending has its exception."""

from concurrent.futures import CancelledError

import pytest

from cluster.shells.futures import TaskFuture, as_exception, set_exception, set_result
from cluster.vocabulary.errors import TaskDeadLettered, TaskFailed, TaskTimedOut
from cluster.vocabulary.task import Failure, State
from cluster.work.handlers import Handlers


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (Failure(0, "Cancelled", "nobody waits", State.CANCELLED), CancelledError, "nobody waits"),
        (Failure(0, "DeadLettered", "story", State.DEAD_LETTERED), TaskDeadLettered, "story"),
        (Failure(0, "TimedOut", "after 2 s"), TaskTimedOut, "after 2 s"),
        (Failure(0, "ValueError", "no"), TaskFailed, "ValueError: no"),
    ],
)
def test_each_way_of_ending_has_its_exception(failure, kind, words):
    error = as_exception(failure)
    assert type(error) is kind
    assert str(error) == words


def test_the_first_end_of_a_future_counts_and_only_its_owners_cancel_is_passed_on():
    cancelled = []
    mine, over, theirs = (TaskFuture(cancelled.append, lambda *_: None) for _ in range(3))
    assert mine.cancel()
    set_result(over, b"x")
    set_exception(theirs, CancelledError("by the coordinator"))
    for future in (mine, over, theirs):
        set_result(future, b"late")
        set_exception(future, ValueError("late"))
    assert (mine.cancelled(), theirs.cancelled(), over.result()) == (True, True, b"x")
    assert not over.cancel()
    assert cancelled == [mine]


def test_a_future_knows_its_task_once_it_is_accepted(serve):
    handlers = Handlers()
    handlers.register("echo")(lambda payload: payload)
    served = serve(handlers)
    assert TaskFuture(lambda future: None, lambda future, timeout: None).task_id is None
    futures = [served.client.submit("echo", b"x") for _ in range(3)]
    assert [future.result(timeout=10) for future in futures] == [b"x"] * 3
    assert len({future.task_id for future in futures}) == 3
    served.coordinator.stop()
    story = served.coordinator.story(futures[0].task_id)
    causes = [line.split(" ", 1)[1].split(":")[0] for line in story]
    assert causes == ["accepted", "assigned", "finished"]
