"""``perfkit profile``: scripts and functions under the instruments, and the page of a .prof."""

import csv
import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from perfkit.profile.cpu import load_profile, profile_cpu
from tests.perfkit.cli.conftest import spawn

Call = Callable[..., Result]
SCRIPT = """
import sys

def work(count=300):
    kept = [n for n in range(count)]
    return len(kept)

def ok():
    return work(3)

def broken():
    raise KeyError("planted")

if __name__ == "__main__":
    print(work(), sys.argv[1:])
    sys.exit(3)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_script_is_profiled_with_its_own_arguments_and_exit_code(script: Path) -> None:
    saved = script.parent / "it.prof"
    ended = spawn(script.parent, "profile", "cpu", "--save", saved, script, "--json", "a")
    said, _ = ended.communicate(timeout=60)
    assert ended.returncode == 3
    assert "300 ['--json', 'a']" in said
    assert "CPU profile script.py" in said
    assert "work" in {spot.function for spot in load_profile(saved).top(99)}


def test_a_scripts_memory_and_its_error(perfkit: Call, script: Path) -> None:
    script.write_text("held = [bytes(1000) for _ in range(1000)]\nraise KeyError('planted')")
    ended = perfkit("profile", "memory", "--lines", script)
    assert ended.exit_code == 1
    assert "Memory script.py" in ended.stdout
    assert "ended by KeyError" in ended.stdout
    assert "KeyError: 'planted'" in ended.stderr
    assert "targets.py" not in ended.stderr, "the traceback begins with the script"


def test_what_was_measured_until_an_interrupt_is_shown(perfkit: Call, script: Path) -> None:
    script.write_text("def add():\n    return 1\nadd()\nraise KeyboardInterrupt")
    for command in ("cpu", "memory", "lines"):
        ended = perfkit("profile", command, script)
        assert ended.exit_code == 130
        assert "script.py" in ended.stdout
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("name", "words"), [("no/x.json", "is no file"), ("x.prof", "ends in no")])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    perfkit: Call, script: Path, name: str, words: str
) -> None:
    ended = perfkit("profile", "memory", "--save", script.parent / name, script)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert words in " ".join(ended.stderr.replace("│", "").split())


def test_lines_and_latency_of_a_function(perfkit: Call, script: Path) -> None:
    saved = script.parent / "lines.json"
    ended = perfkit("profile", "lines", "--no-memory", "--save", saved, f"{script}:work")
    assert ended.exit_code == 0, ended.stderr
    assert "kept = [n for n in range(count)]" in ended.stdout
    assert json.loads(saved.read_text())["memory"] == []
    ended = perfkit("profile", "latency", "--calls", "5", f"{script}:ok")
    assert f"{script}:ok: 5 calls" in ended.stdout, "and no emoji"
    ended = perfkit("profile", "latency", f"{script}:broken")
    assert (ended.exit_code, "KeyError: 'planted'" in ended.stderr) == (1, True)


def test_a_functions_time_and_memory(perfkit: Call, script: Path) -> None:
    for command, title in (("cpu", "CPU profile"), ("memory", "Memory")):
        ended = perfkit("profile", command, f"{script}:work")
        assert (ended.exit_code, f"{title} {script}:work" in ended.stdout) == (0, True)
    ended = perfkit("profile", "cpu", f"{script}:broken")
    assert ended.exit_code == 1
    assert "ended by KeyError" in ended.stdout
    assert "KeyError: 'planted'" in ended.stderr


WITH_CLASS = """
import sys

class Shelf:
    def fill(self):
        held = [bytes(1000)] * 9
        return [len(it) for it in held]

def unused():
    return 1

def main(count):
    kept = Shelf().fill()
    assert [*map(len, sys.argv)][1:] == [1]
    return kept * count

print(main(int(sys.argv[1])))
"""


def test_lines_and_latency_of_a_script(perfkit: Call, script: Path) -> None:
    script.write_text(WITH_CLASS)
    saved = script.parent / "lines.csv"
    ended = perfkit("profile", "lines", "--save", saved, script, "2")
    assert ended.exit_code == 0, ended.stderr
    rows = {row["code"]: row for row in csv.DictReader(saved.open())}
    assert rows["kept = Shelf().fill()"]["function"] == "main"
    assert rows["held = [bytes(1000)] * 9"]["function"] == "Shelf.fill"
    assert rows["print(main(int(sys.argv[1])))"]["function"] == script.name
    assert {row["runs"] for row in rows.values()} == {"1"}
    assert all(rows[code]["rss_bytes"] for code in ("kept = Shelf().fill()", "return kept * count"))
    assert "return 1" not in rows
    ended = perfkit("profile", "lines", "--no-memory", "--also", "Shelf.fill", "--save", saved,
                    script, "2")  # fmt: skip
    functions = {row["function"] for row in csv.DictReader(saved.open())}
    assert functions == {script.name, "Shelf.fill"}
    ended = perfkit("profile", "latency", "--calls", "3", script, "2")
    assert "Latency of script.py: 3 calls" in ended.stdout
    assert "[1000" not in ended.stdout, "what the runs print is dropped"


def test_two_are_compared_and_the_gate_tells(perfkit: Call, script: Path) -> None:
    script.write_text("def a(): return sum(range(30_000))\ndef b(): return sum(range(30))")
    quick = ("profile", "compare", "--blocks", "6", "--block-s", "0.003")
    saved = script.parent / "it.json"
    ended = perfkit(*quick, "--save", saved, f"{script}:a", f"{script}:b")
    assert (ended.exit_code, "calls in a block" in ended.stdout) == (0, True)
    found = json.loads(saved.read_text())
    assert max(found["samples_s"]["B"]) < min(found["samples_s"]["A"])
    ended = perfkit(*quick, "--gate", "--save", saved, f"{script}:b", f"{script}:a")
    verdict = json.loads(saved.read_text())["comparison"]["verdict"]
    assert ended.exit_code == {"slower": 3, "inconclusive": 4}[verdict]
    ended = perfkit(*quick, f"'{script}' 1", f"{script}:b")
    assert (ended.exit_code, f"{script}:b (B) against '{script}' 1 (A)" in ended.stdout) == (
        0,
        True,
    )
    script.write_text(SCRIPT)
    ended = perfkit(*quick, f"{script}:work", script)
    assert (ended.exit_code, ended.stdout) == (3, ""), "the script's own code"
    ended = perfkit("compare", f"{script}:work", "baseline")
    assert "perfkit profile compare" in ended.stderr


async def later():
    return 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cpu", "missing.py"), "there is no script at missing.py"),
        (("lines", "missing"), "missing: name a script, SCRIPT.py, or a function, MODULE:FUNCTION"),
        (("lines", "missing.py:f"), "there is no file missing.py"),
        (("lines", "time:time"), "not written in Python"),
        (("lines", "--also", "nothing", __file__), "there is no function 'nothing' in "),
        (("lines", "math:sqrt"), "math:sqrt takes arguments (x) and is called without any"),
        (("memory", "time:time", "x"), "time:time is called without arguments, not with x"),
        (("cpu", "time:time", "--save", "x.prof"), "not with --save x.prof; options stand before"),
        (("cpu", f"{__file__}:later"), "later returns before its work, which runs when"),
        (("latency", "nothing_here:f"), "can't be imported: ModuleNotFoundError"),
        (("latency", "math:nothing"), "there is no 'nothing' in math"),
        (("latency", "math:pi"), "pi in math is no function but 3.14"),
        (("cpu", sys.executable), f"{sys.executable} can't be read: "),
        (("compare", "time:time", "'x"), "'x: can't be split into words: no closing quotation"),
        (("compare", "time:time", ""), "a target is empty"),
        (("view", "missing.prof"), "There is no profile at missing.prof"),
        (("view", __file__), "is not a file that cProfile wrote"),
    ],
)
def test_a_wrong_argument_is_one_line(
    perfkit: Call, arguments: tuple[str, ...], message: str
) -> None:
    ended = perfkit("profile", *arguments)
    assert ended.exit_code == 2
    assert message in ended.stderr
    assert ended.stderr.startswith("perfkit: ")
    assert "Traceback" not in ended.stderr


def test_a_saved_profile_is_served_and_nothing_else(tmp_path: Path) -> None:
    with profile_cpu("shown", out_dir=tmp_path):
        sorted(range(9))
    process = spawn(tmp_path, "profile", "view", "--no-browser", "shown.prof")
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert b"sorted" in urllib.request.urlopen(url).read()
        for wrong in (
            urllib.request.Request(f"{url}snakeviz/%2Fetc%2Fpasswd"),
            urllib.request.Request(url, headers={"Host": "elsewhere.example"}),
        ):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(wrong)
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
