"""The table of goals for watching cards."""

import json
from pathlib import Path

import pytest

from perfkit.bench.goals import gpu
from perfkit.bench.goals.gpu import GOALS, GpuSizes, measure_gpu
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.gpu.device.made_up import plant

SMALL = GpuSizes(rounds=2, samples=20, watch_s=0.02, torn=20)
COUNTED = ["fields_right", "recordings_right", "torn_inputs"]


def test_every_goal_has_a_row_with_what_was_measured() -> None:
    said: list[str] = []
    table = measure_gpu(SMALL, progress=said.append)
    assert [row.name for row in table] == [*(goal.name for goal in GOALS), *COUNTED]
    assert all(table.of(goal.name).value is not None for goal in GOALS)
    for name in COUNTED[:2]:
        row = table.of(name)
        assert (row.value, row.met) == (None, None)
        assert "none were given" in row.note
    assert (table.of("torn_inputs").value, table.of("torn_inputs").met) == (0.0, None), "too few"
    assert [note.partition(":")[0] for note in table.notes] == COUNTED
    assert len(table.of("fast_sample_vs_opening").samples[gpu.OPENING]) == SMALL.rounds
    assert said[0].startswith("gpu: round 1 of 2, ")


def test_recordings_are_compared_with_what_is_right_and_mistakes_told(tmp_path: Path) -> None:
    for name, busy in (("good", 37), ("bad", 38)):
        plant(tmp_path / name / "drm")
        right = {"gpu": {"0000:0a:00.0": {"gpu_busy_pct": busy, "temp_memory_c": None}}}
        (tmp_path / name / "right.json").write_text(json.dumps(right))
    table = measure_gpu(SMALL, recorded=tmp_path)
    fields, recordings = table.of("fields_right"), table.of("recordings_right")
    assert (fields.value, fields.low, fields.met) == (75.0, 75.0, False)
    assert fields.note == "3 of 4 fields of recorded cards"
    assert (recordings.value, recordings.met) == (50.0, False)
    assert table.notes[-1] == "bad 0000:0a:00.0 gpu_busy_pct is 37; right is 38"


def test_a_torn_input_that_is_read_wrongly_misses_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "torn_inputs", lambda inputs, seed: ["input 3: wrong"] * 12)
    table = measure_gpu(SMALL)
    row = table.of("torn_inputs")
    assert (row.value, row.met) == (12.0, False)
    assert table.notes[-1] == "… 12 in all"
    monkeypatch.setattr(gpu, "torn_inputs", lambda inputs, seed: [])
    monkeypatch.setattr(gpu, "TORN_MIN", SMALL.torn)
    assert measure_gpu(SMALL).of("torn_inputs").met


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
