"""One thread's connection from a worker to the coordinator."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import zmq

from cluster.spec import ClusterSpec, load_codec
from cluster.transport.channel import WRITABLE, Channel
from cluster.transport.hello import IS_READ, READ, check_heard
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError, ProtocolError

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"
#: how often to see whether the coordinator is still there
LOOK_MS = 20


class Connection:
    """Sends events, and hands what it receives on.

    ``hear`` takes in actions and returns the answers. ``introduction`` gives what to say on a new
    connection. ``fail`` is told of a coordinator that this worker can't work for.
    """

    def __init__(
        self,
        context: Context,
        endpoint: str,
        spec: ClusterSpec,
        hear: Callable[[Sequence[do.Action]], Sequence[on.Event]],
        introduction: Callable[[], Sequence[on.Event]],
        fail: Callable[[ClusterError], None],
    ) -> None:
        self.channel = Channel(context, zmq.DEALER, spec)
        self.channel.connect(endpoint)
        self.thread = threading.get_ident()
        #: held from collecting outcomes until they are sent, which keeps them in order
        self.lock = threading.Lock()
        self._endpoint = endpoint
        self._spec = spec
        self._codec = load_codec(spec)
        self._hear = hear
        self._introduction = introduction
        self._fail = fail
        self._is_read = False

    def send(self, events: Sequence[on.Event]) -> None:
        """Send, or drop at the high-water mark; heartbeats tell the coordinator what is missing."""
        try:
            for frames in self._codec.encode(events):
                self.channel.send(frames)
        except zmq.Again:
            return

    def receive(self) -> None:
        """Take in messages and answer them."""
        for frames in self.channel.receive(self._spec.drain):
            try:
                actions = self._codec.actions(frames)
            except ProtocolError:
                self._take_in(frames)
            else:
                self.send(self._hear(actions))

    def tend(self) -> None:
        """Receive, and see to it that the connection is alive."""
        self.receive()
        self.channel.tend(time.monotonic())

    def confirm(self) -> None:
        """Return when the coordinator has read all that was sent here: it reads a worker's
        connections in no order. Wait ``liveness_s`` at most, and not for one that is gone.
        """
        self._is_read, until_s = False, time.monotonic() + self._spec.limits.liveness_s
        with suppress(zmq.Again):
            self.channel.send([IS_READ])
            while not self._is_read and time.monotonic() < until_s and self.channel.ready(WRITABLE):
                self.channel.socket.poll(LOOK_MS)
                self.receive()

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()

    def _take_in(self, frames: list[bytes]) -> None:
        """Take in what is in no codec. An announcement means that the connection is new, so the
        worker tells on it where its work is to go.
        """
        self._is_read |= frames == [READ]
        try:
            if check_heard(frames, self._spec, self._endpoint):
                self.send(self._introduction())
        except ClusterError as error:
            self._fail(error)
