"""Makes a run's folder appear whole or not at all.

A report is written into a hidden folder beside its final place and renamed at the end. Renaming is
atomic on one file system and never replaces a folder with content, so the second of two runs takes
the next free name: runs never mix, and a crash, a Ctrl-C or a power cut leaves no half report under
a name that a reader would open.

A killed run can't clean up. The system releases the lock it held on its hidden folder, so the next
run sees that the folder is a leftover and removes it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perfkit.report.engine.outcome import ReportError

PREFIX = ".partial-"
#: A folder is locked a moment after it is made, so only an older one can be a leftover.
LEFTOVER_AFTER_S = 60.0
_NAMES_TO_TRY = 1000


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder being written, `working`, and the `name` to publish it under."""

    working: Path
    name: str

    def publish(self) -> Path:
        """Rename the working folder to its final name (with `-2`, `-3` … where it is taken).

        Raises ReportError when the rename fails for another reason than a taken name.
        """
        root = self.working.parent
        for attempt in range(1, _NAMES_TO_TRY):
            target = root / (self.name if attempt == 1 else f"{self.name}-{attempt}")
            try:
                os.rename(self.working, target)
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                    continue
                raise ReportError(f"{target} can't be written: {error.strerror}") from error
            return target
        raise ReportError(f"{root} holds {_NAMES_TO_TRY} runs named {self.name}; move some away")


@contextmanager
def run_folder(out_root: Path, name: str) -> Iterator[RunFolder]:
    """A hidden, locked folder under `out_root` for a run called `name`, for its owner only.

    The folder is removed if it is not published when the context ends. Raises ReportError when
    `out_root` can't be made or written.
    """
    working = out_root / f"{PREFIX}{secrets.token_hex(6)}"
    try:
        out_root.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out_root)
        working.mkdir(mode=0o700)
    except OSError as error:
        raise ReportError(f"reports can't be written to {out_root}: {error.strerror}") from error
    lock = _lock(working)
    try:
        yield RunFolder(working, name)
    finally:
        shutil.rmtree(working, ignore_errors=True)  # gone already if it was published
        if lock is not None:
            os.close(lock)


def remove_leftovers(out_root: Path) -> None:
    """Remove the hidden folders of runs that are no longer alive."""
    for path in out_root.glob(f"{PREFIX}*"):
        try:
            old = time.time() - path.stat().st_mtime > LEFTOVER_AFTER_S
        except OSError:
            continue
        if old and (lock := _lock(path)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _lock(path: Path) -> int | None:
    """An exclusive lock on a folder as a file descriptor; None if it can't be had."""
    try:
        import fcntl

        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
