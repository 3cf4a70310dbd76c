"""The table of goals for serving: rows from made-up samples, and a small table of real ones."""

from collections.abc import Mapping, Sequence

import msgspec
import pytest

from cluster.models.inference import ModelInfo, ModelRepository
from cluster.models.runtime.loss import Loss
from perfkit.bench.goals import serving
from perfkit.bench.goals.serving import (
    HOSTILE_MIN,
    goals_of,
    hostile_row,
    measure_serving,
    missing_row,
    serving_rows,
)
from perfkit.bench.goals.serving_runs import (
    AGAIN,
    AUTOMATIC,
    BARE,
    LOCAL,
    QUIET,
    SWALLOWED,
    UNBATCHED,
    ServingSizes,
)
from perfkit.bench.goals.table import OPTIMIZED, GoalRow, verdict
from perfkit.bench.serving.attacker import Hostility
from perfkit.bench.workloads.load import ExperimentError

SIZES = ServingSizes(rounds=8, load_s=0.2, open_s=0.5)
STEADY = (0.99, 1.0, 1.01, 1.0, 1.005, 0.995, 1.0, 1.0)


def samples(**figures: Mapping[str, float]) -> dict[str, dict[str, list[float]]]:
    """Eight steady rounds of each arm around its figure; the noise does not repeat across arms."""
    return {
        name: {
            arm: [figure * noise for noise in STEADY[at % 8 :] + STEADY[: at % 8]]
            for at, (arm, figure) in enumerate(arms.items())
        }
        for name, arms in figures.items()
    }


def rows(
    peers: Sequence[str] = ("litserve",),
    automatic: Mapping[str, ModelInfo] = {},
    **figures: Mapping[str, float],
) -> dict[str, GoalRow]:
    found = serving_rows(SIZES, peers, samples(**figures), automatic=automatic)
    return {row.name: row for row in found}


@pytest.fixture(scope="module")
def automatic() -> dict[str, ModelInfo]:
    """The plan's models as if auto had taken the file as it is, and int8 twice."""
    info = ModelRepository().load("digits").describe()
    losses = {
        "digits": None,
        "minilm": Loss(0.1, -0.1, 0.3, 700),
        "magika": Loss(0.1, 0, 0.4, 1500),
    }
    return {name: msgspec.structs.replace(info, loss=loss) for name, loss in losses.items()}


def test_each_figure_is_held_against_each_peer_and_the_bare_servers() -> None:
    names = [goal.name for goal in goals_of(SIZES, ("litserve", "pytriton"))]
    assert len(names) == len(set(names))
    for model, count in (("digits", 1), ("digits", 8), ("digits", 32), ("texts", 32)):
        assert {f"{model}_{count}_vs_{arm}" for arm in ("litserve", "pytriton", "bare")} < {*names}
    assert {"minilm_p99_vs_pytriton", "magika_vs_unbatched", "local_8_vs_bare"} < {*names}


def test_a_peer_is_beaten_or_not_by_the_whole_interval() -> None:
    arms = {OPTIMIZED: 2000.0, AGAIN: 2000.0, BARE: 4000.0, UNBATCHED: 1000.0}
    found = rows(digits_32={**arms, "litserve": 500.0}, minilm_32={**arms, "litserve": 3000.0})
    won, lost = found["digits_32_vs_litserve"], found["minilm_32_vs_litserve"]
    assert (won.met, lost.met) == (True, False)
    assert won.ratio == pytest.approx(4.0, rel=0.02)
    assert verdict(found["digits_32_vs_bare"]) == "–", "for comparison"
    assert found["digits_again"].ratio == pytest.approx(1.0, rel=0.02)
    assert verdict(found["texts_32_vs_litserve"]) == "inconclusive", "not measured"


def test_a_verdict_within_the_noise_of_the_api_itself_is_inconclusive() -> None:
    arms = {OPTIMIZED: 1100.0, "litserve": 1000.0, BARE: 1.0, UNBATCHED: 1.0}
    assert rows(digits_32={**arms, AGAIN: 1100.0})["digits_32_vs_litserve"].met is True
    doubted = rows(digits_32={**arms, AGAIN: 900.0})["digits_32_vs_litserve"]
    assert doubted.met is None
    assert "A/A" in doubted.note
    clear = rows(digits_32={**arms, AGAIN: 900.0, "litserve": 100.0})["digits_32_vs_litserve"]
    assert clear.met is True


def test_a_p99_has_to_be_lower() -> None:
    found = rows(minilm_p99={OPTIMIZED: 20.0, "litserve": 30.0, BARE: 10.0})
    assert found["minilm_p99_vs_litserve"].met is True
    assert found["minilm_p99_vs_bare"].goal is None
    assert (
        rows(minilm_p99={OPTIMIZED: 40.0, "litserve": 30.0})["minilm_p99_vs_litserve"].met is False
    )


@pytest.mark.parametrize(
    ("fast", "expected"), [(("digits", "minilm"), True), (("digits",), False), ((), False)]
)
def test_the_plan_asks_for_two_models_of_three(
    fast: tuple[str, ...], expected: bool, automatic: dict[str, ModelInfo]
) -> None:
    figures = {}
    for model in ("digits", "minilm", "magika"):
        factor = 2.0 if model in fast else 1.0
        figures[f"plan_rate_{model}"] = {OPTIMIZED: 100.0 * factor, UNBATCHED: 100.0}
        figures[f"plan_time_{model}"] = {OPTIMIZED: 300.0 / factor, UNBATCHED: 300.0}
    found = rows(automatic=automatic, **figures)
    assert (found["plan_models"].value, found["plan_models"].met) == (float(len(fast)), expected)
    loss = found["plan_loss_minilm"]
    assert (loss.value, loss.low, loss.high, loss.met) == (0.1, -0.1, 0.3, True)
    assert found["plan_loss_digits"].value == 0.0


@pytest.mark.parametrize(("high", "met"), [(0.6, None), (0.3, True)])
def test_a_faster_model_whose_accuracy_is_in_doubt_does_not_count(
    high: float, met: bool | None, automatic: dict[str, ModelInfo]
) -> None:
    loss = Loss(0.1, 0.0, high, 700)
    doubtful = msgspec.structs.replace(automatic["minilm"], loss=loss)
    figures = {}
    for model, factor in (("digits", 2.0), ("minilm", 2.0), ("magika", 1.0)):
        figures[f"plan_rate_{model}"] = {OPTIMIZED: 100.0 * factor, UNBATCHED: 100.0}
        figures[f"plan_time_{model}"] = {OPTIMIZED: 300.0 / factor, UNBATCHED: 300.0}
    found = rows(automatic={**automatic, "minilm": doubtful}, **figures)
    assert (found["plan_loss_minilm"].met, found["plan_models"].met) == (met, met)


def test_the_plan_is_inconclusive_while_a_second_model_is_possible(
    automatic: dict[str, ModelInfo],
) -> None:
    figures = {}
    for model in ("digits", "minilm"):
        figures[f"plan_rate_{model}"] = {OPTIMIZED: 200.0, UNBATCHED: 100.0}
    figures["plan_time_digits"] = {OPTIMIZED: 100.0, UNBATCHED: 300.0}
    row = rows(automatic=automatic, **figures)["plan_models"]
    assert (row.value, row.low, row.high, row.met) == (1.0, 1.0, 3.0, None)


def test_a_peer_that_is_not_measured_has_its_reason_and_no_figure() -> None:
    row = missing_row("mlserver", "pip could not install mlserver: ERROR: no space")
    assert (row.name, row.value, row.met, verdict(row)) == ("mlserver", None, None, "–")
    assert (row.goal_text, row.note) == (
        "not measured", "pip could not install mlserver: ERROR: no space",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "unclear", "met"),
    [(HOSTILE_MIN, 0, True), (HOSTILE_MIN, 1, False), (HOSTILE_MIN - 1, 0, None), (10, 1, False)],
)
def test_enough_hostile_requests_are_needed_for_a_verdict(
    sent: int, unclear: int, met: bool | None
) -> None:
    row = hostile_row(Hostility(sent, unclear=["a bomb: status 200"] * unclear))
    assert (row.value, row.met) == (float(unclear), met)


def test_there_is_no_table_of_another_profile_or_peer() -> None:
    with pytest.raises(ExperimentError, match="no profile 'huge'; there are quick, full"):
        measure_serving("huge")
    with pytest.raises(ExperimentError, match="no peer 'nginx'"):
        measure_serving(ServingSizes(1, 0.1, 0.1), peers="nginx")


def test_a_missing_package_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(serving.NEEDED, "no_such_package", "serve")
    with pytest.raises(
        ExperimentError, match=r"needs no_such_package; pip install 'perfkit\[serve"
    ):
        measure_serving("quick")


@pytest.mark.slow
def test_a_small_table_of_real_servers() -> None:
    said: list[str] = []
    sizes = ServingSizes(
        rounds=3, load_s=0.2, open_s=0.3, memory_rounds=1, hostile=60, models=("digits",)
    )
    table = measure_serving(sizes, peers="none", progress=said.append)
    for count in sizes.connections:
        row = table.of(f"digits_{count}_vs_bare")
        assert row.samples.keys() == {OPTIMIZED, AGAIN, AUTOMATIC, LOCAL, BARE, UNBATCHED}
        assert all(len(block) == sizes.rounds for block in row.samples.values())
        assert table.of(f"local_{count}_vs_bare").ratio is not None
    for name in ("api_idle", "api_loaded", "hostile_memory"):
        assert table.of(name).value is not None
    assert table.of("hostile_others_p99").samples.keys() == {OPTIMIZED, SWALLOWED, QUIET}
    assert table.of("hostile_refused").value == 0.0, table.notes
    assert table.of("litserve").note == "left out by --peers none"
    assert any("load generator used" in note for note in table.notes)
    assert said[0].startswith("serving: ")
