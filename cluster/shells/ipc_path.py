"""Takes the path of an ipc socket before it is bound: ZeroMQ would take it from whoever has it."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress

from cluster.vocabulary.errors import ClusterError


class IpcPath:
    """Holds a lock file beside a socket until closed; raises ClusterError if the path is in use.

    The socket of a process that ended may be taken over, a file of another kind never.
    """

    def __init__(self, path: str) -> None:
        self._lock_path = f"{path}.lock"
        self._fd = self._lock(path)
        try:
            _check_unused(path)
        except ClusterError:
            self.close()
            raise

    def close(self) -> None:
        """Give the path back."""
        with suppress(OSError):
            os.unlink(self._lock_path)
        os.close(self._fd)

    def _lock(self, path: str) -> int:
        while True:
            try:
                fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise ClusterError(
                    f"cannot listen at ipc://{path}: {self._lock_path}: {error.strerror}"
                ) from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_ino == os.stat(self._lock_path).st_ino:
                    return fd
            except BlockingIOError:
                os.close(fd)
                raise ClusterError(_in_use(path)) from None
            except FileNotFoundError:  # its holder removed it between open and lock
                pass
            os.close(fd)


def _check_unused(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ClusterError(f"cannot listen at ipc://{path}: a file that is no socket is there")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
        except OSError:  # a full backlog, or a socket that this user may not use
            pass
    raise ClusterError(_in_use(path))


def _in_use(path: str) -> str:
    return f"cannot listen at ipc://{path}: it is in use; stop who listens there, or name another"
