"""Terminals, pipes and file names as they come: no traceback, and JSON that loses nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from tests.perfkit.cli.conftest import plain_environment

Run = Callable[..., subprocess.CompletedProcess[bytes]]

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TERMINALS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": C_LOCALE,
}
#: Text that no encoding but Unicode's has as a whole, and a file name that is no text.
TEXT = "h\xe9 \u2192 \U0001f600"
NAME = b"b\xe4d\xff.txt"
FULL = "perfkit: standard output cannot be written: No space left on device\n"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command in a shell, with a redirection and an environment of the test's."""

    def run(*arguments: str | bytes, to: str = "", stdout: int = PIPE, **environment: str) -> Any:
        command = [sys.executable, "-m", "perfkit", *arguments]
        return subprocess.run(
            ["bash", "-c", f'"$@" {to}', "bash", *command],
            cwd=tmp_path,
            env={**plain_environment(tmp_path), **environment},
            stdout=stdout,
            stderr=PIPE,
            timeout=60,
        )

    return run


@pytest.mark.parametrize("terminal", TERMINALS)
def test_a_terminal_gets_what_it_can_show(run: Run, running: Any, terminal: str) -> None:
    at = ("--endpoint", running.endpoint)
    commands = [["cluster", "submit", "--kind", "echo", "--payload", TEXT, *at]]
    if terminal == "C":  # each shows signs of its own, and all pass through the same encoder
        commands = [["--help"], ["report", "--help"], ["cluster", "status", *at], *commands]
    for command in commands:
        ended = run(*command, **TERMINALS[terminal])
        assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"\\U0001f600" in ended.stdout
    assert b"->" in ended.stdout


@pytest.mark.parametrize("terminal", ["utf-8", *TERMINALS])
def test_json_loses_nothing(run: Run, running: Any, terminal: str, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(NAME)).write_text(TEXT, encoding="utf-8")
    environment = TERMINALS.get(terminal, {"PYTHONIOENCODING": "utf-8"})
    ask = ("cluster", "submit", "--kind", "echo", "--endpoint", running.endpoint, "--json")
    for arguments in ([NAME], ["--payload", TEXT])[terminal in ("ascii", "latin-1") :]:
        ended = run(*ask, *arguments, **environment)
        assert (ended.returncode, ended.stderr) == (0, b"")
        (result,) = json.loads(ended.stdout)["results"]
        assert result["result"] == TEXT
        assert os.fsencode(result["name"]) in (NAME, b"echo")


def test_a_file_name_comes_back_as_it_was_and_a_person_sees_its_bytes(
    run: Run, running: Any, tmp_path: Path
) -> None:
    (tmp_path / os.fsdecode(NAME)).write_text("x")
    ask = ("cluster", "submit", "--kind", "echo", "--endpoint", running.endpoint)
    assert run(*ask, NAME).stdout.startswith(NAME + b" ")
    missing = run(*ask, NAME + b"x")
    assert (missing.returncode, missing.stdout) == (1, b"")
    assert missing.stderr == b"perfkit: cannot read b\\xe4d\\xff.txtx: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["cluster", "status", "--endpoint", b"tcp://\xff:1"],
        ["cluster", "worker", "--name", b"w\xff", "--set", b"limits.heartbeat_s=\xff"],
        ["report", NAME],
        ["bench", b"\xff"],
        [b"\xff"],
    ],
    ids=repr,
)
def test_an_argument_that_is_no_text_is_a_wrong_argument(run: Run, arguments: list[Any]) -> None:
    ended = run(*arguments, **C_LOCALE)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"Traceback" not in ended.stderr
    assert b"perfkit: " in ended.stderr or b"Usage: " in ended.stderr


@pytest.mark.parametrize(
    ("command", "to", "said"),
    [
        (["--help"], ">/dev/full", FULL),
        (["--version"], ">/dev/full", FULL),
        (["gpu", "--json"], ">/dev/full", FULL),
        (["--version"], ">&-", "perfkit: standard output cannot be written: Bad file descriptor\n"),
        (["gpu", "--json"], "", ""),
        (["--help"], ">&- 2>&-", ""),
    ],
)
def test_output_that_is_lost_is_a_failure(run: Run, command: list[str], to: str, said: str) -> None:
    read, write = os.pipe()
    os.close(read)  # standard output is a closed pipe, unless it goes elsewhere
    ended = run(*command, to=to, stdout=write)
    os.close(write)
    assert ended.returncode == 1
    assert ended.stderr.decode().replace("no AMD card below /sys/class/drm\n", "") == said


@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-"])
def test_standard_error_that_is_lost_changes_nothing(run: Run, to: str) -> None:
    ended = run("report", "missing.ipynb", to=to)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, b"", b"")
    assert run("--version", to=to).stdout.startswith(b"perfkit ")


def test_a_watch_writes_lines_into_a_pipe_and_ends_with_its_reader(
    start: Any, tmp_path: Path
) -> None:
    watching = start("gpu", "--watch", "--drm-root", tmp_path)
    for _ in range(2):
        assert watching.stdout.readline() == f"no AMD card below {tmp_path}\n"
    watching.stdout.close()
    assert watching.wait(30) == 1
    assert watching.stderr.read() == ""
