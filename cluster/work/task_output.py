"""A worker's prints, each line with the task that printed it."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

LINE_LENGTH_MAX = 8_192


class TaskOutput(io.TextIOWrapper):
    """A text stream that writes whole lines, as ``[lease.position] line`` in a handler's thread.

    ``task`` gives the calling thread's task, or "" if it runs none.
    """

    def __init__(self, buffer: BinaryIO) -> None:
        super().__init__(buffer, "utf-8", "backslashreplace", line_buffering=True)
        self.task: Callable[[], str] = str
        self._open = threading.local()

    def write(self, text: str) -> int:
        """Write the lines that ``text`` completes, and keep the rest for the thread's next call."""
        *lines, rest = (getattr(self._open, "line", "") + text).split("\n")
        if len(rest) > LINE_LENGTH_MAX:
            lines.append(rest)
            rest = ""
        self._open.line = rest
        if lines:
            task = self.task()
            mark = f"[{task}] " if task else ""
            super().write("".join(f"{mark}{line}\n" for line in lines))
        return len(text)


def own_output() -> None:
    """Make sys.stdout and sys.stderr streams that `mark_output` can mark."""
    sys.stdout = TaskOutput(io.BufferedWriter(io.FileIO(1, "wb", closefd=False)))
    sys.stderr = TaskOutput(io.BufferedWriter(io.FileIO(2, "wb", closefd=False)))


def mark_output(task: Callable[[], str]) -> None:
    """Mark what this process prints from now on, if `own_output` was called."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TaskOutput):
            stream.task = task
