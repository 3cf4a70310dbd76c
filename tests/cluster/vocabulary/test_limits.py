"""Bounds come from files that people write; a senseless one is refused by its name."""

import msgspec
import pytest

from cluster.vocabulary.limits import Limits


def test_liveness_spans_two_heartbeats_and_less_than_a_second() -> None:
    assert Limits().liveness_s >= 2 * Limits().heartbeat_s
    assert Limits().liveness_s < 1.0, "a lost worker's tasks complete elsewhere within a second"


@pytest.mark.parametrize(
    ("field", "value"),
    [("tasks", 0), ("deaths", -1), ("heartbeat_s", 0.0), ("liveness_s", 1e9), ("tasks", "many")],
)
def test_a_senseless_bound_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({field: value}, Limits)


def test_an_unknown_bound_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="task_limit"):
        msgspec.convert({"task_limit": 3}, Limits)
