"""How every command prints and ends.

Results go to standard output, everything else to standard error. An expected error is one line that
begins with ``perfkit:``, never a traceback. Exit codes: 0 done, 1 failed, 2 wrong arguments, 130
interrupted; ``perfkit report`` has more.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.printable import printable
from perfkit.cli.terminal.streams import json_for
from perfkit.optimized.knobs import SettingError

FAILED = 1
BAD_ARGUMENTS = 2
INTERRUPTED = 130
#: The target of ``--json`` that prints.
STDOUT = Path("-")


class SafeConsole(Console):
    """A console whose texts can't steer the terminal: see `printable`. Its own styles still do.
    Words between colons are no emoji.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of a renderable, also of those inside it, such as the cells of a table."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


def out() -> Console:
    """Standard output for people. Made on each call, because tests replace the streams."""
    return SafeConsole(emoji=False, highlight=False, soft_wrap=True)


def err() -> Console:
    """Standard error for people."""
    return SafeConsole(stderr=True, emoji=False, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error in red; the output of a child process may follow it."""
    err().print(Text(f"perfkit: {message}", style="red"))


def note(message: str) -> None:
    """Print a remark to standard error, so that it stays out of the results."""
    err().print(Text(message, style="dim"))


@contextmanager
def errors_as_lines(*kinds: type[Exception]) -> Iterator[None]:
    """Turn expected errors into a line and an exit code.

    A `SettingError` ends the command with 2, and so does an argument that is not text; a
    `ClusterError` or one of ``kinds`` ends it with its ``exit_code``, or else with 1.
    """
    expected: tuple[type[Exception], ...] = (ClusterError, *kinds)
    try:
        yield
    except SettingError as error:
        complain(str(error))
        raise typer.Exit(BAD_ARGUMENTS) from None
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        complain(f"{error.object!r} is not text: use only UTF-8 here")
        raise typer.Exit(BAD_ARGUMENTS) from None
    except expected as error:
        complain(str(error))
        raise typer.Exit(int(getattr(error, "exit_code", FAILED))) from None


def write_json(value: Any, target: Path = STDOUT, *, indent: int | None = 2) -> None:
    """Print a JSON value, or save it in the file that ``--json`` names."""
    write_json_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", target)


def write_json_text(text: str, target: Path = STDOUT) -> None:
    """`write_json` of JSON that is already text.

    What is printed is flushed, since the reader of a pipe must not wait. Raises ResultError if the
    file can't be written.
    """
    if target == STDOUT:
        sys.stdout.write(json_for(sys.stdout, printable(text)))
        sys.stdout.flush()
        return
    from perfkit.evidence.results import write

    write(text, target)


def is_drawn_in_place(console: Console) -> bool:
    """Whether `show_live` draws over the view before."""
    return console.file.isatty() and not console.is_dumb_terminal


def show_live(views: Iterable[RenderableType]) -> None:
    """Show one view after another: in place in a terminal, else below each other."""
    console = out()
    if not is_drawn_in_place(console):
        for view in views:
            console.print(view)
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        for view in views:
            live.update(view, refresh=True)


def plain_table(*columns: str, left: Sequence[str]) -> Table:
    """A table without lines; the columns named in ``left`` are text, the others figures."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right")
    return table
