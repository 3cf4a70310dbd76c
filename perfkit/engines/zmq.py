"""This cluster as an engine: a coordinator and its workers on loopback, and one client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import ClassVar

from cluster.local import LocalCluster
from cluster.vocabulary.status import Status
from perfkit.engines.base import Engine


class ZmqEngine(Engine):
    """A `LocalCluster` of ``spec`` and a client of it."""

    name: ClassVar[str] = "zmq"

    def submit(self, kind: str, payload: bytes = b"") -> Future[bytes]:
        """`Client.submit`."""
        self._check(kind)
        return self._client.submit(kind, payload)

    def map(self, kind: str, payloads: Iterable[bytes]) -> Iterator[bytes]:
        """`Client.map`."""
        self._check(kind)
        return self._client.map(kind, payloads)

    def status(self) -> Status:
        """The cluster's status."""
        return self._client.status()

    def _start(self) -> None:
        self._running = ExitStack()
        cluster = LocalCluster(self.workers, self.spec, models=self.models)
        self._client = self._running.enter_context(cluster).client()

    def _stop(self) -> None:
        self._running.close()
