"""Temporary folders that do not outlive their process for long.

A process that is killed removes nothing. So each folder has a file that its owner holds locked; the
kernel opens the lock with the owner's end, however that comes, and the next process that makes such
a folder removes those whose lock is open.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

MARK = ".owner.lock"


class ScratchFolder(tempfile.TemporaryDirectory[str]):
    """A new folder of this process's own, whose path is its ``name``; in ``parent``, by default the
    folder for temporary files. It goes with `cleanup`, with a with block or with this process.
    """

    def __init__(self, prefix: str, parent: str | None = None) -> None:
        remove_abandoned(Path(parent or tempfile.gettempdir()))
        super().__init__(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
        mark = Path(self.name, MARK)
        #: closed with this object
        self._lock = mark.with_suffix(".new").open("wb")
        with suppress(OSError):  # on a file system without locks nobody can tell that it is left
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It gets its name only now, so nobody ever finds it unlocked while its owner lives.
            mark.with_suffix(".new").rename(mark)

    def cleanup(self) -> None:
        """Remove the folder and all that is in it."""
        super().cleanup()
        self._lock.close()


def remove_abandoned(parent: Path) -> None:
    """Remove this user's folders whose owner is gone."""
    for mark in parent.glob(f"*/{MARK}"):
        with suppress(OSError):
            folder = mark.parent.lstat()
            if stat.S_ISDIR(folder.st_mode) and folder.st_uid == os.geteuid():
                _remove_if_free(mark)


def _remove_if_free(mark: Path) -> None:
    with mark.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if os.path.samestat(os.fstat(lock.fileno()), mark.lstat()):
            shutil.rmtree(mark.parent, ignore_errors=True)
