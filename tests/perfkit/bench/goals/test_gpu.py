"""The table of goals for watching cards."""

import pytest

from perfkit.bench.goals import gpu
from perfkit.bench.goals.gpu import GOALS, GpuSizes, measure_gpu
from perfkit.bench.workloads.load import ExperimentError, WrongResult

SMALL = GpuSizes(rounds=2, samples=20, watch_s=0.02)


def test_every_goal_has_a_row_with_what_was_measured() -> None:
    said: list[str] = []
    table = measure_gpu(SMALL, progress=said.append)
    assert [row.name for row in table] == [goal.name for goal in GOALS]
    assert all(row.value is not None for row in table)
    assert len(table.of("fast_sample_vs_opening").samples[gpu.OPENING]) == SMALL.rounds
    assert said[0].startswith("gpu: round 1 of 2, ")


def test_there_is_no_table_of_another_profile() -> None:
    with pytest.raises(ExperimentError, match="no profile 'huge'; there are quick, full"):
        measure_gpu("huge")


def test_a_wrong_sample_ends_the_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "VALUES", (12, 0, 0.0))
    with pytest.raises(WrongResult, match="a sample of the made-up card was"):
        measure_gpu(SMALL)


def test_a_sampler_that_kept_too_few_rows_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.GpuSampler, "rows", lambda self, key, group: [])
    with pytest.raises(WrongResult, match="a sampler at 100 Hz kept 0 rows"):
        measure_gpu(SMALL)
