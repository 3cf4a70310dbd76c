"""What every result that a notebook shows can do: HTML, text, a DataFrame, a file, a picture.

A result says what its tables are and where its figures are; everything else is here. The
picture is drawn by the painter in `painting`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeAlias, TypeVar

import msgspec

from cluster.vocabulary.errors import ClusterError
from perfkit.evidence.files import write_whole
from perfkit.evidence.painting import Picture, paint
from perfkit.evidence.tables import data_frame, html_table
from perfkit.evidence.text import Estimate, quantity

if TYPE_CHECKING:
    import pandas as pd

Row = TypeVar("Row")
#: Of a saved page: a table that is wider than the screen scrolls by itself.
STYLE = (
    '<meta name="viewport" content="width=device-width"><style>:root{color-scheme:light dark}'
    "body{font:14px/1.45 system-ui,sans-serif;margin:1em}body>table{display:block;overflow-x:auto;"
    "border-collapse:collapse;margin:.8em 0}caption{text-align:left;font-weight:600}td,th{"
    "padding:.15em 1em .15em 0;text-align:left;vertical-align:top}img{max-width:100%}</style>"
)


class ShowError(ClusterError, ValueError):
    """A result that can't be saved or drawn as asked; the message says what to do."""


@dataclass(frozen=True)
class Sheet:
    """One table of texts: its caption, header, rows and the notes below it.

    Without a header the first text of a row names it.
    """

    caption: str
    header: Sequence[str] = ()
    rows: Iterable[Sequence[str]] = ()
    notes: Iterable[str] = ()

    @property
    def html(self) -> str:
        """The table for a notebook; without any row, its words alone."""
        rows = [*self.rows]
        if not (self.header or rows):
            return "".join(f"<p>{escape(it)}</p>" for it in (self.caption, *self.notes) if it)
        return html_table(self.caption, self.header, rows, self.notes)

    @property
    def text(self) -> str:
        """The table for a terminal, in columns as wide as their widest text."""
        rows = [tuple(self.header), *map(tuple, self.rows)] if self.header else [*self.rows]
        columns = zip_longest(*rows, fillvalue="")
        widths = [max(map(len, column)) for column in columns]
        lines = (
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)).rstrip()
            for row in rows
        )
        return "\n".join([*filter(None, [self.caption]), *lines, *self.notes])


def facts(named: Mapping[str, object], caption: str = "") -> Sheet:
    """A name and a value to a row; None is unknown."""
    texts = (quantity(it) if it is None or type(it) is float else str(it) for it in named.values())
    return Sheet(caption, (), [*zip(named, texts, strict=True)])


#: The figures of a result that a picture compares: their unit, and each with its name.
Figures: TypeAlias = tuple[str, Sequence[tuple[str, Estimate]]]


class Showable:
    """The base of results; a subclass gives `_sheets`, and what else it can say better."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # A dataclass would otherwise get one that spells out every sample.
        cls.__repr__ = Showable.__repr__  # type: ignore[method-assign]

    def _sheets(self) -> Iterable[Sheet]:
        raise NotImplementedError

    def _figures(self) -> Figures:
        """What a picture of this compares; nothing, unless a subclass says so."""
        return "", ()

    def _repr_html_(self) -> str:
        return "".join(sheet.html for sheet in self._sheets())

    def __str__(self) -> str:
        return "\n\n".join(sheet.text for sheet in self._sheets())

    def __repr__(self) -> str:
        return str(self)

    def to_frame(self) -> pd.DataFrame:
        """The fields as one row of a DataFrame."""
        return data_frame([self])

    def encode(self) -> str:
        """Every field as JSON; raises ShowError for what JSON can't hold."""
        try:
            found = msgspec.json.encode(self, enc_hook=str)
        except (TypeError, ValueError, OverflowError) as error:
            raise ShowError(f"{type(self).__name__} has no JSON form: {error}.") from None
        return msgspec.json.format(found, indent=2).decode() + "\n"

    def _formats(self) -> dict[str, Callable[[], str | bytes]]:
        """By a file's suffix, what is written to it."""
        return {
            ".json": self.encode,
            ".csv": lambda: self.to_frame().to_csv(index=False),
            ".html": self._page,
            ".txt": lambda: f"{self}\n",
            ".svg": lambda: self.plot().file,
        }

    def save(self, path: str | Path) -> Path:
        """Write this to a file, whole or not at all, and return its path.

        The suffix says what is written: .json all fields, .csv the DataFrame, .html and .txt what
        is shown, .svg the picture; a CPU profile is a .prof as well. Raises ShowError for another
        suffix, a missing folder, and a file that can't be written.
        """
        target, formats = Path(path), self._formats()
        make = formats.get(target.suffix.lower())
        if make is None:
            known = ", ".join(formats)
            raise ShowError(
                f"{type(self).__name__} can't be saved as {str(target)!r}: its name has to end in "
                f"one of {known}."
            )
        if not target.parent.is_dir():
            raise ShowError(f"Can't save {target.name}: there is no folder {target.parent}.")
        data = make()
        try:
            write_whole(target, data.encode() if isinstance(data, str) else data)
        except OSError as error:
            raise ShowError(f"Can't write {target}: {error.strerror}.") from None
        return target

    def plot(self) -> Picture:
        """The picture that fits: see `perfkit.report.figures.painters`."""
        return paint(self)

    def _page(self) -> str:
        title = escape(type(self).__name__)
        return (
            f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>{STYLE}'
            f"<body>{self._repr_html_()}</body></html>\n"
        )


@dataclass(frozen=True)
class ResultTable(Showable, Generic[Row]):
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
