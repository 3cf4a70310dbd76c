"""Sockets of the three shells: plain ZeroMQ behind the system's poll, bounded, never lingering.

https://libzmq.readthedocs.io/en/latest/zmq_setsockopt.html describes the options. Heartbeats are
the application's: ZeroMQ's own would tell that a connection is gone, but not whose.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import weakref
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import zmq

from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError

#: plain ints: combining the library's flag enums costs a microsecond a message
NOW = int(zmq.DONTWAIT)
MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
EVENTS = int(zmq.EVENTS)
READABLE = int(zmq.POLLIN)
WRITABLE = int(zmq.POLLOUT)
LINGER_MS = 500
RECONNECT_MS = 20
RECONNECT_MAX_MS = 1_000


class Waker:
    """Wakes a poller from another thread or a signal handler."""

    def __init__(self) -> None:
        self._hears_signals = False
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._read.fileno()

    def wake(self) -> None:
        """Make the poller return; a full pipe has woken it already."""
        try:
            self._write.send(b"\0")
        except OSError:
            return

    def hear_signals(self) -> None:
        """Make the poller return for every signal that has a handler, even one that arrives just
        before the poll. Call it from the main thread.
        """
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._hears_signals = True

    def clear(self) -> None:
        """Forget all wake-ups so far."""
        try:
            while len(self._read.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close the descriptors; call it from the main thread after hear_signals."""
        if self._hears_signals:
            signal.set_wakeup_fd(-1)
            self._hears_signals = False
        self._read.close()
        self._write.close()


class Channel:
    """A socket that counts its messages and bytes. One thread uses it at a time."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], kind: int, spec: ClusterSpec
    ) -> None:
        self.socket = context.socket(kind)
        self._zero_copy_bytes = spec.sockets.zero_copy_bytes or sys.maxsize
        #: A ROUTER forwards received frames uncopied but copies its own: to release those, pyzmq
        #: would start another context and its thread.
        self._copied = bytes if kind == zmq.ROUTER else None
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        options = spec.sockets
        self.socket.set(zmq.LINGER, LINGER_MS)
        self.socket.set(zmq.SNDHWM, options.high_water_mark)
        self.socket.set(zmq.RCVHWM, options.high_water_mark)
        self.socket.set(zmq.MAXMSGSIZE, spec.limits.message_bytes)
        if options.buffer_bytes:
            self.socket.set(zmq.SNDBUF, options.buffer_bytes)
            self.socket.set(zmq.RCVBUF, options.buffer_bytes)
        if kind == zmq.ROUTER:
            self.socket.set(zmq.ROUTER_MANDATORY, 1)
        else:
            self.socket.set(zmq.IMMEDIATE, 1)
            self.socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
            self.socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)

    def connect(self, endpoint: str) -> None:
        """Connect to a coordinator that need not be there yet; raises ClusterError for an invalid
        endpoint.
        """
        try:
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ClusterError(f"cannot connect to {endpoint!r}: {error}") from error

    def bind(self, endpoint: str) -> str:
        """Listen at an endpoint; returns it with its port. A socket file is for its owner only.
        Raises ClusterError.
        """
        try:
            self.socket.bind(endpoint)
            bound = self.socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
            scheme, _, path = bound.partition("://")
            if scheme == "ipc" and not path.startswith("@"):
                os.chmod(path, 0o700)
        except (zmq.ZMQError, OSError) as error:
            raise ClusterError(f"cannot listen at {endpoint}: {error}") from error
        return bound

    def send(self, frames: Sequence[bytes]) -> None:
        """Send without waiting; raises zmq.Again at the high-water mark, zmq.ZMQError for an
        unknown peer.
        """
        send, uncopied, copied = self.socket.send, self._zero_copy_bytes, self._copied
        for frame in frames[:-1]:
            send(frame, MORE, len(frame) < uncopied or type(frame) is copied)
        send(frames[-1], NOW, len(frames[-1]) < uncopied or type(frames[-1]) is copied)
        self.messages_out += 1
        self.bytes_out += sum(map(len, frames))

    def readable(self) -> bool:
        """Whether a message is there. The descriptor may stay silent about a message after any
        use of the socket; this does not.
        """
        return self.ready(READABLE)

    def ready(self, wanted: int) -> bool:
        """Whether the socket is READABLE or WRITABLE, whichever is ``wanted``."""
        events: Any = self.socket.getsockopt(EVENTS)
        return bool(events & wanted)

    def receive(self, most: int) -> Iterator[list[bytes]]:
        """The messages that have arrived, at most ``most``. Frames of ``zero_copy_bytes`` or more
        are ZeroMQ's own buffers instead of bytes.
        """
        receive, uncopied = self.socket.recv_multipart, self._zero_copy_bytes
        copy = uncopied == sys.maxsize
        try:
            for count in range(most):
                # Light load brings one message, and asking costs less than an exception.
                if count == 1 and not self.readable():
                    return
                frames: list[Any] = receive(NOW, copy)
                if not copy:
                    frames = [f if len(f) >= uncopied else f.bytes for f in frames]
                self.messages_in += 1
                self.bytes_in += sum(map(len, frames))
                yield frames
        except zmq.Again:
            return

    def close(self) -> None:
        """Close the socket; sent messages have LINGER_MS to leave."""
        self.socket.close()


class Listener:
    """Waits for a message or a wake-up with the system's own poll.

    ZeroMQ's poller asks each socket before and after it waits; this asks once. A socket's
    descriptor signals news only once, and any use of the socket takes the signal: hence the
    question before each wait.
    """

    def __init__(self, channel: Channel, waker: Waker) -> None:
        self._channel, self._waker = channel, waker
        self._fds = select.poll()
        self._fds.register(int(channel.socket.getsockopt(zmq.FD)), select.POLLIN)
        self._fds.register(waker.fileno(), select.POLLIN)

    def wait(self, timeout_ms: int | None) -> bool:
        """Wait until there may be a message or a wake-up, or the time is up; tells whether it was
        a wake-up.
        """
        return not self._channel.readable() and self.poll(timeout_ms)

    def poll(self, timeout_ms: int | None) -> bool:
        """The same when the caller knows that no message is there."""
        woken = False
        for fd, _ in self._fds.poll(timeout_ms):
            if fd == self._waker.fileno():
                self._waker.clear()
                woken = True
        return woken


class WakeableChannel(Channel):
    """A channel with a context of its own; another thread can wake the one that waits on it."""

    def __init__(self, kind: int, spec: ClusterSpec) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        super().__init__(self._context, kind, spec)
        self.waker = Waker()
        self.listener = Listener(self, self.waker)
        # The collector may finalize the context before its socket, and would wait for ever.
        self._release = weakref.finalize(self, _release, self.socket, self._context, self.waker)
        self._release.atexit = False

    def close(self) -> None:
        """Close the socket, its context and the waker."""
        self._release()


def _release(
    socket: zmq.Socket[bytes], context: zmq.Context[zmq.Socket[bytes]], waker: Waker
) -> None:
    socket.close()
    context.term()
    waker.close()


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
