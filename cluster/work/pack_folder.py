"""The folder through which a program's functions reach its workers, see `cluster.work.functions`.

A pack is tried by every worker before any uses it, so that all have the new functions or all keep
the old. Files do it, and not the workers' input: a pipe holds 64 KiB, so a worker that is busy for
minutes would hold up the supervisor that writes a larger pack to it; and a worker that is started
again finds its packs here. The folder is the user's alone, since packs are run as code. What goes
through the input is a line of JSON, ``["try", 7]`` or ``["use", 7]``.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.vocabulary.errors import ClusterError

if TYPE_CHECKING:
    from cluster.work.functions import Pack
    from cluster.work.handlers import Handlers

#: tells the supervisor which order was carried out, and the trouble with it or ""
Answer = Callable[[str, int, str], None]
TROUBLE_LENGTH_MAX = 1_000


class PackWriter:
    """The packs of the program that has the workers, in a new folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self._folder = folder
        self._last = 0
        self._names: dict[int, frozenset[str]] = {}

    def write(self, pack: Pack) -> int:
        """The number of a pack that is there to be tried; raises ClusterError if the disk is
        full.
        """
        self._last += 1
        self._names[self._last] = pack.names
        try:
            self._path(self._last, "try").write_bytes(pack.data)
        except OSError as error:
            self.drop(self._last)
            raise ClusterError(f"the functions can't be written: {error}") from error
        return self._last

    def keep(self, number: int) -> None:
        """Have workers that start use a pack, instead of those of the same names."""
        self._path(number, "try").replace(self._path(number, "use"))
        names = self._names[number]
        for old in [n for n, its in self._names.items() if n < number and its <= names]:
            self.drop(old)

    def drop(self, number: int) -> None:
        """Delete a pack."""
        self._names.pop(number, None)
        for state in ("try", "use"):
            self._path(number, state).unlink(missing_ok=True)

    def _path(self, number: int, state: str) -> Path:
        return self._folder / f"{number:06}.{state}"


class PackReader:
    """Adds the packs in a folder to the handlers of a worker, at once and later as it is told.

    With ``again`` one that can't be loaded is ``trouble``, otherwise ClusterError is raised.
    """

    def __init__(self, folder: Path, handlers: Handlers, *, again: bool = False) -> None:
        self._folder = folder
        self._handlers = handlers
        self._used = 0
        self._tried: tuple[int, Handlers] | None = None
        #: the packs that can't be loaded, and why
        self._broken: dict[Path, str] = {}
        for path in sorted(folder.glob("*.use")):
            with suppress(FileNotFoundError):  # a newer one has just replaced it
                try:
                    self._handlers.update(_unpack(path.read_bytes()))
                except ClusterError as error:
                    if not again:
                        raise
                    self._broken[path] = str(error)
                self._used = int(path.stem)

    @property
    def trouble(self) -> str:
        """Why packs that nothing has replaced are not among the handlers."""
        reasons = [reason for path, reason in self._broken.items() if path.exists()]
        return "; ".join(reasons)[:TROUBLE_LENGTH_MAX]

    def follow(self, fd: int, offer: Callable[[], None], answer: Answer) -> None:
        """Obey the lines that come in at ``fd``, in a thread of its own. ``offer`` is called when
        there are other handlers.
        """

        def read() -> None:
            with os.fdopen(fd, "rb") as lines:
                for line in lines:
                    order, number = json.loads(line)
                    trouble = ""
                    try:
                        self.obey(order, number)
                        if order == "use":
                            offer()
                    except ClusterError as error:
                        trouble = str(error)[:TROUBLE_LENGTH_MAX]
                    answer(order, number, trouble)

        threading.Thread(target=read, name="functions", daemon=True).start()

    def obey(self, order: str, number: int) -> None:
        """Try a pack, which loads it, or use it."""
        if number <= self._used:
            return
        if self._tried is None or self._tried[0] != number:
            self._tried = number, _unpack(self._read(number))
        if order == "use":
            self._handlers.update(self._tried[1])
            self._used, self._tried = number, None

    def _read(self, number: int) -> bytes:
        for state in ("try", "use"):
            with suppress(FileNotFoundError):
                return (self._folder / f"{number:06}.{state}").read_bytes()
        raise ClusterError(f"pack {number} is not there any more")


def _unpack(data: bytes) -> Handlers:
    from cluster.work.functions import unpack_work  # most workers have no use for it

    return unpack_work(data)
