"""Cards watched beside real tasks: whose card it is, what is kept, and which energy is believed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.bench.experiments import watched as module
from perfkit.bench.experiments.watched import Origin, Series, Watched, energy, find_cards, watch
from perfkit.bench.workloads.load import ExperimentError
from perfkit.gpu.sampler import GAP_MAX_S
from perfkit.optimized.specs import OPTIMIZED
from tests.perfkit.gpu.trees import plant


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
    with find_cards(tmp_path, "") as source:
        assert (source.origin, source.is_own, source.may_change) == (Origin.GIVEN, False, True)


def test_without_a_card_a_recorded_one_is_shown_and_it_is_said_why(
    no_own_card: str, tmp_path: Path
) -> None:
    plant(tmp_path / "recorded")
    with find_cards(no_own_card, tmp_path / "recorded") as source:
        assert (source.origin, source.may_change) == (Origin.RECORDED, False)
        assert source.root == tmp_path / "recorded"
        assert source.missing == f"no AMD card below {no_own_card}"


def test_without_a_recording_a_made_up_card_is_shown(
    no_own_card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STAND_IN", tmp_path / "nothing")
    with find_cards(no_own_card, tmp_path / "nothing") as source:
        assert source.origin is Origin.MADE_UP
        assert (source.root / "card0").is_dir()
    assert not source.root.exists()


def test_a_folder_that_was_named_must_be_there_and_hold_a_card(
    no_own_card: str, tmp_path: Path
) -> None:
    nowhere = find_cards(tmp_path / "nowhere", "")
    with (
        pytest.raises(ExperimentError, match=r"drm_root: .*nowhere is not a folder"),
        nowhere,
    ):
        pass
    no_card = find_cards(no_own_card, tmp_path)
    with pytest.raises(ExperimentError, match=r"recorded: no AMD card below .*; give"), no_card:
        pass


def test_a_relative_path_begins_at_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = module.resolved("notebooks")
    monkeypatch.chdir(tmp_path)
    assert module.resolved("notebooks") == before
    assert (before / "05_gpu.ipynb").is_file()
    assert module.resolved(tmp_path) == tmp_path


def watched_card(root: Path) -> Watched:
    with find_cards(root, "") as source:
        return watch(OPTIMIZED, source, workers=1, tasks=200, seconds=0.2, seed=1)


def test_blocks_and_readings_are_on_one_clock_and_saved(tmp_path: Path) -> None:
    plant(tmp_path)
    ran = watched_card(tmp_path)
    (card,) = ran.cards
    assert card.key == "0000:0a:00.0"
    assert {value for _, value in card.series["power_w"]} == {83.021}
    assert {value for _, value in card.series["temp_junction_c"]} == {None}
    assert (
        card.series["power_w"][0][0] <= 0 < ran.blocks[-1].ended_s < card.series["power_w"][-1][0]
    )
    starts = [block.began_s for block in ran.blocks]
    assert starts == sorted(starts)
    assert starts[-1] < 0.2
    assert ran.result.tasks == 200 * len(ran.blocks)
    assert ran.result.samples == [block.tasks_per_s for block in ran.blocks]
    assert ran.result.parameters["cards"] == "given"
    assert ran.result.series["0000:0a:00.0 gpu_busy_pct"][0] == 37
    times = ran.result.series["0000:0a:00.0 gpu_busy_pct at_s"]
    assert len(times) == len(card.series["gpu_busy_pct"])

    per_task = ran.energy_mj_per_task(card)
    rate = ran.result.value
    assert rate is not None
    assert per_task.value == pytest.approx(1e3 * 83.021 / rate, rel=0.2)


def test_energy_is_unknown_where_the_card_tells_no_power(tmp_path: Path) -> None:
    device = plant(tmp_path)
    (device / "hwmon/hwmon2/power1_input").unlink()
    ran = watched_card(tmp_path)
    assert ran.energy_mj_per_task(ran.cards[0]).value is None


RAMP: Series = [(0.0, 10.0), (1.0, 20.0), (2.0, 20.0), (3.0, None), (4.0, 20.0), (5.0, 20.0)]


@pytest.mark.parametrize(
    ("from_s", "to_s", "joules"),
    [
        (0.0, 1.0, 15.0),
        (0.5, 2.0, 8.75 + 20.0),
        (0.2, 0.4, 2.6),
        (4.0, 5.0, 20.0),
        (1.5, 2.5, None),  # rests on a reading that is unknown
        (-1.0, 1.0, None),  # nothing was read before
        (4.5, 5.5, None),  # nor after
    ],
)
def test_energy_between_two_moments(from_s: float, to_s: float, joules: float | None) -> None:
    assert energy(RAMP, from_s, to_s) == (None if joules is None else pytest.approx(joules))


def test_power_too_far_apart_is_no_energy() -> None:
    assert energy([(0.0, 1.0), (GAP_MAX_S, 1.0)], 1.0, 2.0) == pytest.approx(1.0)
    assert energy([(0.0, 1.0), (GAP_MAX_S + 0.1, 1.0)], 1.0, 2.0) is None
    assert energy([], 0.0, 1.0) is None


@given(
    st.lists(st.floats(0, 500), min_size=2, max_size=20),
    st.tuples(*[st.floats(0, 1)] * 3),
)
def test_energies_of_parts_add_up_to_that_of_the_whole(
    watts: list[float], cuts: tuple[float, float, float]
) -> None:
    points = [(float(at), value) for at, value in enumerate(watts)]
    a, b, c = (cut * (len(watts) - 1) for cut in sorted(cuts))
    parts = [energy(points, a, b), energy(points, b, c)]
    whole = energy(points, a, c)
    assert whole is not None
    assert sum(part for part in parts if part is not None) == pytest.approx(whole, abs=1e-6)
    assert None not in parts
