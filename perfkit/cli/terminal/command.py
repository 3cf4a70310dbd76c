"""What a command adds to typer's: usage that people know, and ``--json`` with or without a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from inspect import cleandoc
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperArgument, TyperCommand, TyperGroup

from perfkit.cli.terminal.output import errors_as_lines

#: How a type is shown beside an option that has no metavar; typer shows Python's name of it.
_TYPES = {"bool": None, "int": "N", "int range": "N", "float": "X", "float range": "X"}


class _Conventions:
    """What a command and a group have in common: ``--json`` without a value means ``--json -``."""

    params: list[Any]

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, ready to be shown in usage and help."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in found:
            if isinstance(parameter, TyperArgument) and parameter.metavar is None:
                parameter.metavar = parameter.name.upper()
            parameter.display_type_rich = _type_of(parameter)
        return found

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; typer has no option with an optional value."""
        arguments = [one for one in self.params if isinstance(one, TyperArgument)]
        takes_files = any(one.nargs != 1 or one.name == "file" for one in arguments)
        given = [*_with_dash(args, takes_files=takes_files)]
        return super().parse_args(ctx, given)  # type: ignore[misc, no-any-return]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line as manuals write it: ``NAME``, not ``{name}``."""
        pieces = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [re.sub("[{}]", "", piece) for piece in pieces]


class Subcommand(_Conventions, TyperCommand):
    """A command with this command line's conventions."""


class Subgroup(_Conventions, TyperGroup):
    """A group that does something by itself, with the same conventions."""


def _type_of(parameter: Any) -> Callable[..., str | None]:
    """What is shown as the type of a parameter; an argument's name says enough."""

    def shown(ctx: Any) -> str | None:
        if isinstance(parameter, TyperArgument):
            return None
        text: str = parameter.metavar or parameter.display_type(ctx).strip("<>")
        return _TYPES.get(text, text)

    return shown


def _with_dash(arguments: Sequence[str], *, takes_files: bool) -> Iterator[str]:
    """The arguments, with a dash after each ``--json`` that has no value of its own.

    In a command that takes files, only what is written as a target is one.
    """
    for at, argument in enumerate(arguments):
        yield argument
        if argument == "--":
            yield from arguments[at + 1 :]
            return
        following = "".join(arguments[at + 1 : at + 2])
        is_value = following == "-" or following[:1] not in ("", "-")
        if takes_files:
            is_value = is_value and (following == "-" or following.endswith(".json"))
        if argument == "--json" and not is_value:
            yield "-"


def add_command(
    app: typer.Typer, name: str, function: Callable[..., None], *pairs: tuple[str, str]
) -> None:
    """Make a function a command: its docstring is the help, `examples` follow it, and its errors
    become lines.
    """
    app.command(name, cls=Subcommand, help=prose(function), epilog=examples(*pairs))(
        errors_as_lines()(function)
    )


def prose(function: Callable[..., None]) -> str:
    """A function's docstring as help: typer would keep its line breaks, which are those of a
    source file.
    """
    paragraphs = cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)


def examples(*pairs: tuple[str, str]) -> str:
    """An epilog for ``--help``: each command to type, below its purpose."""
    shown = [
        f"[dim]# {escape(purpose)}[/dim]\n[cyan]{escape(command)}[/cyan]"
        for purpose, command in pairs
    ]
    return "\n\n".join(["[bold]Examples[/bold]", *shown])
