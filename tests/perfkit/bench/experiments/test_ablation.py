"""What an idea is worth: Amdahl's arithmetic, arms in turns, and the ideas in OPTIMIZED."""

from collections.abc import Mapping

import pytest

from cluster.spec import BASELINE, ClusterSpec
from perfkit.bench.experiments import ablation
from perfkit.bench.experiments.ablation import AGAIN, FIGURE, IDEAS, amdahl, climb, predict, study
from perfkit.bench.workloads.load import echo_work
from perfkit.evidence.verdicts import Verdict
from perfkit.optimized.specs import ABLATIONS, LADDER, OPTIMIZED
from perfkit.profile.cpu import CpuProfile, Table

BY_NAME = {idea.name: idea for idea in IDEAS}
TURN = ("cluster/shells/dispatcher.py", 10, "turn")
#: A codec that takes a quarter of all turns.
TABLE: Table = {
    TURN: (1, 1, 3.0, 4.0, {("cluster/shells/coordinator.py", 1, "run"): (1, 1, 3.0, 4.0)}),
    ("cluster/protocol/codec.py", 30, "encode"): (2, 2, 1.0, 1.0, {TURN: (2, 2, 1.0, 1.0)}),
}
PROFILE = CpuProfile("made up", TABLE)


def speeds(spec: ClusterSpec) -> Mapping[str, float]:
    return {FIGURE: 50.0 if spec.name == OPTIMIZED.name else 1.0}


@pytest.mark.parametrize(
    ("touched", "left", "factor"),
    [(0.5, 0.0, 2.0), (0.5, 1.0, 1.0), (0.8, 0.25, 2.5), (0, 0, 1), (1.0, 0.0, None)],
)
def test_amdahl(touched: float, left: float, factor: float | None) -> None:
    assert amdahl(touched, left) == pytest.approx(factor)


def test_a_prediction_takes_the_remaining_part_from_the_counts() -> None:
    counts = {"baseline": {ablation.CODEC_COST: 4.0}, "packed-codec": {ablation.CODEC_COST: 1.0}}
    share, left, factor = predict(BY_NAME["packed-codec"], [PROFILE], counts)
    assert (share.value, left) == (0.25, 0.25)
    assert factor.value == pytest.approx(1 / (0.75 + 0.25 * 0.25))


def test_without_counts_nothing_is_predicted() -> None:
    share, left, factor = predict(BY_NAME["packed-codec"], [PROFILE], {})
    assert (share.value, left, factor.value) == (0.25, None, None)
    assert predict(BY_NAME["pipelining"], [PROFILE], {})[2].value is None


def test_every_idea_of_the_plan_is_studied_and_some_are_left_out() -> None:
    assert BY_NAME.keys() == ABLATIONS.keys()
    left_out = {idea.name for idea in IDEAS if not idea.kept}
    assert left_out == {"priority-queue", "pooling", "socket-tuning"}


def test_arms_take_turns_and_twins_share_one() -> None:
    ran: list[str] = []

    def load(spec: ClusterSpec) -> Mapping[str, float]:
        ran.append(spec.name)
        return speeds(spec)

    found = study("made up", load, [BASELINE, *LADDER[1:], ABLATIONS["batch-assignment"]],
                  unit="/s", blocks=4)  # fmt: skip
    assert len(ran) == 4 * (len(LADDER) + 1)
    assert ran.count("baseline") == 8
    arms = len(LADDER) + 1
    assert ran[:arms] == ran[arms : 2 * arms][::-1]
    assert found.figures["batch-assignment"] == found.figures["runs"]
    assert found.results[AGAIN].parameters["arm"] == AGAIN
    assert found.results["optimized"].samples == [50.0] * 4


def test_a_study_compares_with_the_control_beside_it() -> None:
    found = study("made up", speeds, [BASELINE, *LADDER[1:]], unit="/s", blocks=4)
    faster = found.compared("optimized")
    assert (faster.ratio, faster.verdict) == (pytest.approx(50.0), Verdict.FASTER)
    assert faster.aa_ratio == pytest.approx(1.0)
    against = found.compared("optimized", against="runs")
    assert (against.ratio, against.aa_ratio) == (pytest.approx(50.0), pytest.approx(1.0))
    rungs = climb(found)
    assert [rung.name for rung in rungs][:3] == ["baseline", AGAIN, "runs"]
    assert rungs[0].gain is None
    assert rungs[-1].figure.value == 50.0


@pytest.mark.parametrize("fresh", [True, False])
def test_a_block_of_a_map_is_a_rate_on_a_fresh_cluster_or_a_kept_one(fresh: bool) -> None:
    with ablation.clusters(1, fresh=fresh) as running:
        with running(BASELINE) as (first, _), running(BASELINE) as (second, _):
            assert (first is second) is not fresh
        found = ablation.mapping(echo_work(60, 1), running, block_s=0.001)(BASELINE)
    assert found[FIGURE] > 0
    assert found["cpu_us"] >= 0


def test_a_block_of_choices_is_a_rate() -> None:
    assert ablation.choosing(10, 20, seed=1)(OPTIMIZED)[FIGURE] > 0
