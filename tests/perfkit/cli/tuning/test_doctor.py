"""``perfkit doctor`` as a user calls it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from perfkit.bench.tuning import checkup
from perfkit.bench.tuning.advice import Advice, Standing

Call = Callable[..., Result]


def fault(*_: object) -> Advice:
    return Advice("planted", Standing.FAULT, "a fault", "why", "do")


def fine(*_: object) -> Advice:
    return Advice("planted", Standing.FINE, "well")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the machine have these findings only."""

    def plant(*found: Callable[..., Advice]) -> None:
        monkeypatch.setattr(checkup, "CHECKS", found)
        monkeypatch.setattr(checkup, "software_advice", lambda _: [])
        monkeypatch.setattr(checkup, "card_advice", lambda _: [])

    return plant


def test_advice_is_shown_and_only_a_checked_fault_fails(
    perfkit: Call, checks: Callable[..., None]
) -> None:
    checks(fault)
    told = perfkit("doctor")
    assert told.exit_code == 0
    assert "fault    planted: a fault" in told.stdout
    assert "do    do" in told.stdout
    assert "unknown  spec: unknown" in told.stdout
    assert perfkit("doctor", "--check").exit_code == 1
    checks(fine)
    assert perfkit("doctor", "--check").exit_code == 0
    assert "planted" not in perfkit("doctor").stdout
    assert "planted  well" in perfkit("doctor", "--all").stdout


def test_json_holds_every_finding_of_this_machine(perfkit: Call, tmp_path: Path) -> None:
    told = perfkit("doctor", "--json")
    assert told.exit_code == 0
    names = {row["name"] for row in json.loads(told.stdout)["advice"]}
    assert {"other work", "cores", "clock source", "Python build", "extras", "spec"} <= names


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--results none", "--results: none is not a folder"),
        ("--spec none.json", "cannot read the spec none.json"),
    ],
)
def test_a_wrong_argument_is_refused(perfkit: Call, arguments: str, words: str) -> None:
    told = perfkit("doctor", *arguments.split())
    assert told.exit_code == 2
    assert words in told.stderr
