"""Bounds what a cell may print and display, inside its kernel.

A million lines would take the reader of the kernel's messages minutes and gigabytes, and a cell
that has long ended would count as one that takes too long. So text and displays beyond a bound are
dropped where they are made, with a line that says so, and flushes are put together.

The module is an IPython extension that the report engine names on the kernel's command line.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Any

#: For each cell and stream. A page shows far less, and a notebook file has a line for each line.
TEXT_MAX = 1_000_000
DISPLAYS_MAX = 500
DISPLAY_BYTES_MAX = 64_000_000
FLUSH_EVERY_S = 0.1
LEFT_OUT = (
    f"… the cell displays more than {DISPLAYS_MAX:,} outputs or {DISPLAY_BYTES_MAX / 1e6:.0f} MB: "
    "the rest is left out …"
)


class BoundedStream:
    """Bounds one of the kernel's output streams, also for child processes and threads."""

    def __init__(self, stream: Any) -> None:
        self._write, self._flush = stream.write, stream.flush
        self._written = 0
        self._flushed_s = 0.0
        self._running = False
        stream.write, stream.flush = self.write, self.flush
        if hasattr(stream, "_original_stdstream_copy"):
            # What children print is shown in the notebook; do not copy it to the report's stderr,
            # which may be full or closed.
            stream._original_stdstream_copy = os.open(os.devnull, os.O_WRONLY)

    def start(self) -> None:
        """A cell starts: it may print `TEXT_MAX` characters."""
        self._written, self._running = 0, True

    def end(self) -> None:
        """A cell ends: what it printed must be sent before the kernel says so."""
        self._running = False
        self._flush()

    def write(self, text: str) -> int:
        """Write ``text`` as far as the bound allows; its whole length."""
        before = self._written
        with suppress(TypeError):  # the stream itself refuses what is no text
            self._written += len(text)
        if before <= TEXT_MAX:
            self._write(text if self._written <= TEXT_MAX else text[: TEXT_MAX - before])
            if self._written > TEXT_MAX:
                self._write(f"\n… the cell prints more than {TEXT_MAX:,} characters: the rest "
                            "is left out …\n")  # fmt: skip
        return len(text)

    def flush(self) -> None:
        """Send what is written, unless that was done a moment ago: the stream does it by itself."""
        now_s = time.monotonic()
        if not self._running or (
            self._written <= TEXT_MAX and now_s - self._flushed_s > FLUSH_EVERY_S
        ):
            self._flushed_s = now_s
            self._flush()


class BoundedDisplays:
    """Bounds the pictures, tables and other displays of a cell, as a hook of their publisher."""

    def __init__(self) -> None:
        self._count = self._bytes = 0

    def start(self) -> None:
        """A cell starts."""
        self._count = self._bytes = 0

    def __call__(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The message to publish, or None beyond the bound."""
        if message["header"]["msg_type"] not in ("display_data", "update_display_data"):
            return message
        full = self._count > DISPLAYS_MAX or self._bytes > DISPLAY_BYTES_MAX
        self._count += 1
        data = message["content"]["data"]
        self._bytes += sum(len(part) for part in data.values() if isinstance(part, str))
        if full:
            return None
        if self._count > DISPLAYS_MAX or self._bytes > DISPLAY_BYTES_MAX:
            message["content"].update(data={"text/plain": LEFT_OUT}, metadata={})
        return message


def load_ipython_extension(shell: Any) -> None:
    """Bound the outputs of the kernel of `shell`; IPython calls this for an extension."""
    streams = [BoundedStream(sys.stdout), BoundedStream(sys.stderr)]
    displays = BoundedDisplays()
    shell.display_pub.register_hook(displays)
    for part in (*streams, displays):
        shell.events.register("pre_run_cell", lambda info, part=part: part.start())
    for stream in streams:
        shell.events.register("post_run_cell", lambda result, stream=stream: stream.end())
