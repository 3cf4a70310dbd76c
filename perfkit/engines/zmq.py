"""This cluster as an engine: a coordinator and its workers on loopback, and one client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import ClassVar

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.status import Status
from perfkit.engines.base import Engine


class ZmqEngine(Engine):
    """A `LocalCluster` of ``spec`` and a client of it."""

    name: ClassVar[str] = "zmq"

    def __init__(
        self, workers: int = 2, spec: ClusterSpec = BASELINE, models: Sequence[str] = ()
    ) -> None:
        super().__init__(workers, spec, models)
        self._cluster = LocalCluster(workers, spec, models=models)
        self._client: Client | None = None

    def submit(self, kind: str, payload: bytes = b"") -> Future[bytes]:
        """`Client.submit`."""
        self._check(kind)
        return self._open_client.submit(kind, payload)

    def map(self, kind: str, payloads: Iterable[bytes]) -> Iterator[bytes]:
        """`Client.map`."""
        self._check(kind)
        return self._open_client.map(kind, payloads)

    def status(self) -> Status:
        """The cluster's status."""
        return self._open_client.status()

    @property
    def _open_client(self) -> Client:
        assert self._client is not None
        return self._client

    def _start(self) -> None:
        self._client = self._cluster.start().client()

    def _stop(self) -> None:
        self._cluster.stop()
