"""Comparisons from the command line: the verdict for people, for programs, and for a gate."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from typer.testing import Result

from perfkit.bench.experiments import catalogue
from perfkit.evidence.environment import machine_id
from perfkit.evidence.results import Result as Figure
from perfkit.evidence.results import save
from perfkit.evidence.stats import abba
from tests.perfkit.machine import HERE

Call = Callable[..., Result]
ELSEWHERE = msgspec.structs.replace(HERE, cpu_model="Another processor")
ELSEWHERE = msgspec.structs.replace(ELSEWHERE, machine_id=machine_id(ELSEWHERE))


@pytest.fixture
def saved(tmp_path: Path) -> None:
    """Saved throughputs: usual, slower, faster, of other conditions, and broken."""
    usual: dict[str, Any] = {
        "experiment": "throughput", "spec": "baseline", "engine": "zmq", "workers": 2, "tasks": 80,
        "value": 100.0, "unit": "tasks/s", "low": 99.0, "high": 101.0, "environment": HERE,
        "samples": [100.0, 101.0, 99.0, 100.0, 100.5, 99.5, 100.0, 100.0],
    }  # fmt: skip
    for name, factor, fields in (
        ("usual", 1, {}),
        ("tenth", 0.1, {}),
        ("tenfold", 10, {"spec": "other"}),
        ("elsewhere", 10, {"environment": ELSEWHERE}),
        ("latency", 1, {"experiment": "latency", "unit": "ms"}),
    ):
        samples = [factor * x for x in usual["samples"]]
        save(Figure(**{**usual, **fields, "samples": samples}), tmp_path / f"{name}.json")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "usual").write_bytes((tmp_path / "usual.json").read_bytes())


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of a fake experiment; each run gives `seed` tasks/s more than the one before."""
    calls: list[dict[str, Any]] = []

    def run(name: str, *, spec: Any, **options: Any) -> Figure:
        calls.append({"experiment": name, "spec": spec.name, **options})
        samples = [100.0 + options["seed"] * len(calls)]
        return Figure(
            experiment=name, spec=spec.name, engine="zmq", workers=2, tasks=5, value=None,
            unit="tasks/s", low=None, high=None, samples=samples, environment=HERE,
        )  # fmt: skip

    monkeypatch.setattr(catalogue, "run", run)
    return calls


def test_the_options_reach_both_specs_and_json(perfkit: Call, ran: list[dict[str, Any]]) -> None:
    options = {"--experiment": "latency", "--blocks": 4, "--workers": 1, "--tasks": 9, "--seed": 3}
    flags = [word for pair in options.items() for word in pair]
    knobs = ("--set", "credit=4", "--set", "limits.deaths=2")
    ended = perfkit("compare", "baseline", "optimized", *flags, *knobs, "--json", "-")
    assert ended.exit_code == 0
    found = json.loads(ended.stdout)
    turned = "+credit-4+limits.deaths-2"
    assert (found["a"], found["b"]) == ("baseline" + turned, "optimized" + turned)
    assert found["verdict"] in ("faster", "slower", "same", "inconclusive")
    assert found["order"] == abba(4, 3, "ABC")
    assert [len(found["results"][arm]) for arm in "ABC"] == [4, 4, 4]
    asked = {"experiment": "latency", "workers": 1, "tasks": 9, "seed": 3, "model": None}
    assert {call.pop("spec") for call in ran} == {found["a"], found["b"]}
    assert all(asked.items() <= call.items() for call in ran)
    assert ended.stderr.count("block 4 of 4, ") == 3


def test_an_interrupt_leaves_no_process_behind(terminal: Any) -> None:
    short = ("--experiment", "startup", "--tasks", 1)
    compare = terminal("compare", "baseline", "baseline", *short)
    compare.wait_for("block 1 of 8")
    children: list[psutil.Process] = []
    while len(children) < 2:  # between two clusters there may be none
        children = psutil.Process(compare.process.pid).children(recursive=True)
    assert compare.interrupt() == 130
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert "Traceback" not in compare.rest()


@pytest.mark.usefixtures("saved")
def test_people_see_the_verdict_the_ratio_and_why(perfkit: Call, tmp_path: Path) -> None:
    ran = perfkit("compare", "usual.json", "tenfold.json", "--json", "found.json")
    assert ran.exit_code == 0
    verdict, *rows = ran.stdout.splitlines()
    assert verdict.startswith("faster  B/A 10 ")
    assert verdict.endswith("throughput of other against baseline (tasks/s, higher is better)")
    shown = {row.split()[0]: row.split(maxsplit=1)[1] for row in rows}
    assert shown["control"] == "none: there is no second A"
    assert shown["A"] == "baseline: 100 tasks/s, one run"
    assert shown["why"].startswith("the two runs were not interleaved")
    assert shown["interval"].startswith("95%, wild bootstrap")
    assert list(shown) == ["control", "A", "B", "why", "interval", "machine"]
    assert "saved to found.json" in ran.stderr
    assert json.loads((tmp_path / "found.json").read_text())["verdict"] == "faster"


@pytest.mark.usefixtures("ran")
def test_a_file_that_holds_a_spec_is_run_and_is_no_saved_result(
    perfkit: Call, tmp_path: Path
) -> None:
    (tmp_path / "mine.json").write_text('{"name": "mine", "burst": 7}')
    ended = perfkit("compare", "baseline", "mine.json")
    assert ended.exit_code == 0
    assert "throughput of mine against baseline" in ended.stdout


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize(("drift", "verdict"), [(0, "same"), (1, "inconclusive")])
def test_a_live_comparison_shows_its_control(perfkit: Call, drift: int, verdict: str) -> None:
    ended = perfkit("compare", "baseline", "baseline", "--seed", drift)
    assert ended.exit_code == 0
    assert ended.stdout.startswith(f"{verdict}  B/A ")
    assert "throughput of baseline against baseline" in ended.stdout
    assert "  control   A/A " in ended.stdout
    assert "  A         baseline: unknown, median of 8 runs\n" in ended.stdout
    assert ("more blocks may tell: --blocks 16" in ended.stderr) == (verdict == "inconclusive")


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize(
    ("b", "exit_code"), [("tenfold.json", 0), ("tenth.json", 3), ("usual.json", 4), ("usual", 4)]
)
def test_a_gate_ends_with_the_verdict(perfkit: Call, b: str, exit_code: int) -> None:
    assert perfkit("compare", "usual.json", b).exit_code == 0
    assert perfkit("compare", "usual.json", b, "--gate").exit_code == exit_code


@pytest.mark.usefixtures("saved")
def test_different_machines_are_refused_or_labelled(perfkit: Call) -> None:
    refused = perfkit("compare", "usual.json", "elsewhere.json")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "against Another processor" in refused.stderr
    forced = perfkit("compare", "usual.json", "elsewhere.json", "--force")
    assert forced.exit_code == 0
    assert "not measured alike, compared by force: processor: " in forced.stdout


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("baseline basline", "did you mean 'baseline'?"),
        ("baseline usual.json", "usual.json is a saved result and baseline is a spec"),
        ("usual.json missing.json", "There is no result at missing.json"),
        ("broken.json usual.json", "broken.json is not JSON"),
        ("usual.json latency.json --force", "and latency in ms cannot be compared"),
        ("usual.json usual.json --workers 2", "--workers is for two specs"),
        ("usual.json usual.json --set credit=4", "--set is for two specs"),
        ("baseline baseline --force", "--force is for saved results"),
        ("baseline baseline --experiment latncy", "did you mean 'latency'?"),
        ("baseline baseline --blocks 3", "Invalid value for '--blocks'"),
        ("baseline baseline --set x=1", "there is no knob 'x'"),
        ("baseline baseline --tasks 9999999", "--tasks: throughput takes 1 to"),
        ("baseline baseline --json .", "Invalid value for '--json': file '.' is a directory"),
        ("baseline", "Missing argument"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    perfkit: Call, ran: list[dict[str, Any]], arguments: str, complaint: str
) -> None:
    ended = perfkit("compare", *arguments.split())
    assert ran == []
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert complaint in ended.stderr
