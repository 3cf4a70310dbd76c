"""Small tables in HTML, by which a notebook shows the objects of the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def as_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table under a title, each text escaped; None is an empty cell."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = ["".join(f"<td>{_text(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _text(cell: object) -> str:
    return "" if cell is None else escape(str(cell))
