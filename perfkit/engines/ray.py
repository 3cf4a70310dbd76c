"""Ray as an engine: an instance of its own on this machine, an actor for each worker.

Used as its documentation advises: expensive state lives in actors, tiny tasks go in batches, and
calls are pipelined, queued at an actor before its last call is done. Ray does not choose among
actors, so the one with the fewest calls in flight is chosen here.
"""

from __future__ import annotations

import logging
import os
import secrets
from concurrent.futures import Future
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, ClassVar

# Ray and its processes read these at import or first start; a user's own settings stay.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Despite its name: without it Ray binds to every address of the machine.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
# Ray's processes need a token; without this one Ray writes one to the home folder.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray

from cluster.vocabulary.errors import ClusterError
from perfkit.engines import base
from perfkit.engines.base import Column, ColumnEngine, answer, load

LOOPBACK = "127.0.0.1"
#: The shared memory for columns in flight; Ray's default is a third of the machine's.
OBJECT_STORE_BYTES = 256 << 20


class RayEngine(ColumnEngine):
    """A local Ray instance with as many CPUs as workers, without a dashboard.

    If this process is killed, Ray's agents notice within a minute or so and end too. A process has
    one Ray: entering raises ClusterError if it is running already, or if it would listen beyond
    loopback because it was imported before this module.
    """

    name: ClassVar[str] = "ray"
    _folder: TemporaryDirectory[str] | None = None

    def _start(self) -> None:
        if ray.is_initialized():
            raise ClusterError("Ray runs in this process already; call ray.shutdown() first")
        self._folder = TemporaryDirectory(prefix="perfkit-ray-", ignore_cleanup_errors=True)
        ray.init(
            "local",
            num_cpus=self.workers,
            num_gpus=0,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # Ray lets everyone write its folder of sockets, so it lies in one of ours.
            _temp_dir=f"{self._folder.name}/r",
        )
        if (address := ray.util.get_node_ip_address()) != LOOPBACK:
            raise ClusterError(
                f"Ray would listen at {address}: import perfkit.engines.ray before ray, or set "
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"
            )
        worker = ray.remote(num_cpus=1)(RayWorker)
        self._workers: list[Any] = [worker.remote(self.models) for _ in range(self.workers)]
        self._in_flight = [0] * self.workers
        self._lock = Lock()
        ray.get([worker.ready.remote() for worker in self._workers], timeout=base.READY_TIMEOUT_S)

    def _stop(self) -> None:
        if self._folder is None:
            return
        ray.shutdown()
        self._folder.cleanup()
        self._folder = None

    def _send(self, kind: str, payloads: list[bytes]) -> Future[Column]:
        with self._lock:
            number = self._in_flight.index(min(self._in_flight))
            self._in_flight[number] += 1

        # Cancelled calls still run: if Ray cancels one in an actor's queue, the actor sometimes
        # never answers the calls behind it (2.60).
        def done(sent: Future[Column]) -> None:
            with self._lock:
                self._in_flight[number] -= 1

        sent: Future[Column] = self._workers[number].answer.remote(kind, payloads).future()
        sent.add_done_callback(done)
        return sent


class RayWorker:
    """The actor in a worker's process."""

    def __init__(self, models: tuple[str, ...]) -> None:
        self._models = models
        load(models)

    def ready(self) -> None:
        """Returns when the models are loaded."""

    def answer(self, kind: str, payloads: list[bytes]) -> Column:
        """The outcome of each payload."""
        return answer(self._models, kind, payloads)
