"""``perfkit tune`` as a user calls it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import Result

from perfkit.evidence.results import load
from perfkit.optimized.specs import spec_named

Call = Callable[..., Result]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--knob limits.tasks", "--knob: limits.tasks is no knob to tune: it guards"),
        ("--knob brust", "--knob: there is no knob 'brust' to tune; did you mean 'burst'?"),
        ("--knob burst=0", "knob burst: expected int >= 1 ('0' was given)"),
        ("--knob burst=1", "--knob: there is nothing to search: no knob has two values"),
        ("thruput", "no workload 'thruput'"),
        ("latency --objective throughput", "latency has no objective 'throughput'; it has "),
        ("mixed --model digits", "mixed has tasks of its own"),
        ("throughput --model nope", "no inputs are known for model 'nope'"),
        ("--function x.py:f", "--function and --items belong together"),
        ("--function time:time --items x --model digits", "--model is not for --function"),
        ("--function math:pi --items math:pi", "--items: math:pi is no list but 3.14"),
        ("--function math:pi --items math:sqrt", "--items: math:sqrt takes arguments (x)"),
        ("--function math:pi --items none.jsonl", "--items: cannot read none.jsonl: No such file"),
        ("--function math:pi --items sys:path", "--function: math:pi is no function but 3.14"),
        ("recorded --function time:time --items sys:path", "recorded has tasks of its own"),
        ("--out x", "--out: a spec's file ends in .json"),
        ("--out none/x.json", "--out: none/x.json is no file in a folder that is there"),
        ("--spec none.json", "cannot read the spec none.json"),
        ("--sampler cmaes", "--sampler: there is no sampler 'cmaes'"),
    ],
)
def test_a_wrong_argument_is_refused_before_a_cluster_starts(
    perfkit: Call, arguments: str, words: str
) -> None:
    ended = perfkit("tune", *arguments.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert f"perfkit: {words}" in ended.stderr


def test_an_interrupt_writes_the_best_so_far_and_leaves_no_process_behind(
    terminal: Any, perfkit: Call, tmp_path: Path
) -> None:
    (tmp_path / "work.py").write_text("def double(n): return 2 * n")
    (tmp_path / "items.jsonl").write_text("1\n2.5\n")
    own = ("--function", "work.py:double", "--items", "items.jsonl")
    options = ("--knob", "burst=1,256", "--tasks", 100, "--out", "found.json", *own)
    search = terminal("tune", "throughput", *options)
    search.wait_for("best × ")
    children = psutil.Process(search.process.pid).children(recursive=True)
    assert search.interrupt() == 130
    assert psutil.wait_procs(children, timeout=10)[1] == []
    said = search.rest()
    assert "interrupted: burst=256 on baseline looked best and is not proved" in said
    assert "Traceback" not in said
    assert spec_named(str(tmp_path / "found.json")).burst == 256
    evidence = load(tmp_path / "found.evidence.json")
    assert evidence.parameters["changes"] == {"burst": 256}
    assert "100 tasks of double, function work.double, items 2" in evidence.parameters["workload"]
    shown = perfkit("specs", "found.json", "--json")
    assert json.loads(shown.stdout)["found.json"]
