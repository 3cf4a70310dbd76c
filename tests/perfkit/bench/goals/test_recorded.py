"""Recordings compared with what is right: cards field by field, profiles figure by figure."""

import json
from pathlib import Path
from typing import Any

import pytest

from perfkit.bench.goals.recorded import read_recordings
from perfkit.bench.workloads.load import ExperimentError
from perfkit.gpu.device.made_up import POLARIS, plant
from tests.perfkit.gpu import right
from tests.perfkit.gpu.profiles import V3_TRACE
from tests.perfkit.gpu.test_recorded_cards import EXPECTED
from tests.perfkit.gpu.trees import RECORDINGS

CARD = {
    "state": "active", "power_w": 83.021, "power_kind": "instant", "temp_junction_c": None,
    "is_apu": False,
}  # fmt: skip
SAXPY = {"name": "saxpy(int, float*)", "duration_ns": 4_000, "grid": [1024, 8, 1]}


def recording(root: Path, name: str, answers: Any) -> Path:
    """A folder with the made-up card, a profile, and what is right of them."""
    plant(root / name / "drm")
    (root / name / "trace.csv").write_text(V3_TRACE)
    (root / name / "no.csv").write_text("a,b\n1,2\n")
    (root / name / "right.json").write_text(json.dumps(answers))
    return root / name


def test_what_is_right_is_counted(tmp_path: Path) -> None:
    answers = {
        "gpu": {"0000:0a:00.0": CARD},
        "kernels": {
            "trace.csv": {"kernels": [SAXPY, {}], "transfers": []},
            "no.csv": {"error": "no.csv"},
        },
    }
    recording(tmp_path, "one", answers)
    (found,) = read_recordings(tmp_path)
    assert found.wrong == ()
    assert (found.name, found.figures_n, found.fields_n) == ("one", len(CARD) + 4 + 1 + 1, 5)


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ({"gpu": {"0000:0a:00.0": {"power_w": 83.1}}}, "one 0000:0a:00.0 power_w is 83.021; "),
        ({"gpu": {"0000:0b:00.0": {"fan_rpm": 5}}}, "one 0000:0b:00.0 fan_rpm is null; right is 5"),
        ({"gpu": {"0000:0a:00.0": {"is_apu": 0}}}, "is_apu is false; right is 0"),
        ({"kernels": {"trace.csv": {"kernels": [SAXPY]}}}, "one/trace.csv kernels is ["),
        ({"kernels": {"trace.csv": {"kernels": [SAXPY, {"duration_ns": 5}]}}}, "kernels[1] dura"),
        ({"kernels": {"trace.csv": {"error": "what"}}}, "trace.csv error is null; right is "),
        ({"kernels": {"no.csv": {"error": "sleepy"}}}, 'right is "sleepy"'),
        ({"kernels": {"missing.csv": {"format": "x"}}}, "missing.csv format is null"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, answers: Any, wrong: str) -> None:
    recording(tmp_path, "one", answers)
    (found,) = read_recordings(tmp_path)
    assert len(found.wrong) == 1
    assert wrong in found.wrong[0]
    assert found.fields_wrong_n == ("gpu" in answers)


def test_a_recording_may_be_the_tree_itself_and_lie_anywhere_below(tmp_path: Path) -> None:
    plant(tmp_path / "a" / "b", {**POLARIS, "gpu_busy_percent": "5\n"})
    answers = {"gpu": {"0000:0a:00.0": {"gpu_busy_pct": 5}}}
    (tmp_path / "a" / "b" / "right.json").write_text(json.dumps(answers))
    (found,) = read_recordings(tmp_path)
    assert (found.name, found.wrong, found.figures_n) == ("a/b", (), 1)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"gpu": 5}'])
def test_without_right_answers_nothing_is_compared(tmp_path: Path, content: str | None) -> None:
    plant(tmp_path / "one")
    if content is not None:
        (tmp_path / "one" / "right.json").write_text(content)
    with pytest.raises(ExperimentError, match=r"right\.json"):
        read_recordings(tmp_path)


def test_what_is_right_of_the_recordings_is_written_and_compared(tmp_path: Path) -> None:
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings in {RECORDINGS}")
    written = right.write(tmp_path)
    found = read_recordings(tmp_path)
    assert len(found) == written
    names = {recording.name for recording in found}
    assert {f"sysfs/{name}" for name in EXPECTED} <= names
    assert {recording.wrong for recording in found if recording.name.startswith("sysfs/")} == {()}
