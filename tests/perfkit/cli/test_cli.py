"""The command as a whole: its help, its version, how it begins and how it ends."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer
from typer.testing import CliRunner, Result

from perfkit.cli.config import SettingError
from perfkit.cli.output import add_command, errors_as_lines

Call = Callable[..., Result]

COMMANDS = [
    [],
    ["cluster"],
    *(["cluster", name] for name in "up coordinator worker status submit".split()),
    ["bench"],
    ["kernels"],
    ["profile"],
    ["profile", "memory"],
    ["report"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_by_example(perfkit: Call, command: list[str]) -> None:
    shown = perfkit(*command, "--help")
    assert shown.exit_code == 0
    _, _, examples = shown.stdout.partition("Examples")
    typed = re.findall(r"^ *perfkit .*$", examples, re.MULTILINE)
    assert typed
    assert all(line.strip().startswith(" ".join(["perfkit", *command])) for line in typed)
    assert "[/" not in shown.stdout, "markup that was not understood"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c], ids=" ".join)
def test_every_example_in_the_help_uses_flags_there_are(perfkit: Call, command: list[str]) -> None:
    prose, _, examples = perfkit(*command, "--help").stdout.partition("Examples")
    own = [line for line in examples.splitlines() if line.strip().startswith("perfkit")]
    if command == ["cluster"]:
        prose += perfkit("cluster", "up", "-h").stdout + perfkit("cluster", "submit", "-h").stdout
    flags = re.findall(r"(?<= )--?[a-z-]+", " ".join(own))
    assert [flag for flag in flags if flag not in prose and flag != "-"] == []


def test_without_arguments_there_is_help(perfkit: Call) -> None:
    assert "Usage: perfkit" in perfkit().output
    assert "Usage: perfkit cluster" in perfkit("cluster").output


def test_help_tells_the_exit_codes(perfkit: Call) -> None:
    assert "0 done, 1 failed, 2 wrong arguments, 130 interrupted" in perfkit("--help").stdout
    codes = re.findall(r"\b(\d+) \w", perfkit("report", "--help").stdout.split("Exit codes:")[1])
    assert [int(code) for code in codes[:8]] == [0, 1, 2, 3, 4, 5, 6, 130]


def test_the_version_is_that_of_the_package(perfkit: Call) -> None:
    shown = perfkit("--version")
    assert (shown.exit_code, shown.stdout.split()[0]) == (0, "perfkit")
    assert re.search(r"\d+\.\d+|version unknown", shown.stdout)


def test_a_folder_that_is_not_installed_has_no_version(
    perfkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    assert "version unknown" in perfkit("--version").stdout


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["cluster", "submit", "--help"], ["bench", "--help"], ["report", "--help"]],
    ids=" ".join,
)
def test_help_waits_for_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from perfkit.cli import app\n"
        "try: app(prog_name='perfkit')\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    heavy = {"zmq", "numpy", "pandas", "papermill", "nbconvert", "matplotlib", "onnxruntime"}
    assert "perfkit.cli" in ran.stderr.split()
    assert heavy.isdisjoint(ran.stderr.split())


@pytest.mark.parametrize(
    "arguments", [["clutser"], ["cluster", "upp"], ["bench", "--nope"], ["bench"]], ids=" ".join
)
def test_what_cannot_be_parsed_ends_with_2(perfkit: Call, arguments: list[str]) -> None:
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
        (ValueError("broken"), 1, "perfkit: broken\n"),
        (Refused("refused"), 7, "perfkit: refused\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_expected_error_is_a_line_and_an_exit_code(
    error: BaseException, code: int, said: str
) -> None:
    app = typer.Typer()

    def fail() -> None:
        """Fail as told."""
        with errors_as_lines(ValueError, Refused):
            raise error

    add_command(app, "fail", fail)
    ended = CliRunner().invoke(app, [])
    assert (ended.exit_code, ended.stdout, ended.stderr) == (code, "", said)


def test_an_unexpected_error_is_not_hidden() -> None:
    with pytest.raises(KeyError), errors_as_lines(ValueError):
        raise KeyError("a bug")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (200 << 20, "200 MiB"),
        (3 << 50, "3072 TiB"),
    ],
)
def test_a_size_is_said_in_a_fitting_unit(size_bytes: int | None, text: str) -> None:
    assert size(size_bytes) == text
