"""Fixtures that start a cluster and call the command as a user would."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from typer.testing import CliRunner, Result

from perfkit.cli import app

#: The tree of all commands is made once: to make it takes longer than most commands do.
typer.testing._get_command = cache(typer.testing._get_command)
ROOT = Path(__file__).parents[3]
NO_FOLDER = "/nonexistent"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def plain_environment(folder: Path) -> dict[str, str]:
    """This environment without perfkit's settings, and wide enough not to wrap lines."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("PERFKIT_")}
    ours = {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "xterm"}
    folders = {"XDG_STATE_HOME": str(folder / "state"), "XDG_DATA_HOME": str(folder / "data")}
    return {**inherited, **ours, **folders, "XDG_CONFIG_HOME": NO_FOLDER}


def spawn(folder: Path, *arguments: object, **streams: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "perfkit", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen(command, cwd=folder, env=plain_environment(folder), text=True, **pipes)


class Up:
    """A ``perfkit cluster up`` in the background, and the JSON it wrote when it was ready."""

    def __init__(self, folder: Path, *flags: object) -> None:
        bind = ("--bind", "tcp://127.0.0.1:*")
        self.process = spawn(folder, "cluster", "up", *bind, "--json", *flags)
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.facts: dict[str, Any] = json.loads(line)
        self.endpoint: str = self.facts["endpoint"]

    def pids(self) -> list[int]:
        return [self.facts["coordinator"]["pid"], *(w["pid"] for w in self.facts["workers"])]

    def stop(self, signum: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code, and its standard error."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said

    close = stop


class Terminal:
    """The command in a terminal of its own."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._main, inside = pty.openpty()
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), inside)
        self.process = spawn(folder, *arguments, **streams)
        os.close(inside)
        self._unread = ""

    def wait_for(self, text: str) -> str:
        """The output up to and with the next ``text``."""
        while text not in self._unread:
            more = self._read()
            assert more, f"{text!r} never came: {self._unread}"
        seen, self._unread = self._unread.split(text, 1)
        return seen + text

    def rest(self) -> str:
        """The output from here to the end."""
        while self._read():
            pass
        return self._unread

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        self.rest()
        return self.process.wait(30)

    def press(self, key: str) -> int:
        """Type a key that ends the command; the exit code."""
        os.write(self._main, key.encode())
        self.rest()
        return self.process.wait(30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)

    def _read(self) -> str:
        try:
            more = os.read(self._main, 65_536).decode(errors="replace")
        except OSError:  # the last writer has closed the terminal
            return ""
        self._unread += ESCAPES.sub("", more)
        return more


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What a test starts, closed at its end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def terminal(tmp_path: Path, stack: ExitStack) -> Callable[..., Terminal]:
    """Start the command in a terminal."""
    return lambda *arguments: stack.enter_context(closing(Terminal(tmp_path, *arguments)))


@pytest.fixture
def start_up(tmp_path: Path, stack: ExitStack) -> Callable[..., Up]:
    """Start a cluster for one test."""
    return lambda *flags: stack.enter_context(closing(Up(tmp_path, *flags)))


@pytest.fixture
def start(tmp_path: Path, stack: ExitStack) -> Callable[..., subprocess.Popen[str]]:
    """Start the command in the background."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = stack.enter_context(spawn(tmp_path, *arguments))
        stack.callback(process.kill)
        return process

    return start


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A cluster that tests share, so they must not change it."""
    models = ("--model", "magika", "--model", "digits")
    up = Up(tmp_path_factory.mktemp("up"), "--workers", 2, *models)
    yield up
    up.stop()


@pytest.fixture
def perfkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Call the command in this process, in an empty folder, without outside settings."""
    monkeypatch.setenv("PERFKIT_REPOSITORY", "what a command sets is undone too")
    for name in list(os.environ):
        if name.startswith("PERFKIT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", NO_FOLDER)

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call
