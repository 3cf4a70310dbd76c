"""Where the bytes of waiting tasks are, by line and by type, without a cluster."""

import pytest

from perfkit.bench.counts.queued import queued_bytes
from perfkit.optimized.specs import BASELINE, OPTIMIZED


@pytest.mark.parametrize("spec", [BASELINE, OPTIMIZED], ids=lambda spec: spec.name)
def test_lone_tasks_are_a_run_and_a_payload_each(spec) -> None:
    found = queued_bytes(spec, tasks=300)
    objects = {use.type: use.objects for use in found.types}
    assert objects["Run"] == objects["bytes"] == 300
    assert found.traced_bytes > 300 * 200
    assert found.lines
    assert "300 tasks of 200 B wait" in found._repr_html_()


def test_tasks_of_one_run_share_it() -> None:
    found = queued_bytes(OPTIMIZED, tasks=300, run_tasks=300)
    assert {use.type: use.objects for use in found.types}["bytes"] == 300
    assert {use.type: use.objects for use in found.types}["Run"] == 1


def test_fewer_than_one_task_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        queued_bytes(OPTIMIZED, tasks=0)
