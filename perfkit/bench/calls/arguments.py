"""Whether a function can be called as it is measured: again and again, without arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from perfkit.profile.instrument import ends_early, name_of

#: What is wrong with a function whose call only makes a coroutine or a generator.
EARLY = "returns before its work, which runs when what it returns is awaited or read"


def missing_arguments(call: Callable[..., Any]) -> str:
    """The arguments that a call without any would lack, as `size, count`; "" if it needs none.

    A callable that does not tell its arguments, such as many that are written in C, counts as one
    that needs none.
    """
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return ""
    optional = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    needed = (it for it in parameters if it.default is it.empty and it.kind not in optional)
    return ", ".join(it.name for it in needed)


def check_works(call: Callable[..., Any]) -> None:
    """Raise TypeError for a function whose call is over before its work."""
    if ends_early(call):
        raise TypeError(f"{name_of(call)} {EARLY}: measure a function that does that")
