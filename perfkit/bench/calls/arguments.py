"""Whether a function can be called as it is measured: again and again, without arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


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
