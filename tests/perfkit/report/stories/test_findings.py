"""The findings follow from the results of a run alone; what the run left out is a gap."""

from dataclasses import asdict
from pathlib import Path

from perfkit.bench.goals import cluster
from perfkit.bench.goals.table import GoalTable, make_row
from perfkit.evidence.results import save
from perfkit.evidence.verdicts import Verdict
from perfkit.report.engine import headlines
from perfkit.report.engine.scorecard import load
from perfkit.report.stories import findings
from perfkit.report.stories.goals import record_goals
from tests.perfkit.machine import HERE
from tests.perfkit.report.stories.made_up import result

READINGS = {
    "map": {"optimized": [900.0, 1_000.0, 1_100.0], "baseline": [9.0, 10.0, 11.0],
            "packed broker": [2_000.0] * 3},
    "unpinned_p50": {"optimized": [4_900.0, 5_000.0, 5_100.0], "baseline": [6_000.0] * 3},
}  # fmt: skip
TABLE = GoalTable(
    tuple(make_row(goal, READINGS) for goal in cluster.GOALS), HERE, "quick", 0, "", 1.0
)


def run_folder(folder: Path) -> Path:
    """A folder as the other notebooks leave it."""
    record_goals(folder, cluster.GOALS, TABLE, "cluster")
    save(result("load", 7.0, 6.0, 8.0, "ms"), folder / "load.json")
    headlines.record(folder, "Idea: pooling", 0.9, "×", 0.8, 1.0, 1.1, "slower", compares=True)
    headlines.record(folder, "Idea: packed-codec", 3.0, "×", 2.5, 3.5, 2.0, "faster", compares=True)
    return folder


def test_the_scorecard_judges_the_optimised_figure_by_the_target(tmp_path: Path) -> None:
    card = findings.scorecard(findings.read(run_folder(tmp_path)))
    rows = {row.figure: row for row in card.rows}
    assert len(rows) == 6
    throughput, overhead = rows["Throughput"], rows["Task overhead"]
    assert (throughput.baseline.value, throughput.optimized.value) == (10.0, 1_000.0)
    assert throughput.verdict is Verdict.MET
    assert (overhead.unit, overhead.optimized.value) == ("ms", 5.0)
    assert overhead.verdict is Verdict.INCONCLUSIVE
    assert rows["API memory"].optimized.value is None
    assert rows["Coordinator memory"].baseline.value is None


def test_the_goals_in_words_have_evidence_or_say_that_there_is_none(tmp_path: Path) -> None:
    rows = {
        goal: rest for goal, *rest in findings.promises(findings.read(run_folder(tmp_path))).rows
    }
    assert rows["95 of 100 tasks within 10 ms under load"][1] == "met"
    assert rows["a lost worker's tasks within a second"] == [
        "not measured in this run",
        "inconclusive",
    ]
    assert rows["no leak, whatever happens"][1] == "inconclusive"


def test_what_did_not_work_and_what_is_next_follow_from_the_verdicts(tmp_path: Path) -> None:
    evidence = findings.read(run_folder(tmp_path))
    (told,) = findings.did_not_work(evidence).sentences
    assert told.startswith("pooling: 0.9 × (0.8 to 1), slower; predicted 1.1 ×")
    steps = findings.next_steps(evidence).sentences
    assert any(step.startswith("map_throughput (≥ 700,000 tasks/s) is missed") for step in steps)
    assert not any("pooling" in step for step in steps)


def test_limits_are_in_the_order_of_their_distance(tmp_path: Path) -> None:
    rows = findings.limits(findings.read(run_folder(tmp_path))).rows
    assert rows[0][0] in {"map_throughput", "map_vs_packed"}
    assert rows[0][2].endswith("× packed broker")


def test_the_rows_become_headlines_and_a_scorecard_that_can_be_read_back(tmp_path: Path) -> None:
    card = findings.scorecard(findings.read(run_folder(tmp_path)))
    findings.record(tmp_path, card)
    assert load(tmp_path) == card
    told = {one.title: one.verdict for one in headlines.load(tmp_path)}
    assert told["The plan: Throughput"] is Verdict.MET


def test_a_folder_without_results_gives_gaps_and_no_error(tmp_path: Path) -> None:
    evidence = findings.read(tmp_path)
    assert {row.verdict for row in findings.scorecard(evidence).rows} == {Verdict.INCONCLUSIVE}
    assert findings.did_not_work(evidence).sentences == ("No idea was measured in this run.",)
    assert findings.next_steps(evidence).sentences == ("Every goal that was judged is met.",)
    assert findings.limits(evidence).rows == ()


def test_a_row_of_goals_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    found = findings.read(run_folder(tmp_path)).goals["map_throughput"]
    assert asdict(found) == asdict(TABLE.of("map_throughput"))
