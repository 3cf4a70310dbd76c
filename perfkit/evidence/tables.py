"""Rows as a DataFrame, JSON or an HTML table, the same for every result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields as fields_of
from html import escape
from itertools import zip_longest
from typing import TYPE_CHECKING

import msgspec

from perfkit.evidence.samples import Interval
from perfkit.evidence.text import UNKNOWN
from perfkit.evidence.verdicts import Verdict

if TYPE_CHECKING:
    import pandas as pd

#: A longer cell holds words, not a figure.
FIGURE_MAX = 36
LEFT = ' style="text-align:left;overflow-wrap:anywhere;min-width:7em"'
#: The same for a heading, which is not broken within a word.
LEFT_HEADING = ' style="text-align:left"'
_VERDICTS = frozenset(map(str, Verdict))


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
            flat |= value.columns(name)
        else:
            flat[name] = value
    return flat


def encode_rows(rows: Iterable[Mapping[str, object]]) -> str:
    """A JSON list with one of the rows per line."""
    return "[\n  " + ",\n  ".join(msgspec.json.encode(row).decode() for row in rows) + "\n]\n"


def html_table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
) -> str:
    """A table for a notebook, with every text in it escaped and each note a line below it.

    A cell that is a verdict becomes a chip. Without a header the first cell of a row is its
    heading. JupyterLab puts cells to the right, as fits figures; a column of words goes left.
    """
    rows = [*rows]
    styles = [*map(_style, zip_longest(*rows, fillvalue="")), *("" for _ in header)]
    first, last = (f"<td{styles[0]}>", "</td>") if header else ("<th>", "</th>")
    head = "".join(
        f"<th{style and LEFT_HEADING}>{escape(it)}</th>"
        for style, it in zip(styles, header, strict=False)
    )
    body = "".join(
        f"<tr>{first}{escape(name)}{last}"
        + "".join(
            f"<td{style}>{_cell(it)}</td>" for style, it in zip(styles[1:], cells, strict=False)
        )
        + "</tr>"
        for name, *cells in rows
    )
    lines = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return (
        "<table>"
        + (f"<caption>{escape(caption)}</caption>" if caption else "")
        + (f"<thead><tr>{head}</tr></thead>" if header else "")
        + f"<tbody>{body}</tbody></table>{lines}"
    )


def _style(column: Sequence[str]) -> str:
    """What puts a column of words to the left; nothing for one of figures and gaps."""
    are_figures = all(text in ("", "–", UNKNOWN) or any(map(str.isdigit, text)) for text in column)
    return "" if are_figures and max(map(len, column)) <= FIGURE_MAX else LEFT


def _cell(text: str) -> str:
    """A cell's text, indented as code is; a verdict is a chip that pages colour by its class."""
    code = text.lstrip(" ")
    plain = escape(code.rjust(len(text), "\N{NO-BREAK SPACE}"))
    return f'<span class="badge {plain}">{plain}</span>' if text in _VERDICTS else plain


def html_list(lines: Iterable[str]) -> str:
    """A list for a notebook, with every line escaped."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
