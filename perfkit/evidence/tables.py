"""Rows as a DataFrame or as a table of HTML, the same for every result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def data_frame(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a DataFrame; raises ModuleNotFoundError that says what to install without pandas."""
    try:
        import pandas as pd
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            'A DataFrame needs pandas, which is not installed: pip install "perfkit[lab]".',
            name="pandas",
        ) from missing
    return pd.DataFrame(rows, columns=list(columns))


def html_table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    notes: Iterable[str] = (),
) -> str:
    """A table for a notebook, with every text in it escaped and each note a line below it."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    lines = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>{lines}"
    )


def mib_text(size_bytes: int | None, sign: str = "-") -> str:
    """A size in MiB for a table, "unknown" for None; with `sign="+"` growth carries its sign."""
    return "unknown" if size_bytes is None else f"{size_bytes / 2**20:{sign}.2f} MiB"
