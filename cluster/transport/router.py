"""The coordinator's socket: reads through a gate, and listens where nobody else does."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import zmq

from cluster.spec import ClusterSpec
from cluster.transport.channel import NOW
from cluster.transport.endpoints import IpcPath
from cluster.transport.gate import Gate
from cluster.transport.hello import announce
from cluster.transport.wakeable import WakeableChannel

SRCFD = int(zmq.SRCFD)
#: how long a coordinator without descriptors does not listen
REST_S = 0.5


class RouterChannel(WakeableChannel):
    """A ROUTER that cuts off peers which are silent, too many, or send too much at once."""

    def __init__(self, spec: ClusterSpec) -> None:
        super().__init__(zmq.ROUTER, spec)
        self.gate = Gate(self._context, self.socket, spec)
        self.sockets.append(self.gate.events)
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
            passed_bytes = self.bytes_in + self.bytes_out
            self.gate.sweep(now, passed_bytes, behind=self.readable())
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

    def _read(self, frames: list[Any], more: bool = True) -> list[bytes] | None:
        route = self._take(NOW, True)
        visitor = self.gate.visitors.get(route)
        if visitor is not None:
            visitor.messages += 1
            return super()._read([route])
        frame = self._take(NOW, False)
        visitor = self.gate.meet(route, frame.get(SRCFD), time.monotonic())
        if visitor is not None and visitor.is_refused:
            with suppress(zmq.ZMQError):
                reason = f"{self.gate.most} connections are here already: no descriptor is left"
                self.send(
                    [route, announce(self._spec, f"refuses this peer: {reason}", is_final=True)]
                )
        return super()._read([route, frame.bytes], frame.more)

    def _reject(self, frame: zmq.Frame) -> None:
        self.gate.cut(int(frame.get(SRCFD)), "oversized")
