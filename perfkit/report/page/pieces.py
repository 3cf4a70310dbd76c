"""Parts that pages take from cells or put into them: pictures, and tables that fit a phone.

Cells arrive as HTML in the form that `harmless` and nbconvert write, so patterns are enough to find
a picture of our own, or a table's rows.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from perfkit.report.figures.charts import COLOURS, DRAWN, NAMESPACE

if TYPE_CHECKING:
    from nbformat import NotebookNode

#: A larger picture is no thumbnail: an index of six pages has to stay small.
THUMBNAIL_BYTES_MAX = 40_000
_PICTURE = re.compile(rf'<img class="{DRAWN}" alt="([^"]*)" src="data:image/svg\+xml,([^"]*)">')
_IMAGE = re.compile(r'<img [^>]*?alt="([^"]*)"[^>]*?src="(data:image/[^"]+)"')
_TABLE = re.compile(r"<table(?: class=\"([^\"]*)\")?([^>]*)>(.*?)</table>", re.DOTALL)
_ROW = re.compile(r"<tr[^>]*>.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<(td|th)([^>]*)>")
_HEADING = re.compile(r"<th[^>]*>(.*?)</th>", re.DOTALL)
_TAG = re.compile(r"<[^>]+>")


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture as the address of an image that is in the page, and its description."""

    source: str
    alt: str


def in_line(fragment: str) -> str:
    """`fragment` with each picture of ours as inline SVG, in the colours of the page around it."""

    def inlined(match: re.Match[str]) -> str:
        svg = unquote(html.unescape(match[2])).replace(COLOURS, "", 1).replace(NAMESPACE, "", 1)
        return f'<span role="img" aria-label="{match[1]}">{svg}</span>'

    return _PICTURE.sub(inlined, fragment)


def thumbnail(content: NotebookNode) -> Thumbnail | None:
    """The first picture among a notebook's outputs that is small enough; None without one."""
    found = (
        picture
        for cell in content.cells
        for output in cell.get("outputs", [])
        for picture in _pictures(output.get("data", {}))
        if len(picture.source) <= THUMBNAIL_BYTES_MAX
    )
    return next(found, None)


def _pictures(data: dict[str, Any]) -> Iterator[Thumbnail]:
    for match in _IMAGE.finditer(str(data.get("text/html", ""))):
        yield Thumbnail(html.unescape(match[2]), html.unescape(match[1]))
    if png := data.get("image/png"):
        yield Thumbnail("data:image/png;base64," + re.sub(r"\s", "", png), "")


def labelled(fragment: str) -> str:
    """`fragment` with its column's heading on each cell, for screens too narrow for columns.

    A table without a row of headings stays as it is.
    """
    return _TABLE.sub(_with_labels, fragment)


def _with_labels(match: re.Match[str]) -> str:
    classes, attributes, inner = match[1] or "", match[2], match[3]
    head, found, body = inner.partition("</thead>")
    names = [html.escape(_plain(name)) for name in _HEADING.findall(head)]
    if not found or not any(names):
        return match[0]
    rows = _ROW.sub(lambda row: _label_row(row[0], names), body)
    return f'<table class="{f"{classes} labelled".strip()}"{attributes}>{head}{found}{rows}</table>'


def _label_row(row: str, names: list[str]) -> str:
    labels = iter(names)

    def with_label(cell: re.Match[str]) -> str:
        name = next(labels, "")
        return f'<{cell[1]}{cell[2]} data-label="{name}">' if name else cell[0]

    return _CELL.sub(with_label, row)


def _plain(fragment: str) -> str:
    return " ".join(html.unescape(_TAG.sub("", fragment)).split())
