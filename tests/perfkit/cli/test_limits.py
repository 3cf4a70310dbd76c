"""The table of goals from the command line: for people, for programs, and wrong words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from perfkit.bench.goals import cluster as limits
from perfkit.bench.goals import memory
from perfkit.bench.goals.cluster import GOALS
from perfkit.bench.goals.table import GoalTable, make_row
from perfkit.bench.workloads.load import WrongResult
from perfkit.cli.bench import show_goals as show
from perfkit.evidence.environment import fingerprint

Call = Callable[..., Result]
#: Two rows with figures, the rest unknown.
READINGS = {
    "map": {
        "optimized": [900_000.0, 1_000_000.0, 1_100_000.0, 1_000_000.0],
        "baseline": [9_000.0, 10_000.0, 11_000.0, 10_000.0],
        "packed broker": [900_000.0, 1_000_000.0, 1_100_000.0, 1_000_000.0],
    }
}


def table(**facts: Any) -> GoalTable:
    rows = tuple(make_row(goal, READINGS) for goal in GOALS)
    usual: dict[str, Any] = {
        "rows": rows, "environment": fingerprint(), "profile": "quick", "seed": 3,
        "layout": "all on one core", "duration_s": 61.2,
    }  # fmt: skip
    return GoalTable(**{**usual, **facts})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Measuring is somebody else's test: a table that was made beforehand, and who asked for it."""
    calls: list[tuple[Any, ...]] = []

    def made(profile: str, *, seed: int, progress: Callable[[str], None]) -> GoalTable:
        calls.append((profile, seed))
        progress("limits: round 2 of 5, packed broker 512,345 tasks/s")
        return table(profile=profile, seed=seed)

    monkeypatch.setattr(limits, "measure_limits", made)
    return calls


def test_a_program_reads_nothing_but_rows(perfkit: Call, asked: list[tuple[Any, ...]]) -> None:
    ran = perfkit("bench", "limits", "--json", "-", "--seed", 5)
    assert ran.exit_code == 0
    rows = json.loads(ran.stdout)
    assert [row["name"] for row in rows] == [goal.name for goal in GOALS]
    wanted = "name value unit low high limit ratio goal met".split()
    assert all(list(row)[: len(wanted)] == wanted for row in rows)
    assert (rows[0]["value"], rows[0]["met"], rows[0]["seed"]) == (1e6, True, 5)
    assert "limits: round 2 of 5, packed broker 512,345 tasks/s" in ran.stderr
    assert asked == [("quick", 5)]


def test_people_see_the_table_and_the_file_has_the_rows(
    perfkit: Call, asked: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    ran = perfkit("bench", "limits", "--profile", "full", "--json", "x.json")
    assert ran.exit_code == 0
    assert ran.stdout.startswith("goal ")
    assert "saved to x.json" in ran.stderr
    assert len(json.loads((tmp_path / "x.json").read_text())) == len(GOALS)
    assert asked == [("full", 0)]


def test_the_table_shows_figures_intervals_and_verdicts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show(table(), "a machine")
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "1,000,000 tasks/s" in lines["map_throughput"]
    assert "10,000" in lines["map_throughput"]
    assert lines["map_throughput"].split()[-1] == "met"
    assert lines["map_vs_packed"].split()[-1] == "missed"
    assert lines["latency_p50"].split()[-1] == "inconclusive"
    assert lines["one_mib_same_path"].split()[-1] == "–"
    assert lines["latency"].split(maxsplit=1)[1] == "all on one core"
    assert "profile quick, seed 3, 61 s" in lines["measured"]
    assert "[900,000 – 1,100,000]" in shown
    assert "packed broker" in shown
    assert lines["machine"].split(maxsplit=1)[1] == "a machine"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--profile", "quik"], "there is no 'quik'; there are quick, full; did you mean 'quick'?"),
        (["--tasks", "5"], "--tasks is not for limits"),
        (["--workers", "3"], "--workers is not for limits"),
        (["--spec", "optimized"], "--spec is not for limits"),
        (["--model", "digits"], "--model is not for limits"),
        (["--set", "burst=3"], "--set is not for limits"),
        (["--json", "."], "--json: . is a directory; name a file"),
    ],
)
def test_wrong_words_are_told_before_anything_runs(
    perfkit: Call, asked: list[tuple[Any, ...]], arguments: list[str], complaint: str
) -> None:
    ended = perfkit("bench", "limits", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert complaint in ended.stderr
    assert asked == []


def test_the_table_of_memory_is_asked_for_by_its_name(
    perfkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(profile: str, *, seed: int, progress: Callable[[str], None]) -> GoalTable:
        rows = tuple(make_row(goal, {}) for goal in memory.GOALS)
        return table(rows=rows, profile=profile, seed=seed, layout="")

    monkeypatch.setattr(memory, "measure_memory", made)
    ran = perfkit("bench", "memory", "--profile", "full", "--json", "-")
    assert [row["name"] for row in json.loads(ran.stdout)] == [goal.name for goal in memory.GOALS]
    shown = perfkit("bench", "memory").stdout
    assert "coordinator_idle" in shown
    assert "latency" not in shown
    assert "--tasks is not for memory" in perfkit("bench", "memory", "--tasks", "5").stderr


def test_a_profile_is_for_the_tables_alone(perfkit: Call) -> None:
    ended = perfkit("bench", "latency", "--profile", "quick")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "--profile is for limits and gpu" in ended.stderr


def test_a_wrong_result_is_told(perfkit: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise WrongResult("task 3 came back as task 4")

    monkeypatch.setattr(limits, "measure_limits", wrong)
    ended = perfkit("bench", "limits")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == "perfkit: task 3 came back as task 4\n"


def test_what_is_too_long_for_a_cell_stands_below_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = table(notes=("growth_*: of each event.",))
    show(shown, "a machine")
    assert capsys.readouterr().out.splitlines()[-1] == "growth_*: of each event."
    assert "<p>growth_*: of each event.</p>" in shown._repr_html_()


def test_a_column_that_nobody_measured_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show(table(), "a machine")
    assert table().columns == limits.COLUMNS
    assert "bare limit" in capsys.readouterr().out.splitlines()[0]
    alone = {"map": {"optimized": READINGS["map"]["optimized"]}}
    shown = table(rows=tuple(make_row(goal, alone) for goal in GOALS))
    assert shown.columns == ("goal", "asked", "optimized", "ratio", "met")
    show(shown, "a machine")
    assert "bare limit" not in capsys.readouterr().out.splitlines()[0]
    assert "bare limit</th>" not in shown._repr_html_()
