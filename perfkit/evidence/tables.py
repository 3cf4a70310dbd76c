"""Rows as a DataFrame or as a table of HTML, the same for every result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields as fields_of
from html import escape
from typing import TYPE_CHECKING

import msgspec

from perfkit.evidence.samples import Interval

if TYPE_CHECKING:
    import pandas as pd


def data_frame(rows: Iterable[object], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Rows as a DataFrame; a row is a mapping, a dataclass or a struct.

    `columns` are the fields to show, in order; without it, those of the first row. A field that
    holds an `Interval` becomes three columns: `name`, `name_low` and `name_high`. Raises
    ModuleNotFoundError, which says what to install, without pandas.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            'A DataFrame needs pandas, which is not installed: pip install "perfkit[lab]".',
            name="pandas",
        ) from missing
    fields = [_fields(row) for row in rows]
    if columns is None:
        columns = list(fields[0]) if fields else []
    flat = [_flat({name: row.get(name) for name in columns}) for row in fields]
    return pd.DataFrame(flat, columns=list(flat[0]) if flat else list(columns))


def _fields(row: object) -> Mapping[str, object]:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, msgspec.Struct):
        return msgspec.structs.asdict(row)
    return {field.name: getattr(row, field.name) for field in fields_of(row)}  # type: ignore[arg-type]


def _flat(row: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, Interval):
            flat |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        else:
            flat[name] = value
    return flat


def html_table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    notes: Iterable[str] = (),
) -> str:
    """A table for a notebook, with every text in it escaped and each note a line below it.

    Without a header the first cell of a row is its heading.
    """
    first = "td" if header else "th"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr><{first}>{escape(name)}</{first}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    lines = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return (
        f"<table><caption>{escape(caption)}</caption>"
        + (f"<thead><tr>{head}</tr></thead>" if header else "")
        + f"<tbody>{body}</tbody></table>{lines}"
    )


def html_list(lines: Iterable[str]) -> str:
    """A list for a notebook, with every line escaped."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def mib_text(size_bytes: int | None, sign: str = "-") -> str:
    """A size in MiB for a table, "unknown" for None; with `sign="+"` growth carries its sign."""
    return "unknown" if size_bytes is None else f"{size_bytes / 2**20:{sign}.2f} MiB"
