"""The core line by line: the same lines for the same work, with either codec."""

import pytest

from cluster.spec import BASELINE, ClusterSpec
from perfkit.bench.counts.hot_lines import hot_lines
from perfkit.optimized.specs import OPTIMIZED


@pytest.mark.parametrize("spec", [BASELINE, OPTIMIZED], ids=lambda spec: spec.name)
def test_every_task_goes_through_the_core(spec: ClusterSpec) -> None:
    found = hot_lines(spec, tasks=100)
    by_name = {function.function: function for function in found.functions}
    assert {"Scheduler.handle", "Scheduler._assign", "Scheduler._finished"} <= by_name.keys()
    handled = max(line.runs for line in by_name["Scheduler.handle"].lines)
    # One message per task handed in and finished, or a few for all of them.
    assert handled >= 200 if spec is BASELINE else 1 < handled < 100
    assert any(name.endswith("Codec.encode") for name in by_name)
