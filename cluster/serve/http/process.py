"""The API as a child process, started again if it dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from cluster.supervision.children import Process
from cluster.vocabulary.errors import ClusterError

ROLE = "api"
#: of its log, at a time
NEWS_BYTES_MAX = 1 << 14
#: longer than an engine waits for its workers, so that its complaint is heard
READY_S = 90.0
STOP_S = 35.0
#: the pauses before starts that follow each other, the last one for all further ones
RESTART_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
#: after this long a process counts as well
WELL_S = 60.0


class ApiProcess:
    """``python -m cluster.serve`` with these flags, while a with block lasts.

    ``folder`` gets what it writes to standard error. ``check`` tells of that, and starts it again
    at the address that it had. Raises ClusterError, with its last words, if it does not come up.
    """

    def __init__(self, flags: Sequence[str], folder: Path) -> None:
        self._flags = list(flags)
        self._folder = folder
        self._process: Process | None = None
        self._started_s = 0.0
        self._fallen = 0
        self._again_s: float | None = None
        self._told_bytes = 0
        self.url = ""
        self.restarts = 0

    @property
    def pid(self) -> int:
        """The newest process's id."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.stop(time.monotonic() + STOP_S)

    def check(self, complain: Callable[[str], None]) -> None:
        """Start it again if it has died, after a pause that grows with each early death."""
        assert self._process is not None
        now_s = time.monotonic()
        if self._again_s is None:
            if self._process.alive():
                self._relay(complain)
                return
            is_well = now_s - self._started_s > WELL_S
            self._fallen = 0 if is_well else self._fallen + 1
            pause_s = RESTART_PAUSES_S[min(self._fallen, len(RESTART_PAUSES_S) - 1)]
            complain(
                f"the API (pid {self.pid}) has died and is started again"
                f"{self._process.last_words()}"
            )
            self._process.stop(now_s)
            self._again_s = now_s + pause_s
        if now_s < self._again_s:
            return
        self._again_s = None
        self.restarts += 1
        try:
            self._start()
        except ClusterError as error:
            complain(str(error))

    def _relay(self, complain: Callable[[str], None]) -> None:
        """Tell what it has written to its log since it was ready, or since the last call."""
        with (self._folder / f"{ROLE}.log").open("rb") as log:
            log.seek(self._told_bytes)
            news = log.read(NEWS_BYTES_MAX)
        self._told_bytes += len(news)
        if text := news.decode(errors="replace").strip():
            complain(text)

    def _start(self) -> None:
        bind = ["--bind", self.url.partition("//")[2]] if self.url else []
        process = Process(ROLE, "cluster.serve", [*self._flags, *bind], self._folder, guarded=True)
        self._process, self._started_s = process, time.monotonic()
        try:
            self.url = process.announcement(self._started_s + READY_S)["url"]
            self._told_bytes = (self._folder / f"{ROLE}.log").stat().st_size
        except BaseException:
            process.stop(time.monotonic())
            raise
