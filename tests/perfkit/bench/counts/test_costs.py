"""Counts per task: those of the gate, and system calls where a process may be watched."""

from unittest.mock import Mock

import pytest

from cluster.spec import BASELINE
from perfkit.bench.counts import costs
from perfkit.bench.counts.costs import ALLOCATIONS, SYSTEM_CALLS, measure_costs, messages_per_task
from perfkit.bench.counts.lockstep import LOADS
from perfkit.bench.counts.per_task import COUNTED_SPECS
from perfkit.bench.workloads.load import ExperimentError
from perfkit.optimized.specs import ABLATIONS
from perfkit.profile.system_calls import SystemCalls


def test_an_uncounted_figure_is_unknown_and_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = SystemCalls(reason="not permitted")
    one = {load: {"messages_in_per_task": 2.5} for load in LOADS}
    missing = ExperimentError("memray is not installed")
    monkeypatch.setattr(costs, "count_afresh", Mock(side_effect=missing))
    monkeypatch.setattr(costs, "count_specs", lambda: {spec.name: one for spec in COUNTED_SPECS})
    monkeypatch.setattr(costs, "count_system_calls", lambda pid, work: refused)
    found = measure_costs(workers=1, tasks=20)
    assert found.of("baseline", ALLOCATIONS) is None
    assert found.of("baseline", SYSTEM_CALLS) is None
    assert found.of("baseline", "messages_in_per_task") == 2.5
    shown = found._repr_html_()
    assert "memray is not installed" in shown
    assert "not permitted" in shown
    assert "<td>unknown</td>" in shown


def test_a_stream_has_fewer_messages_in_batches() -> None:
    assert messages_per_task(ABLATIONS["batch-assignment"]) < messages_per_task(BASELINE) / 100
