"""What the hot-paths notebook says must follow from the numbers, good news and bad."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from cluster.spec import BASELINE, ClusterSpec
from perfkit.bench.experiments.ablation import AGAIN, FIGURE, IDEAS, IdeaResult, Study, climb, study
from perfkit.bench.experiments.roles import LoneTraces
from perfkit.bench.goals import cluster_runs as runs
from perfkit.bench.goals.cluster import GOALS
from perfkit.bench.goals.table import GoalTable, make_row
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.verdicts import Verdict
from perfkit.optimized.specs import ABLATIONS, LADDER, OPTIMIZED
from perfkit.profile.latency import STAGES, waterfall
from perfkit.report.engine import headlines
from perfkit.report.stories import hot_paths, targets
from perfkit.report.stories.hot_paths import Ideas
from tests.perfkit.machine import HERE

SPEEDS = {"batch-assignment": 100.0, "runs": 100.0, "optimized": 150.0, "packed-codec": 0.5}
PREDICTED = {"batch-assignment": 20.0, "packed-codec": 1.2, "socket-tuning": 1.0}
BY_NAME = {idea.name: idea for idea in IDEAS}


def speed(spec: ClusterSpec) -> Mapping[str, float]:
    return {FIGURE: SPEEDS.get(spec.name, 1.0)}


def made_up(name: str, specs: list[ClusterSpec]) -> Study:
    return study(name, speed, [BASELINE, *specs], unit="tasks/s", blocks=4)


@pytest.fixture(scope="module")
def maps() -> Study:
    return made_up("map", [*ABLATIONS.values(), *LADDER[1:]])


@pytest.fixture
def ideas(maps: Study) -> Ideas:
    def row(name: str) -> IdeaResult:
        factor = PREDICTED.get(name)
        predicted = Interval(factor, factor, factor, 0.95, "made up")
        share = bootstrap_interval([0.3] * 3)
        return IdeaResult(BY_NAME[name], share, 0.0, predicted, maps.compared(name))

    rows = tuple(row(name) for name in ("batch-assignment", "packed-codec", "socket-tuning"))
    return Ideas(rows, hot_paths.special_loads({"1 MiB": made_up("big", [*LADDER[-1:]])}))


def test_each_idea_is_told_by_its_figures(ideas: Ideas) -> None:
    batch, packed, tuning = ideas.words.sentences
    assert "20 × was predicted" in batch
    assert "measured 100 × of baseline: faster" in batch
    assert "More than predicted" in batch
    assert batch.endswith("It is in OPTIMIZED.")
    assert "0.5 ×" in packed
    assert "Less than predicted" in packed
    assert packed.endswith("It did not pay here; it is in OPTIMIZED.")
    assert tuning.endswith("It did not pay here; it is left out of OPTIMIZED.")


def test_the_pictures_carry_prediction_and_control(ideas: Ideas) -> None:
    bars = ideas.bars()
    assert [(bar.label, bar.claim) for bar in bars[:2]] == [
        ("batch-assignment", 20.0),
        ("packed-codec", 1.2),
    ]
    assert bars[-1].label.startswith("A/A")
    assert bars[-1].value == pytest.approx(1.0)
    assert [bar.label for bar in ideas.special_bars()] == ["optimized, 1 MiB"]
    shown = ideas._repr_html_()
    assert "over 4 blocks" in shown
    assert "30 %: the codec" in shown


def test_ideas_are_headlines_with_their_predictions(ideas: Ideas, tmp_path: Path) -> None:
    ideas.record(tmp_path)
    found = {headline.title: headline for headline in headlines.load(tmp_path)}
    assert found["Idea: batch-assignment"].claim == 20.0
    assert found["Idea: batch-assignment"].verdict is Verdict.FASTER
    assert found["Idea: packed-codec"].verdict is Verdict.SLOWER


def test_the_ladder_in_words_and_bars(maps: Study) -> None:
    rungs = climb(maps)
    assert [bar.label for bar in hot_paths.ladder(rungs)][:3] == ["baseline", AGAIN, "runs"]
    told = hot_paths.ladder_words(rungs).sentences
    assert told[0] == "runs does 100 × baseline."
    assert told[-1] == "All together: 150 × of the baseline."


def test_full_measures_more_of_everything() -> None:
    quick, full = (hot_paths.task_counts(profile, 4_000) for profile in ("quick", "full"))
    assert full["profiled"] == 5 * quick["profiled"]
    less, more = (hot_paths.goal_sizes(profile, 4_000) for profile in ("quick", "full"))
    assert (more.rounds, more.map_tasks) == (2 * less.rounds, 5 * less.map_tasks)
    assert hot_paths.tasks_of("optimized", 10) > hot_paths.tasks_of("baseline", 10)


def test_the_plans_targets_are_judged_by_whole_intervals(maps: Study) -> None:
    stamps = [(n, n + 0.001, n + 0.002, n + 0.005, n + 0.006, n + 0.007, n + 0.008)
              for n in range(1, 12)]  # fmt: skip
    table = targets.about_targets(
        waterfall(stamps), maps.results["baseline"], maps, targets.serialization_ms(20, seed=1)
    )
    found = {row.what: row for row in table.rows}
    assert found["Assignment"].figure.value == pytest.approx(4.0)
    assert found["Assignment"].verdict is Verdict.MISSED
    assert found["Round trip, slowest hundredth"].figure.value is None
    assert found["Task throughput, optimised"].figure.value == 150.0
    assert (found["Serialization"].figure.value or 0) > 0
    assert "targets" in table._repr_html_()


def test_a_lone_task_has_one_figure_in_each_placement() -> None:
    stamps = [(n, n + 0.001, n + 0.002, n + 0.005, n + 0.006, n + 0.007, n + 0.008)
              for n in range(1, 12)]  # fmt: skip
    traces = LoneTraces({("optimized", "one core"): waterfall(stamps)}, {})
    samples = {
        figure: {
            OPTIMIZED.name: [3 * us, 3 * us, 3 * us],
            BASELINE.name: [4 * us, 4 * us, 4 * us],
            runs.ROUND_TRIP: [us, us, us],
            runs.MESSAGES: [1.5 * us, 1.5 * us, 1.5 * us],
        }
        for figure, us in (("latency_p50", 100.0), ("unpinned_p50", 200.0))
    }
    rows = tuple(make_row(goal, samples) for goal in GOALS)
    table = GoalTable(rows, HERE, "quick", 0, "", 0.0)
    pinned, unpinned, hops = hot_paths.lone_words(traces, table).sentences
    assert pinned.startswith("Pinned, a lone task takes 300 µs")
    assert "the baseline's 400 µs: 0.75 × " in pinned
    assert "3 × the bare hop, 2 × the same messages" in pinned
    assert unpinned.startswith("Not pinned, a lone task takes 600 µs")
    assert hops.startswith("optimized, one core: 6 ms of 8 ms")
    (row,) = hot_paths.lone_stages(traces)
    assert [bar.label for bar in hot_paths.lone_stages(traces)[row]] == [*STAGES]
    assert hot_paths.lone_wholes(traces)[row].value == pytest.approx(8.0)
