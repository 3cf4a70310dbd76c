"""A socket with its bounds and its signs of life: plain ZeroMQ, never lingering.

https://libzmq.readthedocs.io/en/latest/zmq_setsockopt.html describes the options. ZeroMQ's
heartbeats end dead connections, but don't tell whose; so the application has its own besides.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import zmq
from zmq.backend import Socket as Backend

from cluster.spec import ClusterSpec
from cluster.transport.checks import add_check, take_check
from cluster.transport.endpoints import is_loopback
from cluster.transport.hello import ANNOUNCED, PING, heard
from cluster.vocabulary.errors import ClusterError, ProtocolError

#: plain ints: combining the library's flag enums costs a microsecond a message
NOW = int(zmq.DONTWAIT)
MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
EVENTS = int(zmq.EVENTS)
READABLE = int(zmq.POLLIN)
WRITABLE = int(zmq.POLLOUT)
#: the longest route in front of a message
ROUTE_BYTES = 255
LINGER_MS = 500
RECONNECT_MS = 20
RECONNECT_MAX_MS = 1_000
#: how often the patience with a silent coordinator doubles
MAX_DOUBLINGS = 5


class Channel:
    """A socket that counts its messages and bytes. One thread uses it at a time."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], kind: int, spec: ClusterSpec
    ) -> None:
        self.socket = context.socket(kind)
        # pyzmq's own methods spend half a microsecond on arguments that are not used here.
        self._get: Callable[[int], Any] = partial(Backend.get, self.socket)
        self._put: Callable[[Any, int, bool], Any] = partial(Backend.send, self.socket)
        self._take: Callable[[int, bool], Any] = partial(Backend.recv, self.socket)
        self._zero_copy_bytes = spec.sockets.zero_copy_bytes or sys.maxsize
        #: A ROUTER forwards received frames uncopied but copies its own: to release those, pyzmq
        #: would start another context and its thread.
        self._copied = bytes if kind == zmq.ROUTER else None
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        self._frames_max = spec.limits.message_frames
        self._bytes_max = 2 * spec.limits.message_bytes + ROUTE_BYTES
        self._is_discarding = False
        #: whether messages carry a sum
        self.checks = spec.checks
        self._route_frames = int(kind == zmq.ROUTER)
        #: messages that were not as they were sent
        self.corrupted = 0
        #: nothing was there when last asked, and no use since: the descriptor tells of news
        self.is_quiet = False
        #: the descriptor has ended a wait, so that a message is there; hardly two
        self.is_signalled = False
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
            self.socket.set(zmq.HANDSHAKE_IVL, round(options.hello_s * 1000))
        else:
            self.socket.set(zmq.IMMEDIATE, 1)
            self.socket.set(zmq.PROBE_ROUTER, 1)
            self.socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
            self.socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        self._keep_alive(options.pong_s)
        self._endpoint = ""
        self._pulse = Pulse(options.silence_s)

    def _keep_alive(self, pong_s: float) -> None:
        """Have ZeroMQ and TCP end a connection without a sign of life for ``pong_s``."""
        pong_ms = round(pong_s * 1000)
        for option in (zmq.HEARTBEAT_TIMEOUT, zmq.HEARTBEAT_TTL):
            self.socket.set(option, pong_ms)
        self.socket.set(zmq.HEARTBEAT_IVL, max(1, pong_ms // 4))
        self.socket.set(zmq.TCP_KEEPALIVE, 1)
        self.socket.set(zmq.TCP_KEEPALIVE_IDLE, max(1, round(pong_s / 2)))
        self.socket.set(zmq.TCP_KEEPALIVE_INTVL, max(1, round(pong_s / 8)))
        self.socket.set(zmq.TCP_KEEPALIVE_CNT, 4)

    def connect(self, endpoint: str) -> None:
        """Connect to a coordinator that need not be there yet; raises ClusterError for an invalid
        endpoint.
        """
        try:
            self.socket.set(zmq.IPV6, "[" in endpoint)
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ClusterError(f"cannot connect to {endpoint!r}: {error}") from error
        self._endpoint = endpoint
        self.checks = self.checks or not is_loopback(endpoint)

    def tend(self, now: float) -> None:
        """Ask a silent coordinator for a sign of life, and connect anew if none came. Call it
        several times a second, after ``receive``.
        """
        wanted = self._pulse.beat(self.messages_in, now)
        if wanted == "ask":
            with suppress(zmq.ZMQError):
                self.send([PING])
        elif wanted == "reconnect":
            self.is_quiet = False
            with suppress(zmq.ZMQError):
                self.socket.disconnect(self._endpoint)
            with suppress(zmq.ZMQError):
                self.socket.connect(self._endpoint)

    def bind(self, endpoint: str) -> str:
        """Listen at an endpoint; returns it with its port. A socket file is for its owner only.
        Raises ClusterError.
        """
        try:
            self.socket.set(zmq.IPV6, "[" in endpoint)
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
        self.is_quiet = False
        if self.checks:
            frames = add_check(frames, self._route_frames)
        send, uncopied, copied = self._put, self._zero_copy_bytes, self._copied
        for frame in frames[:-1]:
            send(frame, MORE, len(frame) < uncopied or type(frame) is copied)
        send(frames[-1], NOW, len(frames[-1]) < uncopied or type(frames[-1]) is copied)
        self.messages_out += 1
        self.bytes_out += sum(map(len, frames))

    def readable(self) -> bool:
        """Whether a message is there. The descriptor may stay silent about a message after any
        use of the socket; this does not.
        """
        events = self._get(EVENTS)
        self.is_quiet = not events & READABLE
        return not self.is_quiet

    def ready(self, wanted: int) -> bool:
        """Whether the socket is READABLE or WRITABLE, whichever is ``wanted``."""
        events = self._get(EVENTS)
        self.is_quiet = not events & (READABLE | wanted)
        return bool(events & wanted)

    def receive(self, most: int) -> Iterator[list[bytes]]:
        """The messages that have arrived, at most ``most``, and little more than the frames and
        bytes of one largest message; only one after a wait that the descriptor has ended. Frames
        of ``zero_copy_bytes`` or more are ZeroMQ's own buffers instead of bytes.
        """
        if self.is_signalled:
            # Light load brings one message, and the question before the next wait finds others.
            most, self.is_signalled = 1, False
        self.is_quiet = False
        before_bytes, budget = self.bytes_in, self._frames_max
        try:
            if self._is_discarding:
                self._discard()
                return
            for count in range(most):
                # Asking costs less than an exception.
                if count == 1 and not self.readable():
                    return
                frames = self._read([])
                if frames is None:
                    return
                budget -= len(frames)
                yield frames
                if budget <= 0 or self.bytes_in - before_bytes > self._bytes_max:
                    return
        except zmq.Again:
            return

    def _read(self, frames: list[Any], more: bool = True) -> list[bytes] | None:
        """The next message, whose first ``frames`` are read already, with ``more`` to come; None if
        it is over a bound, and is discarded.
        """
        receive, uncopied = self._take, self._zero_copy_bytes
        size = 0
        while more:
            # A frame knows whether another follows; to ask the socket costs as much as the frame.
            frame = receive(NOW, False)
            more = frame.more
            if len(frames) >= self._frames_max or size > self._bytes_max:
                self._is_discarding = more
                self._reject(frame)
                if more:
                    self._discard()
                return None
            length = len(frame)
            size += length
            frames.append(frame if length >= uncopied else frame.bytes)
        self.messages_in += 1
        self.bytes_in += sum(map(len, frames))
        first = frames[0]
        if len(frames) == 1 and type(first) is bytes and first.startswith(ANNOUNCED):
            self._follow(frames)
        elif self.checks and not take_check(frames, self._route_frames):
            self.corrupted += 1
            return None
        return frames

    def _follow(self, frames: list[Any]) -> None:
        """Do as the coordinator does, unless its announcement can't be read."""
        with suppress(ProtocolError):
            announced = heard(frames)
            if announced is not None:
                self.checks = announced.spec.checks

    def _reject(self, frame: zmq.Frame) -> None:
        """Act on a message over a bound, of which this is a frame."""

    def _discard(self) -> None:
        """Read on in a message over a bound, some of it at a time, as nothing else can be read
        before its end.
        """
        for _ in range(self._frames_max):
            if not self.socket.recv(NOW, False).more:
                self._is_discarding = False
                return

    def close(self) -> None:
        """Close the socket; sent messages have LINGER_MS to leave."""
        self.socket.close()


class Pulse:
    """When to ask a silent coordinator for a sign of life, and when to give a connection up.

    The patience doubles with each vain attempt, because a large message may block a slow line.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._doublings = 0
        self._heard = -1
        self._since = 0.0
        self._has_asked = False

    def beat(self, heard: int, now: float) -> str:
        """What to do now: "ask", "reconnect" or nothing; ``heard`` counts messages."""
        if heard != self._heard:
            self._heard, self._doublings = heard, 0
            self._since, self._has_asked = now, False
        elif not self._has_asked and now - self._since >= self._silence_s:
            self._since, self._has_asked = now, True
            return "ask"
        elif self._has_asked and now - self._since >= 2 * self._silence_s * 2**self._doublings:
            self._doublings = min(self._doublings + 1, MAX_DOUBLINGS)
            self._since, self._has_asked = now, False
            return "reconnect"
        return ""
