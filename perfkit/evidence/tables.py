"""Rows as a DataFrame or an HTML table, the same for every result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from html import escape
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import msgspec

from perfkit.evidence.samples import Interval
from perfkit.evidence.text import UNKNOWN
from perfkit.evidence.verdicts import Verdict

if TYPE_CHECKING:
    import pandas as pd

Row = TypeVar("Row")
_VERDICTS = frozenset(map(str, Verdict))


@dataclass(frozen=True)
class ResultTable(Generic[Row]):
    """Rows with names: dataclasses, whose field `key` is the name."""

    key: ClassVar[str] = "name"

    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def of(self, name: str) -> Row:
        """The row of this name; raises KeyError, which lists the names."""
        known = {getattr(row, self.key): row for row in self.rows}
        if name not in known:
            raise KeyError(f"no {name!r} in this table; there are {', '.join(known)}")
        return known[name]

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame with every field that a row's repr shows: raw samples stay out."""
        first = fields_of(self.rows[0]) if self.rows else ()  # type: ignore[arg-type]
        return data_frame(self.rows, [field.name for field in first if field.repr])


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


def html_table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
) -> str:
    """A table for a notebook, with every text in it escaped and each note a line below it.

    A cell that is a verdict becomes a chip. Without a header the first cell of a row is its
    heading.
    """
    first = "td" if header else "th"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr><{first}>{escape(name)}</{first}>"
        + "".join(f"<td>{_cell(cell)}</td>" for cell in cells)
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


def _cell(text: str) -> str:
    """A cell's text; a verdict is a chip that pages colour by its class."""
    plain = escape(text)
    return f'<span class="badge {plain}">{plain}</span>' if text in _VERDICTS else plain


def html_list(lines: Iterable[str]) -> str:
    """A list for a notebook, with every line escaped."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def facts_html(facts: Mapping[str, object]) -> str:
    """Facts for a notebook, a name and a value to a line; None is unknown."""
    rows = ((name, UNKNOWN if it is None else str(it)) for name, it in facts.items())
    return html_table("", (), rows)
