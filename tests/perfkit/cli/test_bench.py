"""Experiments and tables of goals from the command line: for people, for programs, and errors."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from typer.testing import Result

from perfkit.bench.experiments import catalogue
from perfkit.bench.experiments.catalogue import Ran
from perfkit.bench.experiments.setting import PROFILES
from perfkit.bench.goals import cluster, memory
from perfkit.bench.goals.table import GoalTable, make_row
from perfkit.bench.workloads.load import WrongResult
from perfkit.cli.bench import ALL, TABLES, show, show_goals
from perfkit.cli.terminal.measuring import progress
from perfkit.engines import ENGINES
from perfkit.evidence.results import Result as Figure
from perfkit.evidence.results import load
from tests.perfkit.machine import HERE

Call = Callable[..., Result]
#: Two goals with figures; the others stay unknown.
READINGS = {
    "map": {
        "optimized": [900_000.0, 1_000_000.0, 1_100_000.0, 1_000_000.0],
        "baseline": [9_000.0, 10_000.0, 11_000.0, 10_000.0],
        "packed broker": [900_000.0, 1_000_000.0, 1_100_000.0, 1_000_000.0],
    }
}


def figure(**facts: Any) -> Figure:
    usual: dict[str, Any] = {
        "experiment": "latency", "spec": "baseline", "engine": "zmq", "workers": 2, "tasks": 10,
        "value": 1.5, "unit": "ms", "low": 1.0, "high": 2.0, "samples": [1.0, 1.5, 2.0],
        "environment": HERE, "seed": 3,
        "counters": {"p95": 2.5, "p95_low": 2.0, "p95_high": 3.0, "bytes_low": 12_345},
        "parameters": {"interval": "order statistics", "model": None},
    }  # fmt: skip
    return Figure(**{**usual, **facts})


def table(**facts: Any) -> GoalTable:
    rows = tuple(make_row(goal, READINGS) for goal in cluster.GOALS)
    usual: dict[str, Any] = {
        "rows": rows, "environment": HERE, "profile": "quick", "seed": 3,
        "layout": "all on one core", "duration_s": 61.2,
    }  # fmt: skip
    return GoalTable(**{**usual, **facts})


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of fake experiments and fake tables of goals: the real ones have tests elsewhere."""
    calls: list[dict[str, Any]] = []

    def run(experiment: str, **options: Any) -> Figure:
        options.pop("progress")("latency: cluster 1 of 1")
        calls.append({"experiment": experiment, **options})
        return figure(spec=options["spec"].name, engine=options["engine"])

    def goals(profile: str, *, seed: int, progress: Callable[[str], None]) -> GoalTable:
        progress("limits: round 2 of 5, packed broker 512,345 tasks/s")
        calls.append({"profile": profile, "seed": seed})
        return table(profile=profile, seed=seed)

    monkeypatch.setattr(catalogue, "run", run)
    monkeypatch.setattr(cluster, "measure_cluster", goals)
    monkeypatch.setattr(memory, "measure_memory", goals)
    return calls


@pytest.fixture
def shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[GoalTable], str]:
    """A table of goals as it is printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def print_goals(goals: GoalTable) -> str:
        show_goals(goals)
        return capsys.readouterr().out

    return print_goals


def test_a_real_experiment_writes_its_figure_and_samples_as_json(perfkit: Call) -> None:
    ended = perfkit("bench", "startup", "--workers", 1, "--tasks", 1, "--seed", 5, "--json", "-")
    assert ended.exit_code == 0
    found = json.loads(ended.stdout)
    assert found.keys() >= {*Figure.__struct_fields__} - {"counters", "series"}
    assert (found["experiment"], found["tasks"], found["seed"]) == ("startup", 1, 5)
    assert found["value"] == found["samples"][0] > 0
    assert "startup: cluster 1 of 1" in ended.stderr


def test_the_options_reach_the_experiment_and_its_result_the_file(
    perfkit: Call, ran: list[dict[str, Any]], tmp_path: Path
) -> None:
    knobs = ("--set", "credit=4", "--set", "limits.deaths=2")
    ended = perfkit("bench", "latency", "--workers", 1, "--tasks", 40, *knobs, "--json", "x.json")
    assert ended.exit_code == 0
    (call,) = ran
    spec = call.pop("spec")
    assert (spec.name, spec.credit) == ("baseline+credit-4+limits.deaths-2", 4)
    more = {
        "workers": 1,
        "tasks": 40,
        "seed": 0,
        "engine": "zmq",
        "model": None,
        "profile": "quick",
    }
    assert call == {"experiment": "latency", "profile": "quick", **more}
    assert load(tmp_path / "x.json").spec == spec.name
    assert ended.stdout.startswith("latency 1.5 ms")
    assert "saved to x.json" in ended.stderr


def test_progress_in_a_terminal_is_one_line_that_changes(terminal: Any) -> None:
    bench = terminal("bench", "startup", "--workers", 1, "--tasks", 1)
    bench.wait_for("startup: cluster")
    assert "of 1 sample" in bench.rest()


def test_a_figure_is_shown_with_interval_and_machine(capsys: pytest.CaptureFixture[str]) -> None:
    show(figure())
    lines = capsys.readouterr().out.splitlines()
    rows = dict(line.split(maxsplit=1) for line in lines[1:])
    assert lines[0] == "latency 1.5 ms (1 to 2)  of 3 samples"
    assert rows.pop("machine")
    assert rows == {
        "interval": "order statistics",
        "cluster": "baseline on zmq, 2 workers, 10 tasks, seed 3",
        "p95": "2.5 (2 to 3)",
        "bytes_low": "12,345",
    }


def test_unknown_values_are_shown_as_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    blank = msgspec.structs.replace(
        HERE, cpu_model=None, cores_available=None, cores_logical=None,
        memory_total_bytes=None, load_1min=None,
    )  # fmt: skip
    unknown: dict[str, Any] = {"value": None, "low": None, "high": None, "environment": blank}
    by_dask = {"engine": "dask", "spec": catalogue.NO_SPEC, "parameters": {"model": "digits"}}
    show(figure(**unknown, **by_dask))
    printed = capsys.readouterr().out
    assert printed.startswith("latency unknown  of 3 samples")
    assert "interval  none" in printed
    assert "  cluster   dask, 2 workers, 10 tasks of digits, seed 3" in printed
    assert "unknown processor, unknown cores, unknown memory\n" in printed


def test_a_result_is_shown_with_its_goals(capsys: pytest.CaptureFixture[str]) -> None:
    counters: dict[str, float | int | None] = {}
    for name, ends in (("50", (1.0, 0.9, 1.1)), ("95", (6.0, 5.5, 6.5)), ("99", (9.0, 8.0, 11.0))):
        counters |= zip(
            (f"submit_ms_p{name}{end}" for end in ("", "_low", "_high")), ends, strict=True
        )
    show(figure(experiment="submission", counters=counters))
    goals = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    assert [goal[0] for goal in goals] == ["met", "missed", "inconclusive"]
    assert " ".join(goals[1][1:]) == "p95 of submit() ≤ 5 ms: 6 ms (5.5 to 6.5)"


def test_the_help_names_every_experiment_table_and_engine(perfkit: Call) -> None:
    printed = perfkit("bench", "--help").stdout
    words = set(printed.replace(",", " ").replace(".", " ").replace(";", " ").split())
    assert words >= {*catalogue.EXPERIMENTS, *TABLES, ALL, *PROFILES}
    assert "local, zmq, dask or ray" in printed
    assert len(ENGINES) == 4


@pytest.fixture
def series(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of a fake series, in which one experiment fails."""
    calls: list[dict[str, Any]] = []
    limits = {"submit_ms_p50": 1.0, "submit_ms_p50_low": 0.9, "submit_ms_p50_high": 1.1}

    def run_all(**options: Any) -> Iterator[Ran]:
        options.pop("progress")("1 of 3, baseline: submission: begins")
        calls.append(options)
        yield Ran("submission", "baseline", figure(experiment="submission", counters=limits))
        yield Ran("load", "baseline", error="no luck")
        yield Ran("latency", "optimized", figure(spec="optimized"))

    monkeypatch.setattr(catalogue, "run_all", run_all)
    return calls


def test_all_saves_a_file_for_each_experiment_and_ends_with_1_if_one_failed(
    perfkit: Call, series: list[dict[str, Any]], tmp_path: Path
) -> None:
    ended = perfkit("bench", "all", "--profile", "full", "--seed", 5, "--json", "new/out")
    assert ended.exit_code == 1
    saved = {path.name: load(path).experiment for path in (tmp_path / "new" / "out").iterdir()}
    assert saved == {
        "submission-baseline.json": "submission", "latency-optimized.json": "latency",
    }  # fmt: skip
    assert series == [{"specs": [], "profile": "full", "seed": 5}]
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert ["latency", "optimized", "1.5", "ms", "(1", "to", "2)"] in rows
    assert ["load", "baseline", "failed:", "no", "luck"] in rows
    assert "met          submission of baseline, p50 of submit() ≤ 2 ms: 1 ms" in ended.stdout
    assert "inconclusive submission of baseline, p99 of submit() ≤ 10 ms" in ended.stdout
    assert rows[-1][:6] == "1 of 3 goals met; inconclusive:".split()
    assert "submission of baseline: 1.5 ms (1 to 2)" in ended.stderr
    assert "saved to new/out" in ended.stderr
    assert "perfkit: 1 of 3 experiments failed: load of baseline" in ended.stderr


def test_in_a_terminal_the_line_of_each_experiment_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress() as say:
        say("block 1 of 2")
        say.keep("latency of baseline: 1.5 ms [1 to 2]")
    lines = capsys.readouterr().err.splitlines()
    assert any("latency of baseline: 1.5 ms [1 to 2]" in line for line in lines)


def test_all_of_one_spec(perfkit: Call, series: list[dict[str, Any]]) -> None:
    perfkit("bench", "all", "--spec", "optimized", "--set", "credit=4")
    (call,) = series
    assert [spec.name for spec in call["specs"]] == ["optimized+credit-4"]


def test_a_folder_that_is_a_file_is_refused_before_anything_runs(
    perfkit: Call, series: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    for target in ("taken", "-"):
        ended = perfkit("bench", "all", "--json", target)
        assert (ended.exit_code, series) == (2, [])
        assert f"--json: {target} is no folder" in ended.stderr
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("thruput", "there is no experiment 'thruput'; did you mean 'throughput'?"),
        ("xyz", "there is no experiment 'xyz'; there are submission, latency, "),
        ("xyz", "network, all, limits, gpu, memory"),
        ("al", "did you mean 'all'?"),
        ("latency --spec basline", "did you mean 'baseline'?"),
        ("latency --engine zmk", "there is no engine 'zmk'; did you mean 'zmq'?"),
        ("latency --engine local --spec fast", "--spec is for the engine zmq; local has no spec"),
        ("latency --engine dask --set credit=4", "--set is for the engine zmq; dask has no spec"),
        ("latency --model magica", "there is no model 'magica'; did you mean 'magika'?"),
        ("latency --profile quik", "--profile: there is no profile 'quik'; did you mean 'quick'?"),
        ("latency --workers 65", "--workers: latency takes 1 to 64, not 65"),
        ("network --engine dask", "--engine is not for network, which measures this cluster alone"),
        ("stress --model digits", "--model is not for stress, which measures this cluster alone"),
        ("all --tasks 5", "--tasks is not for all: each has its own"),
        ("all --profile quik", "--profile: there is no profile 'quik'; did you mean 'quick'?"),
        ("startup --tasks 1000000", "--tasks: startup takes 1 to 100, not 1,000,000"),
        ("startup --set x=1", "there is no knob 'x'"),
        ("startup --json .", ". is a folder; name a file"),
        ("startup --workers 0", "Invalid value for '--workers'"),
        ("limits --profile quik", "--profile: there is no profile 'quik'; did you mean 'quick'?"),
        ("limits --tasks 5", "--tasks is not for limits"),
        ("limits --engine zmq", "--engine is not for limits"),
        ("memory --set burst=3", "--set is not for memory"),
        ("limits --recorded .", "--recorded is for gpu only"),
        ("throughput --recorded .", "--recorded is for gpu only"),
        ("memory --peers all", "--peers is for serving only"),
        (
            "serving --peers litsrve",
            "--peers: there is no peer 'litsrve'; did you mean 'litserve'?",
        ),
        ("serving --workers 2", "--workers is not for serving"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    perfkit: Call, ran: list[dict[str, Any]], arguments: str, complaint: str
) -> None:
    ended = perfkit("bench", *arguments.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert complaint in ended.stderr
    assert ran == []


def test_a_wrong_result_ends_with_1(perfkit: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = WrongResult("task 3 came back as task 4")
    monkeypatch.setattr(catalogue, "run", Mock(side_effect=wrong))
    ended = perfkit("bench", "latency")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == "perfkit: task 3 came back as task 4\n"


@pytest.mark.parametrize("name", ["limits", "memory"])
def test_a_table_of_goals_is_json_for_a_program_and_a_file(
    perfkit: Call, ran: list[dict[str, Any]], name: str, tmp_path: Path
) -> None:
    ended = perfkit("bench", name, "--json", "-", "--seed", 5)
    assert ended.exit_code == 0
    rows = json.loads(ended.stdout)
    assert [row["name"] for row in rows] == [goal.name for goal in cluster.GOALS]
    wanted = "name value unit low high limit ratio goal met".split()
    assert all(list(row)[: len(wanted)] == wanted for row in rows)
    assert (rows[0]["value"], rows[0]["met"], rows[0]["seed"]) == (1e6, True, 5)
    assert "limits: round 2 of 5, packed broker 512,345 tasks/s" in ended.stderr
    ended = perfkit("bench", name, "--profile", "full", "--json", "x.json")
    assert ended.stdout.startswith("goal ")
    assert "saved to x.json" in ended.stderr
    assert len(json.loads((tmp_path / "x.json").read_text())) == len(rows)
    assert ran == [{"profile": "quick", "seed": 5}, {"profile": "full", "seed": 0}]


def test_a_table_of_goals_shows_figures_and_verdicts(shown: Callable[[GoalTable], str]) -> None:
    printed = shown(table(notes=("growth_*: of each event.",)))
    lines = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert "1,000,000 tasks/s" in lines["map_throughput"]
    assert "(900,000" in lines  # the interval is below its figure
    assert lines["map_throughput"].split()[-1] == "met"
    assert lines["map_vs_packed"].split()[-1] == "missed"
    assert lines["latency_p50"].split()[-1] == "inconclusive"
    assert lines["one_mib_same_path"].split()[-1] == "–"
    assert lines["latency"].split(maxsplit=1)[1] == "all on one core"
    assert "profile quick, seed 3, 1 min 1 s" in lines["measured"]
    assert printed.splitlines()[-1] == "growth_*: of each event."


def test_a_column_without_a_figure_is_left_out(shown: Callable[[GoalTable], str]) -> None:
    assert "bare limit" in shown(table()).splitlines()[0]
    alone = {"map": {"optimized": READINGS["map"]["optimized"]}}
    rows = tuple(make_row(goal, alone) for goal in cluster.GOALS)
    few = table(rows=rows, layout="", notes=("of each event",))
    head, *lines = shown(few).splitlines()
    assert head.split() == ["goal", "asked", "optimized", "ratio", "met"]
    assert not [line for line in lines if line.startswith("  latency")]
    assert "bare limit</th>" not in few._repr_html_()


def test_a_result_is_exported_for_dashboards(perfkit: Call, ran: list[dict[str, Any]]) -> None:
    wanted = [
        word for name in ("bmf", "pytest-benchmark") for word in ("--export", f"{name}={name}")
    ]
    ended = perfkit("bench", "latency", *wanted)
    assert ended.exit_code == 0
    assert "saved as bmf to bmf" in ended.stderr
    measured = json.loads(Path("bmf").read_text())["latency[baseline-zmq-2]"]["latency"]
    assert measured == {"value": 1.5e6, "lower_value": 1e6, "upper_value": 2e6}
    (row,) = json.loads(Path("pytest-benchmark").read_text())["benchmarks"]
    assert row["stats"]["data"] == [1e-3, 1.5e-3, 2e-3]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["latency", "--export", "bfm=x"],
            "--export: there is no format 'bfm'; did you mean 'bmf'?",
        ),
        (["latency", "--export", "bmf"], "--export: 'bmf' is not NAME=VALUE"),
        (["limits", "--export", "bmf=x"], "--export is not for limits"),
    ],
)
def test_a_wrong_export_is_refused_before_anything_runs(
    perfkit: Call, ran: list[dict[str, Any]], arguments: list[str], complaint: str
) -> None:
    ended = perfkit("bench", *arguments)
    assert (ended.exit_code, ran) == (2, [])
    assert complaint in ended.stderr
