"""A supervisor's connection to the coordinator."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

import zmq

from cluster.spec import ClusterSpec, load_codec
from cluster.transport.channel import Channel
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ProtocolError
from cluster.vocabulary.task import ProcessState


class HostLink:
    """Reports what processes do, and hears which to kill or restart. Raises ClusterError for an
    invalid endpoint.
    """

    def __init__(self, endpoint: str, spec: ClusterSpec, host: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._channel = Channel(self._context, zmq.DEALER, spec)
        self._channel.connect(endpoint)
        self._codec = load_codec(spec)
        self._drain = spec.drain
        self._host = host

    def fileno(self) -> int:
        """The descriptor that tells of news; look for orders after any use of the connection."""
        return int(self._channel.socket.getsockopt(zmq.FD))

    def report(
        self, processes: Sequence[tuple[str, int, ProcessState]], restarts: int, trouble: str
    ) -> None:
        """Tell the coordinator the state of each worker's process."""
        self._send(on.HostReported(self._host, list(processes), restarts, trouble))

    def orders(self) -> list[do.Kill | do.Restart]:
        """What the coordinator has ordered since the last time."""
        orders: list[do.Kill | do.Restart] = []
        self._channel.tend(time.monotonic())
        if self._channel.readable():
            for frames in self._channel.receive(self._drain):
                with suppress(ProtocolError):
                    actions = self._codec.actions(frames)
                    orders += [a for a in actions if isinstance(a, do.Kill | do.Restart)]
        return orders

    def leave(self) -> None:
        """Say goodbye and close."""
        self._send(on.HostLeft(self._host))
        self._channel.close()
        self._context.term()

    def _send(self, event: on.Event) -> None:
        with suppress(zmq.Again):  # the next report says the same
            for frames in self._codec.encode([event]):
                self._channel.send(frames)
