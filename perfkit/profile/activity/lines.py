"""A board as lines of text: for a terminal, and as the twin of a notebook's view."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from cluster.vocabulary.printable import printable
from perfkit.profile.activity.board import GAP, Board, Line
from perfkit.profile.activity.sparklines import RAMP, sparkline

Style: TypeAlias = Literal["", "bold", "dim", "red", "yellow", "green", "cyan"]
CELLS_MAX = 60
INDENT = "  "


class Piece(NamedTuple):
    """A part of a line, and how it is to look."""

    text: str
    style: Style = ""


def as_lines(board: Board, width: int = 100, ramp: str = RAMP) -> list[list[Piece]]:
    """The board's lines, made for `width` columns; a longer one may be cut at its end.

    With a `ramp` of ASCII all else is ASCII too, but for names from elsewhere.
    """
    state: Style = "green" if board.is_fresh else "yellow"
    lines = [[Piece(printable(board.title), "bold"), Piece("  "), Piece(board.state, state)]]
    names = max((len(curve.name) for curve in board.curves), default=0)
    texts = max((len(curve.text) for curve in board.curves), default=0)
    cells = max(8, min(CELLS_MAX, width - names - texts - 4))
    for curve in board.curves:
        drawn = sparkline(curve.series, board.now_s, cells, 0.0, None, ramp, board.span_s)
        lines.append(
            [
                Piece(f"{curve.name:<{names}}  ", "bold"),
                Piece(f"{curve.text:>{texts}}  "),
                Piece(drawn, "cyan"),
            ]
        )
    if board.curves:
        lines.append([Piece(f"the last {board.span_s:.0f} s, newest at the right", "dim")])
    words = " · ".join(f"{name} {text}" for name, text in board.facts)
    lines += [[Piece(line)] for line in _wrapped(printable(words), width)]
    lines += [[], *_table(board)] if board.lines else []
    lines += [[Piece(printable(remark), "red")] for remark in board.remarks]
    if not ramp.isascii():
        return lines
    plain = str.maketrans({"–": "-", "·": ",", "…": "...", "°": "", "µ": "u"})
    return [[Piece(text.translate(plain), style) for text, style in line] for line in lines]


def as_text(board: Board, width: int = 100) -> str:
    """The board as plain text."""
    lines = as_lines(board, width)
    return "\n".join("".join(piece.text for piece in line).rstrip() for line in lines)


def _wrapped(words: str, width: int) -> Iterator[str]:
    """Lines of at most `width` where the dots between facts allow it."""
    line = ""
    for part in words.split(" · "):
        if line and len(line) + len(part) + 3 > width:
            yield line
            line = ""
        line = f"{line} · {part}" if line else part
    if line:
        yield line


def _table(board: Board) -> Iterator[list[Piece]]:
    names = [board.heading, *(INDENT * line.depth + printable(line.name) for line in board.lines)]
    # The name of a line without columns may be as long as it likes.
    named = zip(names[1:], board.lines, strict=True)
    first = max(len(names[0]), *(len(name) for name, line in named if line.gauges))
    columns = {name: [name, *(_cell(line, name) for line in board.lines)] for name in board.columns}
    wide = {name: max(map(len, cells)) for name, cells in columns.items()}
    for row, shown in enumerate(names):
        line = board.lines[row - 1] if row else None
        cells = (
            cells[row] if name == "serves" else cells[row].rjust(wide[name])
            for name, cells in columns.items()
        )
        style: Style = "bold" if line is None or not line.depth else "red" if line.is_bad else ""
        yield [Piece(shown.ljust(first), style), Piece("  " + "  ".join(cells).rstrip())]


def _cell(line: Line, name: str) -> str:
    gauge = line.gauges.get(name)
    if gauge is None:
        return ""
    return printable(gauge.text) or GAP
