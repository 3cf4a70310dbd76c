"""Bounds what a cell may print and display, inside its kernel.

A million lines would take the reader of the kernel's messages minutes and gigabytes, and a cell
that has long ended would count as one that takes too long. So text and displays beyond a bound are
dropped where they are made, with a line that says so; flushes, and updates of a display, are put
together; and the end of a cell is told beside the messages, by a file.

The module is an IPython extension that the report engine names on the kernel's command line.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

#: For each cell and stream. A page shows far less, and a notebook file has a line for each line.
TEXT_MAX = 1_000_000
DISPLAYS_MAX = 500
DISPLAY_BYTES_MAX = 32_000_000
FLUSH_EVERY_S = 0.1
#: The environment variable that names the file to make when a cell ends.
ENDED_VARIABLE = "PERFKIT_REPORT_CELL_ENDED"
TEXT_LEFT_OUT = f"… the cell shows more than {TEXT_MAX:,} characters: the rest is left out …"
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
        self._written += len(text)
        if before <= TEXT_MAX:
            self._write(text if self._written <= TEXT_MAX else text[: TEXT_MAX - before])
            if self._written > TEXT_MAX:
                self._write(f"\n{TEXT_LEFT_OUT}\n")
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
    """Bounds the pictures, tables and other rich outputs of a cell, of all its threads."""

    def __init__(self, shell: Any) -> None:
        self._publish, self._clear = shell.display_pub.publish, shell.display_pub.clear_output
        self._count = self._bytes = 0
        self._updated_s = 0.0
        self._updates: dict[Any, tuple[Any, ...]] = {}
        shell.display_pub.publish, shell.display_pub.clear_output = self.publish, self.clear_output
        if hasattr(shell.displayhook, "register_hook"):
            shell.displayhook.register_hook(self.show_result)

    def start(self) -> None:
        """A cell starts."""
        self._count = self._bytes = 0

    def end(self) -> None:
        """A cell ends: each display gets its last update."""
        updates, self._updates = self._updates, {}
        for data, more, named in updates.values():
            self._publish(data, *more, **named)

    def publish(self, data: dict[str, Any], *more: Any, **named: Any) -> None:
        """Publish a display as far as the bound allows."""
        if named.get("update"):
            self._updates[(named.get("transient") or {}).get("display_id")] = (data, more, named)
            if time.monotonic() - self._updated_s > FLUSH_EVERY_S:
                self._updated_s = time.monotonic()
                self.end()
        elif kept := self._kept(data):
            self._publish(kept, *more, **named)

    def clear_output(self, *arguments: Any, **named: Any) -> None:
        """Clear what the cell displays; there is room again."""
        self.start()
        self._clear(*arguments, **named)

    def show_result(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The message with the value of a cell's last expression, as far as the bound allows."""
        message["content"]["data"] = self._kept(message["content"]["data"])
        return message if message["content"]["data"] else None

    def _kept(self, data: dict[str, Any]) -> dict[str, Any]:
        """What of ``data`` may be shown; empty beyond the bound."""
        if self._full():
            return {}
        if len(text := str(data.get("text/plain", ""))) > TEXT_MAX:
            data = {**data, "text/plain": f"{text[:TEXT_MAX]}\n{TEXT_LEFT_OUT}"}
        self._count += 1
        self._bytes += sum(len(part) for part in data.values() if isinstance(part, (str, bytes)))
        return {"text/plain": LEFT_OUT} if self._full() else data

    def _full(self) -> bool:
        return self._count > DISPLAYS_MAX or self._bytes > DISPLAY_BYTES_MAX


def load_ipython_extension(shell: Any) -> None:
    """Bound the outputs of the kernel of `shell`; IPython calls this for an extension."""
    parts: list[BoundedStream | BoundedDisplays] = [BoundedStream(sys.stdout)]
    parts += [BoundedStream(sys.stderr), BoundedDisplays(shell)]

    def start(info: Any) -> None:
        for part in parts:
            part.start()

    def end(result: Any) -> None:
        for part in parts:
            part.end()
        if path := os.environ.get(ENDED_VARIABLE):
            Path(path).touch()

    shell.events.register("pre_run_cell", start)
    shell.events.register("post_run_cell", end)
