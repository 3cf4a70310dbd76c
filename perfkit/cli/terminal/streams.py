"""The standard streams of every command: they take any text, and a lost reader is no traceback.

`Command` is the class of the whole command line, so each subcommand runs inside `standard_streams`:

- A character that the encoding lacks is replaced by its ASCII likeness, or else by its number.
- A byte of a file name that is no UTF-8 is written as it was, so that a path read from a pipe names
  the file; a terminal, and standard error, get it as ``\\xff``.
- Output that cannot be written ends the command with 1: without a word for a closed pipe, with a
  line for a full disk. Standard error that cannot be written changes nothing.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from typer.core import TyperGroup

#: Error handlers for `codecs`: with bytes as they were, and with every byte as a number.
_RAW, _SHOWN = "perfkit-raw", "perfkit-shown"
_LIKENESS = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "…": "...", "·": "|", "×": "x", "±": "+-", "µ": "u", "μ": "u"}
    | {"“": '"', "”": '"', "‘": "'", "’": "'", "→": "->", "←": "<-", "≤": "<=", "≥": ">="}
    | {"•": "*", "°": " deg ", "²": "2", "─": "-", "━": "-", "\N{NO-BREAK SPACE}": " "}
)


class OutputLost(OSError):
    """Standard output cannot be written; `errno` says why."""


class Command(TyperGroup):
    """The command line as a whole; its subcommands need no care of their own for the streams."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        with standard_streams():
            return super().main(*arguments, **options)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Standard output and error that take any text; output that is lost ends the process with 1."""
    _open_closed()
    before = sys.stdout, sys.stderr
    lost: OutputLost | None = None
    if before[0] in (None, sys.__stdout__):  # a test has streams of its own
        sys.stdout = _stream(1, before[0], shown=False)
    if before[1] in (None, sys.__stderr__):
        sys.stderr = _stream(2, before[1], shown=True)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputLost as error:
        lost = error
    finally:
        if lost is not None and lost.errno != errno.EPIPE:
            print(f"perfkit: standard output cannot be written: {lost.strerror}", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
    if lost is not None:
        raise SystemExit(1)


class _Descriptor(io.FileIO):
    """A standard stream's descriptor; `_lost` swallows what follows a failure."""

    _lost = False

    def write(self, data: Any) -> int:
        if not self._lost:
            try:
                written: int | None
                while (written := super().write(data)) is None:
                    select.select([], [self], [])  # another program made the terminal non-blocking
                return written
            except OSError as error:
                self._lost = True
                if self.fileno() == 1:
                    raise OutputLost(error.errno, error.strerror) from None
        return len(data)


def _open_closed() -> None:
    """Open what was closed (``>&-``), so that no socket becomes standard output.

    Reading from standard input gives an end, standard output refuses to be written, and what is
    written to standard error is gone.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, mode), True)


def _stream(descriptor: int, like: TextIO | None, *, shown: bool) -> TextIO:
    raw = _Descriptor(descriptor, "w", closefd=False)
    shown = shown or raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(like, "encoding", "utf-8"),
        errors=_SHOWN if shown else _RAW,
        line_buffering=descriptor == 2 or raw.isatty(),
        write_through=bool(getattr(like, "write_through", False)),
    )


def _replaced(error: UnicodeError, *, raw: bool) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    parts: list[bytes] = []
    for character in error.object[error.start : error.end]:
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:  # PEP 383: a byte that was no text
            parts.append(bytes([code - 0xDC00]) if raw else f"\\x{code - 0xDC00:x}".encode())
        else:
            parts.append(character.translate(_LIKENESS).encode("ascii", "backslashreplace"))
    return b"".join(parts), error.end


codecs.register_error(_RAW, lambda error: _replaced(error, raw=True))
codecs.register_error(_SHOWN, lambda error: _replaced(error, raw=False))


def json_for(stream: TextIO, text: str) -> str:
    """JSON that any reader of ``stream`` reads back whole: what is not UTF-8 there is escaped."""
    try:
        text.encode()
        if codecs.lookup(stream.encoding or "utf-8").name == "utf-8":
            return text
    except UnicodeEncodeError:
        pass  # a byte of a file name; json.loads and os.fsencode give it back
    units = text.encode("utf-16-be", "surrogatepass")
    codes = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(code) if code < 0x80 else f"\\u{code:04x}" for code in codes)
