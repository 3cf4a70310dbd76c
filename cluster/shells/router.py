"""The coordinator's socket: reads through a gate, and listens where nobody else does."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from contextlib import suppress
from typing import Any

import zmq

from cluster.shells.gate import Gate
from cluster.shells.hello import announce
from cluster.shells.transport import NOW, WakeableChannel
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError

SRCFD = int(zmq.SRCFD)
#: how long a coordinator without descriptors does not listen
REST_S = 0.5


class RouterChannel(WakeableChannel):
    """A ROUTER that cuts off peers which are silent, too many, or send too much at once."""

    def __init__(self, spec: ClusterSpec) -> None:
        super().__init__(zmq.ROUTER, spec)
        self.gate = Gate(self._context, self.socket, spec)
        self.listener.watch(self.gate.fileno(), lambda: self.gate.update(time.monotonic()))
        self._spec = spec
        self._endpoint = ""
        self._listens_at: float | None = None
        self._path: IpcPath | None = None

    def bind(self, endpoint: str) -> str:
        """Listen at an endpoint; returns it with its port. Raises ClusterError."""
        path = endpoint.removeprefix("ipc://")
        if path != endpoint and not path.startswith(("@", "*")):
            self._path = IpcPath(path)
        self._endpoint = super().bind(endpoint)
        return self._endpoint

    def care(self, now: float) -> None:
        """Cut off who has to go; stop listening for a while when no descriptor is left."""
        if self.gate.is_due(now):
            self.gate.sweep(now, self.bytes_in)
        if self.gate.is_full:
            # ZeroMQ would go on trying to accept, in a busy loop.
            self.gate.is_full = False
            if self._listens_at is None:
                self.socket.unbind(self._endpoint)
            self._listens_at = now + REST_S
        elif self._listens_at is not None and now >= self._listens_at:
            with suppress(zmq.ZMQError):  # the next time, then
                self.socket.bind(self._endpoint)
                self._listens_at = None

    def close(self) -> None:
        """Close the socket, its context and the waker."""
        self.gate.close()
        super().close()
        if self._path is not None:
            self._path.close()
            self._path = None

    def _read(self, frames: list[Any]) -> list[bytes] | None:
        route = self.socket.recv(NOW, True)
        visitor = self.gate.visitors.get(route)
        if visitor is not None:
            visitor.messages += 1
            return super()._read([route])
        frame = self.socket.recv(NOW, False)
        visitor = self.gate.meet(route, frame.get(SRCFD), time.monotonic())
        if visitor is not None and visitor.is_refused:
            with suppress(zmq.ZMQError):
                reason = f"{self.gate.most} connections are here already: no descriptor is left"
                self.send(
                    [route, announce(self._spec, f"refuses this peer: {reason}", is_final=True)]
                )
        return super()._read([route, frame.bytes])

    def _reject(self, frame: zmq.Frame) -> None:
        self.gate.cut(int(frame.get(SRCFD)), "oversized")


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
