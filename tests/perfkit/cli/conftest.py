"""A cluster as a user would start it, and the command as a user would call it."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from perfkit.cli import app

ROOT = Path(__file__).parents[3]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
COMMAND = [sys.executable, "-m", "perfkit"]


def plain_environment() -> dict[str, str]:
    """This process's environment without settings of perfkit, wide enough not to wrap lines."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("PERFKIT_")}
    return {**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}


class Up:
    """A ``perfkit cluster up`` in the background, and what it said when it was ready."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "cluster", "up", "--bind", "tcp://127.0.0.1:*", "--json", *flags],
            cwd=folder,
            env=plain_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.facts: dict[str, Any] = json.loads(line)
        self.endpoint: str = self.facts["endpoint"]

    def pids(self) -> list[int]:
        return [self.facts["coordinator"]["pid"], *(w["pid"] for w in self.facts["workers"])]

    def stop(self, signum: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code, and what it wrote to standard error."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


class Terminal:
    """The command in a terminal: what it writes there, as far as it has been read."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._main, inside = pty.openpty()
        # 100 columns, or the size would be 0 and a table would have no room at all.
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=folder,
            env={**plain_environment(), "TERM": "xterm", "COLUMNS": "100"},
            stdin=inside,
            stdout=inside,
            stderr=inside,
        )
        os.close(inside)
        self._unread = ""

    def wait_for(self, text: str) -> str:
        """What was written up to and with the next ``text``."""
        seen = ""
        while text not in self._unread:
            more = self._read()
            assert more, f"{text!r} never came: {self._unread}"
        seen, self._unread = self._unread.split(text, 1)
        return seen + text

    def rest(self) -> str:
        """What is written from here to the end."""
        while self._read():
            pass
        return self._unread

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> int:
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
        except OSError:  # how Linux says that nobody writes to a terminal any more
            return ""
        self._unread += ESCAPES.sub("", more)
        return more


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Start the command in a terminal of its own; closed at the end."""
    opened: list[Terminal] = []

    def open_terminal(*arguments: object) -> Terminal:
        opened.append(Terminal(tmp_path, *arguments))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.fixture
def start_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start clusters of one's own; whatever still runs at the end is stopped."""
    started: list[Up] = []

    def start(*flags: str) -> Up:
        started.append(Up(tmp_path, *flags))
        return started[-1]

    yield start
    for up in started:
        up.stop()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(
        tmp_path_factory.mktemp("up"), "--workers", "2", "--model", "magika", "--model", "digits"
    )
    yield up
    up.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command in the background; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        started.append(
            subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                cwd=tmp_path,
                env=plain_environment(),
                text=True,
                **pipes,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def perfkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Call the command in this process, in an empty folder, without settings from outside."""
    for name in list(os.environ):
        if name.startswith("PERFKIT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call
