"""The items of a user's own function, as ``--items`` names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from perfkit.bench.calls.arguments import missing_arguments
from perfkit.cli.terminal.imports import load_named
from perfkit.optimized.knobs import SettingError


def read_items(text: str) -> list[Any]:
    """The items in a file, one of JSON a line, or of ``MODULE:NAME``: a list, or what a function
    returns.

    Raises SettingError for a file that can't be read or has another line, and for a name that is
    not there or stands for something else.
    """
    path = Path(text)
    if not path.is_file() and ":" in text:
        return _named_items(text)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(f"--items: cannot read {text}: {reason}") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise SettingError(f"--items: {text}, line {number}: not JSON: {error}") from None
    return found


def _named_items(text: str) -> list[Any]:
    found = load_named(text)
    if callable(found):
        if missing := missing_arguments(found):
            raise SettingError(f"--items: {text} takes arguments ({missing}): name one without any")
        try:
            found = found()
        except Exception as error:  # it is the user's own code
            raise SettingError(f"--items: {text} fails: {type(error).__name__}: {error}") from error
    try:
        return [*found]
    except TypeError:
        raise SettingError(f"--items: {text} is no list but {found!r:.60}") from None
