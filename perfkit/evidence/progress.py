"""Lines of progress that no caller asked for: a notebook's kernel may show them."""

from __future__ import annotations

from collections.abc import Callable

_listeners: list[Callable[[str], None]] = []


def listen(listener: Callable[[str], None]) -> None:
    """Hand every further line of `tell` to a listener too."""
    _listeners.append(listener)


def tell(line: str) -> None:
    """Tell all listeners how far the work is; without one the line is dropped."""
    for listener in _listeners:
        listener(line)
