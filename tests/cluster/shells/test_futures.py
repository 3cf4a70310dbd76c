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


def test_a_timed_out_task_is_a_timeout_to_who_does_not_know_the_cluster():
    assert issubclass(TaskTimedOut, TimeoutError)


def test_a_future_is_given_up_once_it_is_cancelled():
    given_up = []
    future = TaskFuture(given_up.append, lambda future, timeout: None)
    assert future.cancel()
    assert given_up == [future]
    set_result(future, b"late")
    set_exception(future, ValueError("late"))
    assert future.cancelled()


def test_a_future_that_is_over_can_not_be_given_up():
    given_up = []
    future = TaskFuture(given_up.append, lambda future, timeout: None)
    set_result(future, b"x")
    assert not future.cancel()
    set_result(future, b"again")
    set_exception(future, CancelledError())
    assert (future.result(), given_up) == (b"x", [])


def test_a_cancellation_from_the_cluster_cancels_the_future():
    given_up = []
    future = TaskFuture(given_up.append, lambda future, timeout: None)
    set_exception(future, CancelledError("by the coordinator"))
    assert future.cancelled()
    assert given_up == []


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
