"""The command as a whole: its help, its version, its imports, and its exit codes."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from unittest.mock import Mock

import pytest
import typer
from typer.testing import CliRunner, Result

from cluster.vocabulary.errors import ClusterError
from perfkit.cli import app
from perfkit.cli.terminal.command import add_command
from perfkit.cli.terminal.output import errors_as_lines
from perfkit.optimized.knobs import SettingError

Call = Callable[..., Result]

COMMANDS = [
    [],
    ["cluster"],
    *(["cluster", name] for name in "up coordinator worker status submit".split()),
    *([name] for name in "bench compare soak specs gpu kernels inspect report".split()),
    ["inspect", "memory"],
]


@cache
def help_of(*command: str) -> str:
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    shown = runner.invoke(app, [*command, "--help"])
    assert shown.exit_code == 0
    return shown.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_examples_whose_flags_exist(command: list[str]) -> None:
    assert "[/" not in help_of(*command), "markup that was not understood"
    lines = [line.strip() for line in help_of(*command).partition("Examples")[2].splitlines()]
    typed = [line for line in lines if line.startswith("perfkit")]
    assert typed
    assert all(line.startswith(" ".join(["perfkit", *command])) for line in typed)
    for line in typed:  # the examples of a group are those of its commands
        words = line.partition("|")[0].split()
        depth = 3 if words[1] in ("cluster", "inspect") else 2
        prose = help_of(*words[1:depth]).partition("Examples")[0]
        assert [word for word in words if word[0] == "-" != word and word not in prose] == []


def test_without_arguments_there_is_help(perfkit: Call) -> None:
    assert "Usage: perfkit" in perfkit().output
    assert "Usage: perfkit cluster" in perfkit("cluster").output


def test_help_tells_the_exit_codes() -> None:
    assert "0 done, 1 failed, 2 wrong arguments, 130 interrupted" in help_of()
    codes = re.findall(r"\b(\d+) \w", help_of("report").split("Exit codes:")[1])
    assert [int(code) for code in codes[:8]] == [0, 1, 2, 3, 4, 5, 6, 130]


def test_the_version_is_that_of_the_package(perfkit: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    monkeypatch.setattr(metadata, "version", lambda name: f"1.2 of {name}")
    shown = perfkit("--version")
    assert (shown.exit_code, shown.stdout) == (0, "perfkit 1.2 of perfkit\n")

    monkeypatch.setattr(metadata, "version", Mock(side_effect=metadata.PackageNotFoundError))
    assert "version unknown" in perfkit("--version").stdout


def test_help_loads_nothing_heavy() -> None:
    commands = [["cluster", "submit"], ["bench"], ["compare"], ["report"]]
    program = (
        "import sys; from perfkit.cli import app\n"
        f"for command in {commands}:\n"
        "    try: app([*command, '--help'], prog_name='perfkit')\n"
        "    except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"zmq", "numpy", "pandas", "papermill", "nbconvert", "matplotlib", "onnxruntime"}
    assert ran.stdout.count("Usage: ") == len(commands)
    assert "perfkit.cli" in ran.stderr.split()
    assert heavy.isdisjoint(ran.stderr.split())


@pytest.mark.parametrize(
    "arguments", [["clutser"], ["cluster", "upp"], ["bench", "--nope"], ["bench"]], ids=" ".join
)
def test_arguments_that_cannot_be_parsed_end_with_2(perfkit: Call, arguments: list[str]) -> None:
    ended = perfkit(*arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "Usage: perfkit" in ended.stderr


class Refused(Exception):
    """An error with an exit code of its own."""

    exit_code = 7


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SettingError("no [such] thing"), 2, "perfkit: no [such] thing\n"),
        (ClusterError("gone"), 1, "perfkit: gone\n"),
        (ValueError("broken"), 1, "perfkit: broken\n"),
        (Refused("refused"), 7, "perfkit: refused\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_expected_error_is_a_line_and_a_code(error: BaseException, code: int, said: str) -> None:
    failing = typer.Typer()

    def fail() -> None:
        """Raise the error."""
        with errors_as_lines(ValueError, Refused):
            raise error

    add_command(failing, "fail", fail)
    ended = CliRunner().invoke(failing, [])
    assert (ended.exit_code, ended.stdout, ended.stderr) == (code, "", said)


def test_an_unexpected_error_is_not_hidden() -> None:
    with pytest.raises(KeyError), errors_as_lines(ValueError):
        raise KeyError("a bug")
