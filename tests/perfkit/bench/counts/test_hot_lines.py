"""The core line by line: the same lines for the same work, with either codec."""

import pytest

from cluster.spec import BASELINE, ClusterSpec
from perfkit.bench.counts.hot_lines import hot_functions, hot_lines
from perfkit.optimized.specs import OPTIMIZED


@pytest.mark.parametrize("spec", [BASELINE, OPTIMIZED], ids=lambda spec: spec.name)
def test_every_task_goes_through_the_core(spec: ClusterSpec) -> None:
    found = hot_lines(spec, tasks=100)
    by_name = {function.function: function for function in found.functions}
    assert {"Scheduler.handle", "Scheduler._assign", "Scheduler._finished"} <= by_name.keys()
    handled = max(line.runs for line in by_name["Scheduler.handle"].lines)
    # One message per task handed in and finished, or a few for all of them.
    assert handled >= 200 if spec is BASELINE else 1 < handled < 100
    assert any("codec" in function.file for function in found.functions)


def test_the_codecs_own_functions_are_among_them() -> None:
    names = [function.__qualname__ for function in hot_functions(OPTIMIZED)]
    assert "PackedCodec.encode" in names
    assert "_unpack" in names
    assert "DictCodec._unpack" in [f.__qualname__ for f in hot_functions(BASELINE)]
