"""An error is Python's own class where there is one, and names what was meant."""

import pytest

from cluster.vocabulary import errors


def test_a_task_that_timed_out_is_caught_as_a_timeout_too() -> None:
    with pytest.raises(TimeoutError):
        raise errors.TaskTimedOut("late")


def test_did_you_mean_names_the_closest_word_if_any_is_close() -> None:
    assert errors.did_you_mean("optimised", ["baseline", "optimized"]) == (
        "; did you mean 'optimized'?"
    )
    assert errors.did_you_mean("x", ["baseline"]) == ""
