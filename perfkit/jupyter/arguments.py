"""What may stand behind each magic, parsed as a command line; a wrong word is one clear line."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from IPython.core.error import UsageError

from cluster.vocabulary.errors import ClusterError
from perfkit.bench.calls.versus import BLOCK_S, BLOCKS
from perfkit.evidence.stats import MIN_BLOCKS

#: Between the words of a magic and a statement that keeps its own spaces and quotes.
BREAK = " -- "
#: An option without a value that may stand before a statement.
LINES = "--lines"


class HelpShown(Exception):
    """The help was asked for and has been printed."""


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the kernel."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the message and where the help is."""
        name = self.prog.split()[0]
        raise UsageError(f"{self.prog}: {message}. More: {'%' + name.lstrip('%')} --help")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise HelpShown: argparse ends here after ``--help``."""
        raise HelpShown


def whole(least: int, most: int = 10**9) -> Callable[[str], int]:
    """A type of arguments: a whole number from `least` to `most`."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            bounds = f"{least} on" if most == 10**9 else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {bounds}")
        return int(text)

    return number


def above_zero(text: str) -> float:
    """A type of arguments: seconds above 0, at most a minute."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0, up to 60")
    return seconds


def _instrument(prog: str, what: str, kept: str) -> Parser:
    """The parser of a magic that measures a statement or a cell."""
    parser = Parser(
        prog,
        # argparse fills in a usage by %, so a sign is doubled
        usage=f"%{prog} [options] STATEMENT, or %%%{prog} [options] [NAME] above a cell",
        description=f"{what} a statement, a function given by its name, or the cell below.",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="what the result of a cell is called"
    )
    _add_kept(parser, kept)
    return parser


def _add_kept(parser: Parser, kept: str) -> None:
    parser.add_argument(
        "--as", dest="kept", metavar="NAME", type=_identifier, default=kept,
        help=f"the variable that keeps the result (default: {kept})",
    )  # fmt: skip
    parser.add_argument(
        "--save", metavar="FILE", help="also save it: .json, .csv, .html, .svg, .txt or .prof"
    )


def _identifier(text: str) -> str:
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a variable")
    return text


def profile_cpu() -> Parser:
    """The parser of ``%profile_cpu``."""
    return _instrument("%profile_cpu", "Show the hot spots, by cProfile, of", "cpu_profile")


def track_memory() -> Parser:
    """The parser of ``%track_memory``."""
    parser = _instrument("%track_memory", "Show what is done to memory by", "memory_use")
    parser.add_argument(
        LINES, action="store_true", help="also the lines that allocated, by tracemalloc: slower"
    )
    return parser


def latency() -> Parser:
    """The parser of ``%latency``."""
    parser = _instrument(
        "%latency", "Show how long one run takes, again and again, of", "latency_report"
    )
    parser.add_argument(
        "--calls", type=whole(1), metavar="N", help="how many are timed (default: for a second)"
    )
    return parser


def lines() -> Parser:
    """The parser of ``%lines`` and ``%%lines``."""
    parser = Parser(
        "%lines",
        usage="%%lines FUNCTION [FUNCTION …] [--no-memory] [-- STATEMENT]",
        description="Run a statement, the cell below, or else the first function, and show the "
        "time and the memory of each line of these functions. It runs once for times and once more "
        "for memory.",
    )
    parser.add_argument("functions", nargs="+", metavar="FUNCTION", help="where to look")
    parser.add_argument("--no-memory", action="store_true", help="run it once, for times alone")
    _add_kept(parser, "lines_report")
    return parser


def compare() -> Parser:
    """The parser of ``%compare``."""
    parser = Parser(
        "%compare",
        description="Say whether B is faster than A. Both are names of functions without arguments "
        "or statements in quotes; they take turns, and A stands beside itself as the control.",
    )
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B")
    parser.add_argument(
        "--blocks", type=whole(MIN_BLOCKS, 1_000), metavar="N", default=BLOCKS,
        help=f"how often A, B and A again run (default: {BLOCKS})",
    )  # fmt: skip
    parser.add_argument(
        "--block-s", type=above_zero, metavar="SECONDS", default=BLOCK_S,
        help=f"how long a block lasts (default: {BLOCK_S:g})",
    )  # fmt: skip
    _add_kept(parser, "call_comparison")
    return parser


def gpu() -> Parser:
    """The parser of ``%gpu``."""
    parser = Parser("%gpu", description="Show the AMD cards of this machine, or why there is none.")
    parser.add_argument("--drm-root", metavar="DIR", help="a folder in place of /sys/class/drm")
    parser.add_argument(
        "--processes", action="store_true", help="also the use by each process; root sees all"
    )
    _add_kept(parser, "card_readings")
    return parser


def cluster() -> Parser:
    """The parser of ``%cluster``."""
    parser = Parser("%cluster", description="A cluster of this notebook's own, while it runs.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="up|status|top|down")
    up = verbs.add_parser("up", help="start one, in place of the one before")
    up.add_argument("--workers", type=whole(1, 64), default=2, metavar="N", help="(default: 2)")
    up.add_argument("--spec", default="baseline", metavar="NAME|FILE", help="(default: baseline)")
    up.add_argument(
        "--set", dest="knobs", action="append", default=[], metavar="KNOB=VALUE",
        help="set a knob of the spec, such as limits.heartbeat_s=0.5; repeatable",
    )  # fmt: skip
    up.add_argument("--model", action="append", default=[], metavar="NAME", help="repeatable")
    verbs.add_parser("status", help="what it does now")
    verbs.add_parser("top", help="the same, kept up to date while other cells run")
    verbs.add_parser("down", help="stop it")
    return parser


def words(line: str) -> list[str]:
    """The words of a line as a shell splits them; UsageError for a quote that does not end."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{line!r} can't be split into words: {str(error).lower()}") from None


def leading(parser: Parser, line: str) -> tuple[argparse.Namespace, str]:
    """The options at the beginning of a line, and the rest as it is: a statement."""
    rest = line.strip()
    taken: list[str] = []
    while rest.startswith("-"):
        option, _, rest = rest.partition(" ")
        taken.append(option)
        if "=" not in option and option not in ("-h", "--help", "--", LINES):
            value, _, rest = rest.strip().partition(" ")
            taken += [value] if value else []
        rest = rest.strip()
        if option == "--":
            break
    return parser.parse_args([it for it in taken if it != "--"]), rest


@contextmanager
def as_usage(*kinds: type[Exception]) -> Iterator[None]:
    """Turn expected errors into one line; not around what the user's own code does."""
    expected: tuple[type[Exception], ...] = (ClusterError, *kinds)
    try:
        yield
    except expected as error:
        raise UsageError(str(error)) from None


def shown_help(magic: Callable[..., Any]) -> Callable[..., Any]:
    """A magic that ends quietly after its help."""
    from functools import wraps

    @wraps(magic)
    def run(*arguments: Any) -> Any:
        __tracebackhide__ = True  # IPython leaves such frames out of what it shows
        try:
            return magic(*arguments)
        except HelpShown:
            return None

    return run
