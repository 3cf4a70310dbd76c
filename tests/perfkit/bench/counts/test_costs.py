"""Counts per task: those of the gate, and system calls where a process may be watched."""

import pytest

from cluster.spec import BASELINE
from perfkit.bench.counts import costs
from perfkit.bench.counts.costs import ALLOCATIONS, SYSTEM_CALLS, measure_costs, messages_per_task
from perfkit.bench.workloads.load import ExperimentError
from perfkit.optimized.specs import ABLATIONS
from perfkit.profile.system_calls import SystemCalls


def test_an_uncounted_figure_is_unknown_and_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ExperimentError("memray is not installed")

    monkeypatch.setattr(costs, "count_afresh", missing)
    monkeypatch.setattr(
        costs, "count_system_calls", lambda pid, work: SystemCalls(reason="not permitted")
    )
    found = measure_costs(workers=1, tasks=20)
    assert found.of("baseline", ALLOCATIONS) is None
    assert found.of("baseline", SYSTEM_CALLS) is None
    assert (found.of("baseline", "messages_in_per_task") or 0) > 2.0
    shown = found._repr_html_()
    assert "memray is not installed" in shown
    assert "not permitted" in shown
    assert "<td>unknown</td>" in shown


def test_messages_of_a_stream_are_exact_and_fewer_in_batches() -> None:
    plain = messages_per_task(BASELINE)
    assert plain == messages_per_task(BASELINE)
    assert messages_per_task(ABLATIONS["batch-assignment"]) < plain / 100
