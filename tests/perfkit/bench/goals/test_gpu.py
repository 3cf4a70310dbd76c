"""The table of goals for watching cards, and that the fuzzer finds what it is for."""

from dataclasses import replace
from pathlib import Path

import pytest
from perfkit.bench.goals.gpu_fuzz import fuzz
from perfkit.gpu.base import Found

from perfkit.bench.goals import gpu, gpu_fuzz
from perfkit.bench.goals.gpu import GOALS, GpuSizes, measure_gpu
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.gpu import files, sysfs
from perfkit.gpu.made_up import plant

SMALL = GpuSizes(rounds=4, samples=20, watch_s=0.02, inputs=40)


def test_every_goal_has_a_row_with_what_was_measured(tmp_path: Path) -> None:
    plant(tmp_path / "rx580")
    said: list[str] = []
    table = measure_gpu(SMALL, recorded=tmp_path, progress=said.append)
    assert [row.name for row in table] == [goal.name for goal in GOALS]
    rows = {row.name: row for row in table}
    assert all(row.value is not None for row in table)
    assert rows["bad_inputs"].value == 0
    assert rows["bad_inputs"].met is True
    assert rows["recorded_cards"].met is False
    assert len(rows["fast_sample_vs_opening"].samples[gpu.OPENING]) == SMALL.rounds
    assert "gpu: rx580.gpu_busy_pct is 37, not 11" in said


def test_without_recorded_cards_their_row_is_unknown(tmp_path: Path) -> None:
    row = measure_gpu(replace(SMALL, rounds=2), recorded=tmp_path).of("recorded_cards")
    assert (row.value, row.met) == (None, None)


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


def test_three_thousand_bad_inputs_give_no_exception_and_no_made_up_value() -> None:
    assert list(fuzz(3_000, seed=1)) == []


@pytest.mark.slow
def test_a_hundred_thousand_bad_inputs_give_no_exception_and_no_made_up_value() -> None:
    assert list(fuzz(100_000)) == []


# And it finds what it is for


def test_a_reader_that_guesses_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysfs, "parse_number", lambda raw: 0)
    assert any(" gave 0" in wrong for wrong in fuzz(100))


def test_a_reader_that_takes_what_python_takes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysfs, "parse_number", lambda raw: int(raw.rstrip(files.PADDING)))
    assert any("1_000" in wrong or "+5" in wrong for wrong in fuzz(20_000))


def test_an_exception_that_escapes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> None:
        raise KeyError("drm-pdev")

    monkeypatch.setattr(gpu_fuzz.fdinfo, "parse", fail)
    assert list(fuzz(5)) == ["input 4 of seed 0: KeyError escaped: 'drm-pdev'"]


@pytest.mark.parametrize("reader", ["rocm_smi", "amd_smi", "interpret"])
def test_a_value_that_is_not_in_the_answer_is_caught(
    monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    found = Found()
    found.put("temp_edge_c", 123.456, "nowhere")
    if reader == "interpret":
        monkeypatch.setattr(gpu_fuzz, "interpret", lambda *a: a[2].readings.update(found.readings))
    else:
        monkeypatch.setattr(getattr(gpu_fuzz, reader), "parse", lambda text: {"card0": found})
    assert any("gave temp_edge_c 123.456" in wrong for wrong in fuzz(50))
