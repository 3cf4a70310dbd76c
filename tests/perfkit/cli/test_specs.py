"""``perfkit specs``: every spec by name, and every knob of one."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
from typer.testing import Result

from cluster.spec import BASELINE
from perfkit.optimized.knobs import flat
from perfkit.optimized.specs import OPTIMIZED, SPECS

Call = Callable[..., Result]


def test_every_spec_is_listed_with_what_it_changes(perfkit: Call) -> None:
    shown = perfkit("specs").stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if line[:1] not in (" ", "")}
    assert set(lines) >= set(SPECS)
    assert lines["baseline"].split()[1:] == ["nothing"]
    assert "credit=32" in lines["pipelining"]


def test_every_knob_of_a_spec_has_its_value_and_a_meaning(perfkit: Call) -> None:
    found = json.loads(perfkit("specs", "optimized", "--json").stdout)["optimized"]
    values = flat(msgspec.to_builtins(OPTIMIZED))
    del values["name"]
    assert {knob["name"]: knob["value"] for knob in found} == values
    assert all(knob["about"] and knob["takes"] for knob in found)
    shown = perfkit("specs", "optimized").stdout
    assert "* 2048 (1 or more): tasks in a message of a client" in shown
    assert f" {BASELINE.drain} (1 or more): messages" in shown


def test_an_unknown_spec_is_refused_with_the_nearest(perfkit: Call) -> None:
    ended = perfkit("specs", "optimised")
    assert ended.exit_code == 2
    assert "did you mean 'optimized'?" in ended.stderr


def test_json_names_a_json_file_in_a_folder_that_is_there(perfkit: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("mine")
    assert "does not end in .json" in perfkit("specs", "--json", mine).stderr
    assert mine.read_text() == "mine"
    assert "there is no folder" in perfkit("specs", "--json", tmp_path / "none/x.json").stderr
    assert not (tmp_path / "none").exists()
    assert perfkit("specs", "--json", tmp_path / "x.json").exit_code == 0
    assert json.loads((tmp_path / "x.json").read_text()).keys() == SPECS.keys()


def test_json_without_a_file_prints_and_leaves_what_follows_to_the_command(
    perfkit: Call, tmp_path: Path
) -> None:
    (tmp_path / "letter.csv").write_text("mine")
    ended = perfkit("kernels", "--json", tmp_path / "letter.csv")
    assert "letter.csv" in ended.stderr
    assert "does not end" not in ended.stderr
    assert (tmp_path / "letter.csv").read_text() == "mine"
    assert perfkit("specs", "--json", "--", "baseline").stdout.startswith("{")
