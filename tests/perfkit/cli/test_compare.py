"""Comparisons from the command line: the verdict for people, for programs, and for a gate."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from typer.testing import Result

from perfkit.bench.experiments import catalogue
from perfkit.evidence.environment import fingerprint, machine_id
from perfkit.evidence.results import Result as Figure
from perfkit.evidence.results import save
from perfkit.evidence.stats import abba

Call = Callable[..., Result]
HERE = fingerprint()
ELSEWHERE = msgspec.structs.replace(HERE, cpu_model="Another processor")
ELSEWHERE = msgspec.structs.replace(ELSEWHERE, machine_id=machine_id(ELSEWHERE))
QUICK = ("--experiment", "startup", "--blocks", 4, "--workers", 1, "--tasks", 1)


@pytest.fixture
def saved(tmp_path: Path) -> None:
    """Throughputs in files: usual, half.json (slower), tenfold.json, and of other conditions."""
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


def test_two_specs_are_run_and_a_program_reads_nothing_but_json(perfkit: Call) -> None:
    ran = perfkit(
        "compare", "baseline", "baseline", *QUICK, "--seed", 3, "--set", "credit=4", "--json", "-"
    )
    assert ran.exit_code == 0
    found = json.loads(ran.stdout)
    assert (found["experiment"], found["unit"]) == ("startup", "s")
    assert found["a"] == found["b"] == "baseline+credit-4"
    assert found["verdict"] in ("faster", "slower", "same", "inconclusive")
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["aa_low"] <= found["aa_ratio"] <= found["aa_high"]
    assert found["order"] == abba(4, 3, "ABC")
    assert [len(found["results"][arm]) for arm in "ABC"] == [4, 4, 4]
    assert {one["seed"] for one in found["results"]["B"]} == {3}
    assert ran.stderr.count("block 4 of 4, ") == 3


def test_an_interrupt_leaves_no_process_behind(terminal: Any) -> None:
    compare = terminal("compare", "baseline", "baseline", "--experiment", "startup")
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
    assert verdict.startswith("faster  B/A 10 (")
    assert verdict.endswith("throughput of other against baseline (tasks/s, higher is better)")
    shown = {row.split()[0]: row.split(maxsplit=1)[1] for row in rows}
    assert shown["control"] == "none: there was no second A"
    assert shown["A"] == "baseline: 100 tasks/s, one run"
    assert shown["why"].startswith("the two runs were not interleaved")
    assert shown["interval"].startswith("95%, wild bootstrap")
    assert list(shown) == ["control", "A", "B", "why", "interval", "machine"]
    assert "saved to found.json" in ran.stderr
    assert json.loads((tmp_path / "found.json").read_text())["verdict"] == "faster"


@pytest.mark.parametrize(("step", "verdict"), [(0, "same"), (1, "inconclusive")])
def test_a_live_comparison_shows_its_control(
    step: int, verdict: str, perfkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    moods = count(100, step)

    def run(name: str, *, spec: Any, **_: Any) -> Figure:
        return Figure(
            experiment=name, spec=spec.name, engine="zmq", workers=2, tasks=5, value=None,
            unit="tasks/s", low=None, high=None, samples=[next(moods)], environment=HERE,
        )  # fmt: skip

    monkeypatch.setattr(catalogue, "run", run)
    ran = perfkit("compare", "baseline", "baseline")
    assert ran.exit_code == 0
    assert ran.stdout.startswith(f"{verdict}  B/A ")
    assert "throughput of baseline against baseline" in ran.stdout
    assert "  control   A/A " in ran.stdout
    assert "  A         baseline: unknown, median of 8 runs\n" in ran.stdout
    assert ("more blocks may tell: --blocks 16" in ran.stderr) == (verdict == "inconclusive")


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
        (["baseline", "basline"], "no spec 'basline'; there are baseline"),
        (["baseline", "basline"], "did you mean 'baseline'?"),
        (["baseline", "usual.json"], "usual.json is a saved result and baseline a spec"),
        (["missing.json", "baseline"], "missing.json is a saved result and baseline a spec"),
        (["usual.json", "missing.json"], "There is no result at missing.json"),
        (["broken.json", "usual.json"], "broken.json is not JSON"),
        (["usual.json", "latency.json", "--force"], "and latency in ms cannot be compared"),
        (["usual.json", "usual.json", "--workers", "2"], "--workers is for two specs"),
        (["usual.json", "usual.json", "--set", "credit=4"], "--set is for two specs"),
        (["baseline", "baseline", "--force"], "--force is for saved results"),
        (["baseline", "baseline", "--experiment", "latncy"], "did you mean 'latency'?"),
        (["baseline", "baseline", "--blocks", "3"], "--blocks: a verdict needs at least 4, not 3"),
        (["baseline", "baseline", "--model", "magica"], "did you mean 'magika'?"),
        (["baseline", "baseline", "--set", "x=1"], "the spec has no knob 'x'"),
        (["baseline", "baseline", "--tasks", "9999999"], "--tasks: throughput takes 1 to"),
        (["baseline", "baseline", "--json", "."], "--json: . is a directory; name a file"),
        (["baseline"], "Missing argument"),
    ],
)
def test_wrong_words_are_told_before_anything_runs(
    perfkit: Call, arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("an experiment was run")

    monkeypatch.setattr(catalogue, "run", never)
    ended = perfkit("compare", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert complaint in ended.stderr


def test_a_wrong_result_makes_no_comparison(perfkit: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise catalogue.WrongResult("task 3 came back as task 4")

    monkeypatch.setattr(catalogue, "run", wrong)
    ended = perfkit("compare", "baseline", "baseline", "--gate")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == "perfkit: task 3 came back as task 4\n"
