"""What every command says and how it ends, in one place: people and programs rely on it.

Results go to standard output, everything else to standard error. An error is one line that begins
with ``perfkit:``; nobody is shown a traceback for a port that is taken. Exit codes: 0 done, 1
failed, 2 wrong arguments, 130 interrupted; ``perfkit report`` has some of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import cleandoc
from typing import IO, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

FAILED = 1
BAD_ARGUMENTS = 2


def out() -> Console:
    """Standard output for people. Made when it is used, because tests replace the streams."""
    return Console(highlight=False, soft_wrap=True)


def err() -> Console:
    """Standard error for people."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """One red line; what a child process wrote may follow it."""
    err().print(Text(f"perfkit: {message}", style="red"))


def note(message: str) -> None:
    """A line about what is going on, out of the way of results."""
    err().print(Text(message, style="dim"))


@contextmanager
def errors_as_lines(*kinds: type[Exception]) -> Iterator[None]:
    """Turn the errors a command expects into a line and an exit code.

    A `SettingError` ends it with 2, those of ``kinds`` with their ``exit_code``, or else 1.
    """
    from perfkit.cli.config import SettingError

    try:
        yield
    except SettingError as error:
        complain(str(error))
        raise typer.Exit(BAD_ARGUMENTS) from None
    except kinds as error:
        complain(str(error))
        raise typer.Exit(int(getattr(error, "exit_code", FAILED))) from None


def write_json(value: Any, stream: IO[str] | None = None, *, indent: int | None = 2) -> None:
    """One JSON value and a newline, at once: whoever reads a pipe must not wait for a buffer."""
    stream = stream or sys.stdout
    stream.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
    stream.flush()


def add_command(
    app: typer.Typer, name: str, function: Callable[..., None], *pairs: tuple[str, str]
) -> None:
    """Make a function a command; its docstring is the help, and `examples` follow it."""
    # typer keeps the line breaks of a docstring, which are those of a source file.
    paragraphs = cleandoc(function.__doc__ or "").split("\n\n")
    prose = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    app.command(name, help=prose, epilog=examples(*pairs))(function)


def examples(*pairs: tuple[str, str]) -> str:
    """An epilog for ``--help``: what to type, under what it is for."""
    shown = [
        f"[dim]# {escape(purpose)}[/dim]\n[cyan]{escape(command)}[/cyan]"
        for purpose, command in pairs
    ]
    return "\n\n".join(["[bold]Examples[/bold]", *shown])


def size(size_bytes: int | None) -> str:
    """A size as people read it, ``–`` if it is not known."""
    if size_bytes is None:
        return "–"
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
