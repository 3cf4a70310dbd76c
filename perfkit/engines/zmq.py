"""This cluster as an engine: a coordinator and its workers on loopback, and one client; or a client
of a coordinator that runs already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import ClassVar

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.status import Status
from perfkit.engines.base import Engine


class ZmqEngine(Engine):
    """A `LocalCluster` of ``spec`` and a client of it; or a client of the coordinator at
    ``address``, whose spec it adopts, and whose workers must offer ``models``.
    """

    name: ClassVar[str] = "zmq"
    addresses: ClassVar[tuple[str, str]] = (
        r"(tcp|ipc)://.+",
        "a coordinator's endpoint, as tcp://HOST:PORT",
    )

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

    def _check(self, kind: str) -> None:
        if self._open and self.address is not None and kind not in self.kinds:
            self._look(self._client)  # a worker may have come since
        super()._check(kind)

    def _start(self) -> None:
        self._running = ExitStack()
        if self.address is None:
            cluster = LocalCluster(self.workers, self.spec, models=self.models)
            self._client = self._running.enter_context(cluster).client()
            return
        self._client = self._running.enter_context(Client(self.address))
        self.spec = self._client.spec
        self._look(self._client)
        missing = [model for model in self.models if model not in self.kinds]
        if missing:
            raise ClusterError(
                f"no worker at {self.address} offers {missing[0]!r}; start one with --model "
                f"{missing[0]}, or have those there load it: Client.serve_models"
            )

    def _look(self, client: Client) -> None:
        """Learn what the workers of a cluster offer."""
        workers = client.status().workers
        self.workers = max(1, sum(worker.capacity for worker in workers))
        self.kinds = frozenset(kind for worker in workers for kind in worker.kinds)

    def _stop(self) -> None:
        self._running.close()
