"""What a command line names to be measured, and how the user's own code ends."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Protocol

from perfkit.bench.calls.arguments import EARLY, missing_arguments
from perfkit.cli.profiling.scripts import Script
from perfkit.cli.terminal.imports import find_function, load_module
from perfkit.cli.terminal.output import FAILED, INTERRUPTED, note
from perfkit.optimized.knobs import SettingError
from perfkit.profile.instrument import ends_early


class Target(Protocol):
    """What is measured: a script, or a function that is called without arguments."""

    @property
    def name(self) -> str:
        """What it is called in a result."""

    def run(self) -> object:
        """Do it once; whatever it raises passes."""

    def functions(self, others: Sequence[str]) -> list[Callable[..., Any]]:
        """Those whose lines are looked at; SettingError for a name that is not there."""


@dataclass(frozen=True)
class FunctionTarget:
    """A function of a module."""

    name: str
    module: ModuleType = field(repr=False)
    run: Callable[[], object]

    def functions(self, others: Sequence[str]) -> list[Callable[..., Any]]:
        """The function, and others of its module; SettingError for one that is not there."""
        return [self.run, *(find_function(self.module, it) for it in others)]


def find_target(text: str, arguments: Sequence[str] = ()) -> Target:
    """The script, or the function that ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION`` names.

    `arguments` are the script's own. Raises SettingError if there is no such script or function, if
    its module can't be imported, and for a function that takes arguments, is given some, or returns
    before its work.
    """
    place, _, name = text.rpartition(":")
    if Path(text).is_file() or (not place and text.endswith(".py")):
        return Script.read(Path(text), arguments)
    if not place or not name:
        raise SettingError(
            f"{text}: name a script, SCRIPT.py, or a function, MODULE:FUNCTION or FILE.py:FUNCTION"
        )
    if arguments:
        given = " ".join(arguments)
        hint = "; options stand before the target" if given.startswith("-") else ""
        raise SettingError(f"{text} is called without arguments, not with {given}{hint}")
    module = load_module(place)
    function = find_function(module, name)
    if ends_early(function):
        raise SettingError(f"{text} {EARLY}: name a function that does that")
    if missing := missing_arguments(function):
        raise SettingError(
            f"{text} takes arguments ({missing}) and is called without any: name a function that "
            "calls it with some"
        )
    return FunctionTarget(text, module, function)


def words(text: str) -> list[str]:
    """A target and its arguments in one text, split as a shell does; SettingError if that fails."""
    try:
        found = shlex.split(text)
    except ValueError as error:
        raise SettingError(f"{text}: can't be split into words: {str(error).lower()}") from None
    if not found:
        raise SettingError("a target is empty: name a script or MODULE:FUNCTION")
    return found


@dataclass
class Ending:
    """How the user's code has ended: the exit code that follows."""

    code: int = 0


@contextmanager
def users_code(*, heard: bool = True) -> Iterator[Ending]:
    """Print what the user's code raises as Python does, and note its exit code. Unless it is to be
    heard, what it prints is dropped.
    """
    ending = Ending()
    try:
        if heard:
            yield ending
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                yield ending
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        ending.code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:  # what was measured until then counts
        note("interrupted")
        ending.code = INTERRUPTED
    except Exception as error:  # the code's own error, whatever it is
        traceback.print_exception(type(error), error, _own_part(error.__traceback__))
        ending.code = FAILED


def _own_part(frames: TracebackType | None) -> TracebackType | None:
    """A traceback from where the user's code begins; all of it if that is nowhere."""
    own = frames
    while own is not None and own.tb_frame.f_globals.get("__name__", "").startswith("perfkit."):
        own = own.tb_next
    return own or frames
