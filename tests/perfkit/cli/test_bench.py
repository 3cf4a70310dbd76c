"""Experiments from the command line: the figure for people, JSON for programs, and wrong words."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from perfkit.bench.experiments import catalogue
from perfkit.cli.bench import show
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.results import Result as Figure
from perfkit.evidence.results import load

Call = Callable[..., Result]


def figure(**facts: Any) -> Figure:
    usual: dict[str, Any] = {
        "experiment": "latency", "spec": "baseline", "engine": "zmq", "workers": 2, "tasks": 10,
        "value": 1.5, "unit": "ms", "low": 1.0, "high": 2.0, "samples": [1.0, 1.5, 2.0],
        "environment": fingerprint(), "seed": 3,
        "counters": {"p95": 2.5, "p95_low": 2.0, "p95_high": 3.0, "bytes_low": 12_345},
        "parameters": {"interval": "order statistics", "model": None},
    }  # fmt: skip
    return Figure(**{**usual, **facts})


def test_a_program_reads_nothing_but_json(perfkit: Call) -> None:
    ran = perfkit("bench", "startup", "--workers", 1, "--tasks", 1, "--seed", 5, "--json", "-")
    assert ran.exit_code == 0
    found = json.loads(ran.stdout)
    wanted = "experiment spec engine workers tasks value unit low high samples environment".split()
    assert set(wanted) <= found.keys()
    assert (found["experiment"], found["spec"], found["engine"]) == ("startup", "baseline", "zmq")
    assert (found["workers"], found["tasks"], found["seed"]) == (1, 1, 5)
    assert found["value"] == found["samples"][0] > 0
    assert "startup: cluster 1 of 1" in ran.stderr


def test_people_see_the_figure_and_the_file_has_the_samples(perfkit: Call, tmp_path: Path) -> None:
    ran = perfkit(
        "bench", "latency", "--workers", 1, "--tasks", 40, "--set", "credit=4", "--json", "x.json"
    )
    assert ran.exit_code == 0
    saved = load(tmp_path / "x.json")
    assert (saved.spec, len(saved.samples)) == ("baseline+credit-4", 40)
    assert ran.stdout.startswith("latency ")
    assert "baseline+credit-4 on zmq, 1 workers, 40 tasks, seed 0" in ran.stdout
    assert "saved to x.json" in ran.stderr


def test_progress_in_a_terminal_is_one_line_that_changes(terminal: Any) -> None:
    bench = terminal("bench", "startup", "--workers", 1, "--tasks", 1)
    bench.wait_for("startup: cluster")
    bench.wait_for("n = 1")
    assert bench.ended() == 0


def test_a_figure_is_shown_with_its_interval_and_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(figure())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "latency 1.50 ms median  [1.00 – 2.00]  n = 3"
    assert lines[1].split(maxsplit=1) == ["interval", "order statistics"]
    assert lines[2].split(maxsplit=1)[1] == "baseline on zmq, 2 workers, 10 tasks, seed 3"
    assert lines[3].split()[0] == "machine"
    assert lines[4].split(maxsplit=1) == ["p95", "2.50  [2.00 – 3.00]"]
    assert lines[5].split() == ["bytes_low", "12,345"]
    assert len(lines) == 6


def test_what_is_unknown_is_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    import msgspec

    blank = msgspec.structs.replace(
        fingerprint(), cpu_model=None, cores_available=None, cores_logical=None,
        memory_total_bytes=None, load_1min=None,
    )  # fmt: skip
    show(figure(value=None, low=None, high=None, parameters={"model": "digits"}, environment=blank))
    shown = capsys.readouterr().out
    assert shown.startswith("latency unknown (ms)")
    assert "interval  none" in shown
    assert "10 tasks of digits" in shown
    assert "unknown processor, cores unknown, – memory\n" in shown
    show(figure(low=None))
    assert "(no interval)" in capsys.readouterr().out


def test_the_help_names_the_experiments_there_are(perfkit: Call) -> None:
    shown = perfkit("bench", "--help").stdout
    assert all(name in shown for name in catalogue.EXPERIMENTS)
    assert "throughput, latency, burst or startup" in shown
    assert len(catalogue.EXPERIMENTS) == 4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["thruput"], "there is no experiment 'thruput'; there are throughput, "),
        (["thruput"], "did you mean 'throughput'?"),
        (["latency", "--spec", "basline"], "did you mean 'baseline'?"),
        (["latency", "--engine", "zmk"], "no engine 'zmk'; there are local, zmq, dask, ray; did"),
        (
            ["latency", "--engine", "local", "--spec", "fast"],
            "for the engine zmq; local has no",
        ),
        (["latency", "--engine", "dask", "--set", "credit=4"], "for the engine zmq; dask has no"),
        (["latency", "--model", "magica"], "did you mean 'magika'?"),
        (["startup", "--tasks", "1000000"], "--tasks: startup takes 1 to 100, not 1,000,000"),
        (["startup", "--set", "x=1"], "the spec has no knob 'x'"),
        (["startup", "--json", "."], "--json: . is a directory; name a file"),
        (["startup", "--workers", "0"], "workers"),
    ],
)
def test_wrong_words_are_told_before_anything_runs(
    perfkit: Call, arguments: list[str], complaint: str
) -> None:
    ended = perfkit("bench", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert complaint in ended.stderr


def test_another_engine_runs_the_same_tasks_and_names_no_spec(perfkit: Call) -> None:
    ran = perfkit(
        "bench", "throughput", "--engine", "local", "--workers", 1, "--tasks", 40, "--json", "x"
    )
    assert ran.exit_code == 0
    assert "  cluster   local, 1 workers, 40 tasks, seed 0" in ran.stdout
    assert "per_task" not in ran.stdout
    saved = load("x")
    assert (saved.engine, saved.spec) == ("local", catalogue.NO_SPEC)


def test_an_engine_that_is_not_installed_says_how_to(
    perfkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "perfkit.engines.dask", raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    ended = perfkit("bench", "throughput", "--engine", "dask")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "perfkit: the dask engine is not installed" in ended.stderr
    assert "pip install 'perfkit[peers]'" in ended.stderr


def test_the_help_names_the_engines_there_are(perfkit: Call) -> None:
    shown = perfkit("bench", "--help").stdout
    assert "local, zmq, dask or ray" in shown
    assert len(catalogue.ENGINES) == 4


def test_an_experiment_that_fails_is_told(perfkit: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise catalogue.WrongResult("task 3 came back as task 4")

    monkeypatch.setattr(catalogue, "run", wrong)
    ended = perfkit("bench", "latency")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == "perfkit: task 3 came back as task 4\n"
