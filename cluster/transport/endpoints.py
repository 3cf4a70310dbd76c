"""Where a coordinator may listen: on this machine unless told, at a path that no other holds."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from cluster.spec import DEFAULT_ENDPOINT
from cluster.vocabulary.errors import ClusterError

#: Names the coordinator to a program that names none itself.
VARIABLE = "PERFKIT_ENDPOINT"


def default_endpoint() -> str:
    """Where a client finds its coordinator if nothing says it: `VARIABLE`, else the default."""
    return os.environ.get(VARIABLE) or DEFAULT_ENDPOINT


def is_loopback(endpoint: str) -> bool:
    """Whether only this machine can reach an endpoint."""
    try:
        parts = urlsplit(endpoint)
        if parts.scheme in ("ipc", "inproc"):
            return True
        host = parts.hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check_bind(endpoint: str, insecure: bool) -> None:
    """Refuse an endpoint that other machines reach, unless ``insecure``; raises ClusterError."""
    if not endpoint.startswith(("tcp://", "ipc://")):
        raise ClusterError(
            f"{endpoint!r} is no endpoint; write it as tcp://127.0.0.1:5555 or ipc://PATH"
        )
    if not insecure and not is_loopback(endpoint):
        raise ClusterError(
            f"{endpoint} can be reached from other machines, and there are no keys yet: anyone "
            "there could submit work. Bind to 127.0.0.1, or say --insecure if the network is "
            "yours alone"
        )


class IpcPath:
    """Holds a lock file beside an ipc socket until closed, as ZeroMQ would take over the path
    of another listener. Raises ClusterError if the path is in use.

    The socket of a process that ended may be taken over, a file of another kind never.
    """

    def __init__(self, path: str) -> None:
        self._lock_path = f"{path}.lock"
        self._fd = self._lock(path)
        self._path = ""
        try:
            _check_unused(path)
        except ClusterError:
            self.close()
            raise
        self._path = path

    def close(self) -> None:
        """Give the path back."""
        for path in (self._path, self._lock_path):
            with suppress(OSError):
                os.unlink(path)
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
