"""Who draws results: pictures are the report's, which stands above them and hands its painter in.

`import perfkit` does so. It loads this module each time, so nothing else is loaded here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Picture(Protocol):
    """A picture that a notebook shows: `perfkit.report.figures.charts.Figure`."""

    @property
    def file(self) -> str: ...
    def _repr_html_(self) -> str: ...


_painters: list[Callable[[object], Picture]] = []


def paint_with(painter: Callable[[object], Picture]) -> None:
    """Let `painter` draw every result from now on."""
    _painters[:] = [painter]


def paint(result: object) -> Picture:
    """The picture of a result; raises RuntimeError while there is no painter."""
    if not _painters:
        raise RuntimeError("Nothing draws results yet: import perfkit first.")
    return _painters[0](result)
