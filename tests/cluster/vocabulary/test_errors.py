"""The errors a user catches have one root, and Python's own class where there is one."""

import pytest

from cluster.vocabulary import errors


@pytest.mark.parametrize(
    "name", ["ProtocolError", "Unreachable", "Busy", "TaskError", "TaskFailed"]
)
def test_every_error_of_the_cluster_is_a_cluster_error(name: str) -> None:
    with pytest.raises(errors.ClusterError, match="why"):
        raise getattr(errors, name)("why")


def test_a_task_that_timed_out_is_caught_as_a_timeout_too() -> None:
    with pytest.raises(TimeoutError):
        raise errors.TaskTimedOut("late")


@pytest.mark.parametrize(
    "end", [errors.TaskFailed, errors.TaskTimedOut, errors.NoWorker, errors.TaskDeadLettered]
)
def test_every_end_without_a_result_is_a_task_error(end: type[errors.TaskError]) -> None:
    assert issubclass(end, errors.TaskError)


def test_did_you_mean_names_the_closest_word_if_any_is_close() -> None:
    assert errors.did_you_mean("optimised", ["baseline", "optimized"]) == (
        "; did you mean 'optimized'?"
    )
    assert errors.did_you_mean("x", ["baseline"]) == ""
