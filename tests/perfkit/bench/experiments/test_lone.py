"""Traces of a lone task: every arm has all of its tasks, and this process its cores back."""

import os

import pytest

from cluster.spec import BASELINE
from perfkit.bench.experiments.lone import BLOCK_TASKS, trace_lone_tasks
from perfkit.optimized.specs import OPTIMIZED


def test_every_spec_is_traced_in_every_placement() -> None:
    cores, tasks = os.sched_getaffinity(0), BLOCK_TASKS + 5
    traces = trace_lone_tasks(tasks=tasks)
    assert os.sched_getaffinity(0) == cores
    wanted = [
        (spec.name, where) for where in ("one core", "not pinned") for spec in (BASELINE, OPTIMIZED)
    ]
    assert list(traces.found) == wanted
    for (spec, where), found in traces.found.items():
        assert found.traces == tasks
        result = traces.results[f"trace-{spec}-{where.replace(' ', '-')}"]
        assert (result.spec, result.parameters["placement"], result.workers) == (spec, where, 1)
        assert result.value == found.end_to_end.p50_ms.value
        for number, whole in enumerate(result.samples):
            parts = [column[number] or 0.0 for column in result.series.values()]
            assert sum(parts) == pytest.approx(whole)
