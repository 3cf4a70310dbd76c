"""Baselines from the command line: kept, shown, checked against, and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import Result

from perfkit.bench.counts.gate import BASELINE_PATH, AllCounts
from perfkit.bench.counts.gate import load_baseline as load_counts
from perfkit.bench.regression import measure
from perfkit.bench.regression.cost import CASES, CostSample
from perfkit.bench.regression.measure import BATCH, measure_costs, save_costs
from perfkit.bench.workloads.load import ExperimentError
from perfkit.evidence.baselines import baseline_path, load_baseline, save_baseline
from perfkit.report import headlines

Call = Callable[..., Result]
TRAFFIC = {"messages_in_per_task": 2.0, "bytes_in_per_task": 400.0}


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The cost that every process measures; the real ones have tests elsewhere."""
    level = [1.0]

    def sampled(*_: Any, **__: Any) -> str:
        sample = CostSample(level[0], 35.0, 4_000.0)
        return msgspec.json.encode({case.name: sample for case in CASES}).decode()

    counted = {spec: {"single": TRAFFIC, "stream": TRAFFIC} for spec in ("baseline", "optimized")}
    monkeypatch.setattr(measure, "run_module", sampled)
    monkeypatch.setattr(measure, "_counts", lambda say: (counted, None))
    return level


def test_a_baseline_is_saved_shown_and_checked(perfkit: Call, cost: list[float]) -> None:
    saved = perfkit("baseline", "save")
    path = baseline_path()
    assert (saved.exit_code, saved.stdout.splitlines()[-1]) == (0, str(path))
    assert "process 15, 35 µs/task of baseline, single" in saved.stderr

    shown = perfkit("baseline", "show")
    assert shown.exit_code == 0
    assert "optimized, stream: 1 reference loads, median of 15" in shown.stdout
    assert "messages_in_per_task         2" in shown.stdout
    data = json.loads(perfkit("baseline", "show", "--json", "-").stdout)
    assert data["results"][0]["samples"] == [1.0] * 15

    checked = perfkit("baseline", "check")
    assert checked.exit_code == 0
    assert "no regression in 16 figures" in checked.stdout
    assert "and 12 unchanged counts" in checked.stdout
    assert load_baseline(path).results[0].samples == [1.0] * 15  # a check saves nothing


@pytest.mark.parametrize(
    ("now", "code", "verdict"),
    [(1.2, 3, "regression"), (1.04, 4, "inconclusive"), (0.8, 0, "faster")],
)
def test_the_verdict_is_the_exit_code_figure_by_figure(
    perfkit: Call, cost: list[float], now: float, code: int, verdict: str
) -> None:
    perfkit("baseline", "save")
    cost[0] = now
    checked = perfkit("baseline", "check")
    assert checked.exit_code == code
    (line,) = [
        line
        for line in checked.stdout.splitlines()
        if line.startswith("optimized, stream: coordinator time  ")
    ]
    assert f"1 reference loads  {now:g} reference loads  {now:g} (" in line
    assert line.rstrip().endswith(verdict)
    data = json.loads(perfkit("baseline", "check", "--json", "-").stdout)
    assert {row["verdict"] for row in data["rows"] if row["name"].endswith("time")} == {verdict}


def test_on_another_machine_only_counts_gate_and_it_says_so(
    perfkit: Call, cost: list[float], tmp_path: Path
) -> None:
    there = [
        msgspec.structs.replace(
            it, environment=msgspec.structs.replace(it.environment, cpu_model="another")
        )
        for it in measure_costs(BATCH)
    ]
    path = save_baseline(there, tmp_path)
    cost[0] = 2.0
    checked = perfkit("baseline", "check", "--against", path)
    assert checked.exit_code == 0
    assert "another machine: processor: another against" in checked.stderr
    assert "so only counts gate" in checked.stderr


def test_counts_alone_are_accepted_into_their_own_file(
    perfkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = AllCounts(1, {"optimized": {"single": TRAFFIC}}, {})
    monkeypatch.setattr(measure, "count_afresh", lambda: counted)
    ended = perfkit("baseline", "save", "--counts")
    assert (ended.exit_code, ended.stdout) == (0, f"{BASELINE_PATH}\n")
    assert load_counts(BASELINE_PATH) == counted
    assert perfkit("baseline", "save", "run", "--counts").exit_code == 2


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "There is no baseline at machine.json; `perfkit baseline save` makes one."),
        ("{", "machine.json is no baseline of a machine"),
        ('{"schema": 9}', "made by a newer perfkit"),
    ],
)
def test_a_baseline_that_cannot_be_read_is_a_wrong_argument(
    perfkit: Call, command: str, text: str | None, complaint: str
) -> None:
    if text is not None:
        Path("machine.json").write_text(text)
    ended = perfkit("baseline", command, "--against", "machine.json")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert complaint in ended.stderr


def test_without_a_baseline_of_this_machine_the_check_says_how_to_make_one(perfkit: Call) -> None:
    ended = perfkit("baseline", "check")
    assert ended.exit_code == 2
    assert f"There is no baseline at {baseline_path()}; `perfkit baseline save`" in ended.stderr


def test_the_figures_of_a_report_become_the_baseline(perfkit: Call, cost: list[float]) -> None:
    refused = perfkit("baseline", "save", "run")
    assert refused.exit_code == 2
    assert "only a run of `perfkit report --against` measures it" in refused.stderr
    save_costs(measure_costs(BATCH), Path("run/results"))
    assert perfkit("baseline", "save", "run").exit_code == 0
    assert len(load_baseline(baseline_path()).results) == len(CASES)


def test_a_process_that_fails_ends_the_command_with_1(
    perfkit: Call, cost: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise ExperimentError("a sample failed: out of luck")

    monkeypatch.setattr(measure, "run_module", fail)
    ended = perfkit("baseline", "save")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "perfkit: a sample failed: out of luck" in ended.stderr


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of run_report."""
    heard: dict[str, Any] = {}

    class Ran:
        notebooks = ()
        index_path = "index.html"
        exit_code = 0

    def run_report(*_: Any, **more: Any) -> Any:
        heard.update(more)
        return Ran()

    monkeypatch.setattr("perfkit.report.run_report", run_report)
    return heard


@pytest.mark.parametrize(("now", "code"), [(1.0, 0), (1.2, 3), (1.04, 4)])
def test_a_report_against_a_baseline_gates_on_its_findings(
    perfkit: Call, cost: list[float], asked: dict[str, Any], tmp_path: Path, now: float, code: int
) -> None:
    path = save_baseline(measure_costs(), tmp_path)
    cost[0] = now
    assert perfkit("report", "x.ipynb", "--against", path).exit_code == 0
    assert asked["after_argv"] == ("--against", str(path))
    results = tmp_path / "results"
    asked["after"](results)
    found = headlines.load(results)
    assert len(found) == len(CASES)
    assert headlines.exit_code(found) == code
    assert len([*results.glob("coordinator_cost-*.json")]) == len(CASES)


def test_a_report_needs_its_baseline_before_it_starts(perfkit: Call, asked: dict[str, Any]) -> None:
    ended = perfkit("report", "x.ipynb", "--against", "none.json")
    assert (ended.exit_code, asked) == (2, {})
    assert "There is no baseline at none.json" in ended.stderr


def test_a_check_that_fails_leaves_the_report_inconclusive(
    perfkit: Call,
    cost: list[float],
    asked: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = save_baseline(measure_costs(), tmp_path)
    perfkit("report", "x.ipynb", "--against", path)

    def fail(*_: Any, **__: Any) -> str:
        raise ExperimentError("a sample failed")

    monkeypatch.setattr(measure, "run_module", fail)
    asked["after"](tmp_path / "results")
    (found,) = headlines.load(tmp_path / "results")
    assert (found.verdict, found.gate, found.note) == ("inconclusive", True, "a sample failed.")
