"""Workers' output as lines with the worker's name: in a file, and shown from a level up.

A worker's standard output counts as ``info``, its standard error as ``warning``.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from cluster.vocabulary.printable import count_of, printable

LEVELS = ("info", "warning", "off")
LINE_BYTES_MAX = 8_192
FILE_BYTES_MAX = 1 << 24
UNSHOWN_LINES_MAX = 1_000


class CrewLog:
    """Append lines to a file (the older half is ``FILE.1``) and, from ``level`` up, to the
    descriptor ``shown``, without ever waiting: lines that its reader does not take are counted.
    """

    def __init__(self, path: Path | None, level: str, shown: int) -> None:
        self._path = path
        self._file = None if path is None else open_log(path)
        self._level = LEVELS.index(level)
        self._shown = shown
        self._unshown: deque[bytes] = deque()
        self._dropped = 0
        if level != "off":
            os.set_blocking(shown, False)

    def write(self, level: str, name: str, text: str) -> None:
        """One line of a worker's output, control characters escaped."""
        line = f"{name} {printable(text)}\n"
        self._save(level, line)
        if LEVELS.index(level) < self._level:
            return
        if len(self._unshown) < UNSHOWN_LINES_MAX:
            self._unshown.append(line.encode(errors="backslashreplace"))
        else:
            self._dropped += 1
        self.flush()

    def note(self, text: str) -> None:
        """A line of the supervisor's own, for the file only: its parent says the same."""
        self._save("warning", f"supervisor {text}\n")

    def _save(self, level: str, line: str) -> None:
        if self._file is None:
            return
        with suppress(OSError):  # a full disk must not stop the workers
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            self._file.write(f"{stamp} {level:<7} {line}".encode(errors="backslashreplace"))
            if self._file.tell() > FILE_BYTES_MAX:
                self._rotate()

    def flush(self) -> None:
        """Show what waits, as far as its reader takes it."""
        try:
            while self._unshown:
                line = self._unshown[0]
                written = os.write(self._shown, line)
                self._unshown.popleft()
                if written < len(line):
                    self._unshown.appendleft(line[written:])
            if self._dropped:
                where = f"; all are in {self._path}" if self._file is not None else ""
                os.write(
                    self._shown, f"… not shown: {count_of(self._dropped, 'line')}{where}\n".encode()
                )
                self._dropped = 0
        except OSError:
            return

    def _rotate(self) -> None:
        assert self._path is not None
        assert self._file is not None
        self._file.close()
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._file = open_log(self._path)


def open_log(path: Path) -> BinaryIO:
    """The file to append to, and its folder if need be, for this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab", 0)


class Lines:
    """The lines of a worker's output stream, from chunks of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def split(self, chunk: bytes) -> list[bytes]:
        """The lines that a chunk completes; a longer one than LINE_BYTES_MAX is cut into pieces."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        return [
            line[at : at + LINE_BYTES_MAX]
            for line in lines
            for at in range(0, max(1, len(line)), LINE_BYTES_MAX)
        ]

    def end(self) -> list[bytes]:
        """What is left at the end of the stream."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []
