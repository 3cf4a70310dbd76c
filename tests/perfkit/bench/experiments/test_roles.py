"""The cost of a task by role: figures of real processes, and gaps for unknown ones."""

import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from cluster import BASELINE
from perfkit.bench.experiments import roles
from perfkit.bench.experiments.roles import (
    BLOCK_TASKS,
    RoleTable,
    measure_roles,
    profile_coordinator,
    trace_lone_tasks,
    trace_tasks,
)
from perfkit.bench.workloads.load import ExperimentError
from perfkit.optimized.specs import OPTIMIZED


@pytest.fixture(scope="module")
def table() -> RoleTable:
    return measure_roles(BASELINE, workers=2, tasks=300, seed=1)


def test_every_role_has_its_memory_with_an_interval(table: RoleTable) -> None:
    names = [row.role for row in table.rows]
    assert names == ["coordinator", "worker", "client (this process)", "API"]
    for row in table.rows:
        rss = row.rss_bytes
        assert 5e6 < rss.low <= rss.value <= rss.high < 5e9
    assert [row.processes for row in table.rows] == [1, 2, 1, 1]


def test_processor_time_is_booked_block_by_block(table: RoleTable) -> None:
    series = table.result.series["coordinator cpu_us_per_task"]
    assert len(series) == roles.BLOCKS
    assert table.result.samples == series
    assert sum(value for value in series if value is not None) > 0
    assert table.of("coordinator").cpu_us_per_task.value == table.result.value


def test_a_role_that_is_not_started_is_a_gap_and_not_a_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roles, "API_PACKAGES", ("no_such_package",))
    table = measure_roles(BASELINE, workers=1, tasks=12)
    api = table.of("API")
    assert (api.rss_bytes.value, api.cpu_us_per_task.value) == (None, None)
    assert "it needs the extra [serve]</td><td>unknown" in table._repr_html_()
    frame = table.to_frame().set_index("role")
    assert frame.loc["API", "rss_bytes":].isna().all()
    assert frame.loc["worker", "rss_bytes"] > 5e6


def test_a_worker_with_a_model_has_a_role_of_its_own() -> None:
    lines: list[str] = []
    found = measure_roles(BASELINE, workers=1, tasks=12, model="digits", progress=lines.append)
    assert found.of("worker with digits").processes == 1
    assert found.result.parameters["model"] == found.work == "digits"
    assert lines[0] == "roles: block 1, 2 digits tasks"


def test_a_process_that_ends_meanwhile_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "cpu_times", Mock(side_effect=psutil.NoSuchProcess(1)))
    with pytest.raises(ExperimentError, match="a coordinator ended while it was measured"):
        measure_roles(BASELINE, workers=1, tasks=6)


def test_the_profile_is_that_of_the_coordinators_own_process(tmp_path: Path) -> None:
    path = tmp_path / "profiles" / "coordinator.prof"
    profile = profile_coordinator(BASELINE, path, workers=1, tasks=50)
    assert path.is_file()
    spots = {(spot.file, spot.function): spot for spot in profile.top(100)}
    assert spots["cluster/shells/dispatcher.py", "turn"].calls > 0
    assert spots["cluster/core/scheduler.py", "_finished"].calls == 50


def test_a_missing_profile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truly = roles.LocalCluster

    def without(*args: Any, cprofile: Path, **options: Any) -> Any:
        return truly(*args, **options)

    monkeypatch.setattr(roles, "LocalCluster", without)
    with pytest.raises(ExperimentError, match="wrote no profile"):
        profile_coordinator(BASELINE, tmp_path / "x.prof", workers=1, tasks=5)


def test_the_stages_of_traced_tasks_add_up_to_their_latency() -> None:
    found, result = trace_tasks(BASELINE, workers=1, tasks=20)
    assert found.traces == len(result.samples) == 20
    for number, whole in enumerate(result.samples):
        parts = [column[number] for column in result.series.values()]
        assert len(parts) == 6
        assert sum(part or 0.0 for part in parts) == pytest.approx(whole)
    assert result.value == found.end_to_end.p50_ms.value


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
