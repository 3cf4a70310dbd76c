"""``perfkit soak`` as people and programs call it: figures, verdicts, exit codes, and Ctrl-C."""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from perfkit.bench.leaks import check as leaks
from perfkit.bench.leaks import soak
from perfkit.bench.leaks.check import CheckSizes
from perfkit.bench.leaks.churn import KINDS
from perfkit.bench.leaks.planted import LEAKED
from perfkit.bench.leaks.reading import Reading
from perfkit.bench.leaks.soak import Round, summarise
from tests.perfkit.machine import HERE

Call = Callable[..., Result]
SMALL = CheckSizes(tasks=1_600, churn=160, readings=16)


def rounds(blocks_a_round: int = 0) -> list[Round]:
    readings = [
        Reading(3_000, 90_000 + blocks_a_round * at, 8 << 20, 50 << 20, 25, 7, {"kept": 2})
        for at in range(90)
    ]
    return [Round(2.0 * at, 1_000 * at, 100 * at, r, 30, 9) for at, r in enumerate(readings)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of a fake soak, which returns a summary of made-up rounds."""
    calls: list[dict[str, Any]] = []

    def made(spec: Any, minutes: float, **options: Any) -> soak.SoakResult:
        options.pop("progress")("soak: 1.0 of 3 min, 30,000 tasks")
        calls.append({"spec": spec, "minutes": minutes, **options})
        return summarise(
            rounds(1_000 if spec.name.endswith("+leak") else 0), spec=spec.name, duration_s=180.0,
            seed=0, interrupted=False, events={"task": 89_000}, environment=HERE,
        )  # fmt: skip

    monkeypatch.setattr(soak, "soak", made)
    return calls


@pytest.fixture
def small_check(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    whole, few = leaks.check_leaks, ["task", "bad frame"]
    monkeypatch.setattr(leaks, "check_leaks", lambda spec, **more: whole(spec, SMALL, few, **more))
    yield
    LEAKED.clear()


def test_people_see_every_figure_and_verdict(perfkit: Call, asked: list[dict[str, Any]]) -> None:
    ran = perfkit("soak", "--minutes", 3, "--spec", "optimized", "--workers", 4, "--seed", 2)
    assert ran.exit_code == 0
    lines = {line.split()[0]: line for line in ran.stdout.splitlines() if line.strip()}
    assert lines["soak"].startswith("soak of optimized, 3 min 0 s;")
    assert lines.keys() >= set("events gc blocks RSS in fds threads containers verdict".split())
    assert "no leak found" in lines["verdict"]
    assert "soak: 1.0 of 3 min" in ran.stderr
    (call,) = asked
    assert (call["minutes"], call["workers"], call["seed"]) == (3.0, 4, 2)


def test_a_leak_ends_with_1_and_says_so(perfkit: Call, asked: list[dict[str, Any]]) -> None:
    ran = perfkit("soak", "--plant-leak")
    assert ran.exit_code == 1
    assert "blocks of memory are left of each event" in ran.stdout
    assert ran.stderr.endswith("perfkit: baseline+leak leaks\n")


def test_a_program_reads_nothing_but_json(perfkit: Call, asked: list[dict[str, Any]]) -> None:
    ran = perfkit("soak", "--json", "-", "--set", "burst=7")
    assert ran.exit_code == 0
    assert json.loads(ran.stdout)["verdict"] == "no leak found"
    assert asked[0]["spec"].burst == 7


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--minutes 0", "Invalid value for '--minutes'"),
        ("--workers 0", "Invalid value for '--workers'"),
        ("--json .", "Invalid value for '--json': file '.' is a directory"),
        ("--by-event --minutes 3", "--minutes is not for --by-event"),
        ("--by-event --workers 3", "--workers is not for --by-event"),
        ("--set brst=3", "there is no knob 'brst'; did you mean 'burst'?"),
        ("--set queue=perfkit.optimized.queue:SortedQueue --plant-leak", "--plant-leak: spec "),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    perfkit: Call, asked: list[dict[str, Any]], arguments: str, complaint: str
) -> None:
    ended = perfkit("soak", *arguments.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert complaint in ended.stderr
    assert asked == []


@pytest.mark.usefixtures("small_check")
def test_each_kind_of_event_has_a_row(perfkit: Call) -> None:
    ran = perfkit("soak", "--by-event", "--set", "limits.history_runs=2")
    assert ran.exit_code == 0, ran.stdout
    assert [kind for kind in KINDS if f"\n{kind} " in ran.stdout] == ["task", "bad frame"]
    # So small a check may end unclear where the machine is busy. It must not find a leak.
    harmless = "^(?:task|bad frame) +(?:no leak found|inconclusive) in"
    assert len(re.findall(harmless, ran.stdout, re.MULTILINE)) == 2


def test_an_interrupted_check_shows_events(perfkit: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = leaks.check_leaks

    def interrupted(spec: Any, *, progress: Callable[[str], None]) -> leaks.LeakTable:
        def tell(line: str) -> None:
            progress(line)
            if "connect: " in line:
                raise KeyboardInterrupt

        return whole(spec, SMALL, progress=tell)

    monkeypatch.setattr(leaks, "check_leaks", interrupted)
    ran = perfkit("soak", "--by-event", "--set", "limits.history_runs=2")
    assert ran.exit_code == 130
    assert [kind for kind in KINDS if f"\n{kind} " in ran.stdout] == ["task", "connect"]


@pytest.mark.usefixtures("small_check")
def test_a_leak_is_found_by_event_and_every_reading_saved(perfkit: Call, tmp_path: Path) -> None:
    ran = perfkit("soak", "--by-event", "--plant-leak", "--json", "leaks.json")
    assert ran.exit_code == 1
    rows = json.loads((tmp_path / "leaks.json").read_text())
    assert [row["event"] for row in rows] == ["task", "bad frame"]
    assert [row["verdict"] for row in rows] == ["leak", "no leak found"]
    assert len(rows[0]["readings"]) == SMALL.readings


def test_ctrl_c_ends_a_real_soak_with_what_was_measured_so_far(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    running = start("soak", "--minutes", 5, "--spec", "optimized", "--json", "soak.json")
    assert running.stderr.readline().startswith("soak: 0.")
    running.send_signal(signal.SIGINT)
    shown, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "interrupted" in shown.splitlines()[0]
    assert "inconclusive: too few readings" in shown
    assert "saved to soak.json" in said
    saved = json.loads((tmp_path / "soak.json").read_text())
    assert saved["interrupted"]
    assert saved["events"]["worker restart"] == 2 * len(saved["rounds"])
