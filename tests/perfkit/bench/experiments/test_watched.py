"""Cards watched beside real tasks: whose card it is, and the saved series."""

import statistics
from pathlib import Path

import pytest

from perfkit.bench.experiments import watched as module
from perfkit.bench.experiments.watched import Origin, find_cards, watch
from perfkit.bench.workloads.load import ExperimentError
from perfkit.gpu.device.made_up import plant
from perfkit.optimized.specs import OPTIMIZED


@pytest.fixture
def no_own_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that the module takes for the machine's own, without a card."""
    root = tmp_path / "drm"
    root.mkdir()
    monkeypatch.setattr(module, "DRM_ROOT", root)
    return str(root)


def test_a_card_of_the_machine_comes_before_any_recording(no_own_card: str, tmp_path: Path) -> None:
    plant(Path(no_own_card))
    plant(tmp_path / "recorded")
    with find_cards(no_own_card, tmp_path / "recorded") as source:
        assert (source.origin, source.is_own, source.missing) == (Origin.MACHINE, True, "")


def test_cards_of_a_named_folder_are_not_taken_for_the_machines(tmp_path: Path) -> None:
    plant(tmp_path)
    with find_cards(tmp_path) as source:
        assert (source.origin, source.is_own, source.may_change) == (Origin.GIVEN, False, True)


def test_without_a_card_a_recorded_one_is_shown_and_why(no_own_card: str, tmp_path: Path) -> None:
    plant(tmp_path / "recorded")
    with find_cards(no_own_card, tmp_path / "recorded") as source:
        assert (source.origin, source.may_change) == (Origin.RECORDED, False)
        assert source.root == tmp_path / "recorded"
        assert source.missing == f"no AMD card below {no_own_card}"


def test_without_a_recording_a_made_up_card_is_shown(no_own_card: str) -> None:
    with find_cards(no_own_card) as source:
        assert source.origin is Origin.MADE_UP
        assert (source.root / "card0").is_dir()
    assert not source.root.exists()


def test_a_named_folder_must_exist_and_hold_a_card(no_own_card: str, tmp_path: Path) -> None:
    nowhere = find_cards(tmp_path / "nowhere")
    with (
        pytest.raises(ExperimentError, match=r"drm_root: .*nowhere is not a folder"),
        nowhere,
    ):
        pass
    no_card = find_cards(no_own_card, tmp_path)
    with pytest.raises(ExperimentError, match=r"recorded: no AMD card below .*; give"), no_card:
        pass


def test_a_path_begins_at_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = module.resolved("notebooks")
    monkeypatch.chdir(tmp_path)
    assert module.resolved("notebooks") == before
    assert (before / "05_gpu.ipynb").is_file()
    assert module.resolved(tmp_path) == tmp_path


def test_blocks_and_samples_are_on_one_clock_and_saved(tmp_path: Path) -> None:
    plant(tmp_path)
    with find_cards(tmp_path) as source:
        ran = watch(OPTIMIZED, source, workers=1, tasks=200, seconds=0.2, seed=1)
    (card,) = ran.cards
    assert card.key == "0000:0a:00.0"
    assert {value for _, value in card.series["power_w"]} == {83.021}
    assert {value for _, value in card.series["temp_junction_c"]} == {None}
    first_s, last_s = card.series["power_w"][0][0], card.series["power_w"][-1][0]
    assert first_s <= 0 < ran.blocks[-1].ended_s < last_s
    assert ran.blocks[-1].began_s < 0.2
    assert ran.result.tasks == 200 * len(ran.blocks)
    assert ran.result.samples == [block.tasks_per_s for block in ran.blocks]
    assert ran.result.parameters["cards"] == "given"
    assert ran.result.series["0000:0a:00.0 gpu_busy_pct"][0] == 37
    times = ran.result.series["0000:0a:00.0 gpu_busy_pct at_s"]
    assert len(times) == len(card.series["gpu_busy_pct"])

    per_task_mj = [1e3 * 83.021 / rate for rate in ran.result.samples]
    found = ran.energy_mj_per_task(card).value
    assert found == pytest.approx(statistics.median(per_task_mj), rel=0.01)
