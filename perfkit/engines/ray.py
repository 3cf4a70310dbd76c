"""Ray as an engine: an instance of its own on this machine, an actor for each worker; or actors in
a Ray that runs already.

Used as its documentation advises: expensive state lives in actors, tiny tasks go in batches, and
calls are pipelined, queued at an actor before its last call is done. Ray does not choose among
actors, so the one with the fewest calls in flight is chosen here.

Ray reads its environment when it is imported, so that comes when an engine is made.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from threading import Lock
from typing import Any, ClassVar

from cluster.scratch import ScratchFolder
from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.errors import ClusterError
from perfkit.engines import base
from perfkit.engines.base import Column, ColumnEngine, answer, load, not_importable

if find_spec("ray") is None:
    raise ModuleNotFoundError("No module named 'ray'", name="ray")

LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT_S = 10.0
#: The shared memory for columns in flight; Ray's default is a third of the machine's.
OBJECT_STORE_BYTES = 256 << 20
#: For a Ray of our own; a user's own settings stay. Despite its name the first has Ray bind to
#: loopback instead of every address of the machine. Its processes need a token; without this one
#: Ray writes one to the home folder.
PRIVATE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


class RayEngine(ColumnEngine):
    """A local Ray instance with as many CPUs as workers, without a dashboard; or as many actors, of
    a CPU each, in the Ray at ``address``, which are named and end with the engine.

    If this process is killed, Ray's agents notice within a minute or so and end too. A process has
    one Ray: entering raises ClusterError if it is running already, or if it would listen beyond
    loopback because it was imported before this module. A Ray that exists is joined as Ray's own
    environment variables say, RAY_AUTH_MODE and RAY_AUTH_TOKEN among them.
    """

    name: ClassVar[str] = "ray"
    addresses: ClassVar[tuple[str, str]] = (
        r"auto|(ray://)?[^/]+:[0-9]+",
        "that of Ray's head, as HOST:PORT, or ray://HOST:PORT of a Ray client server, or 'auto'",
    )
    _folder: ScratchFolder | None = None
    _is_joined = False
    _workers: list[Any]

    def __init__(
        self,
        workers: int = 2,
        spec: ClusterSpec = BASELINE,
        models: Sequence[str] = (),
        address: str | None = None,
    ) -> None:
        super().__init__(workers, spec, models, address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        for name, value in PRIVATE.items() if address is None else ():
            os.environ.setdefault(name, value)

    def _start(self) -> None:
        if self.address is not None:
            check_listens(self.address)
        import ray

        if ray.is_initialized():
            raise ClusterError("Ray runs in this process already; call ray.shutdown() first")
        if self.address is None:
            self._start_own()
        else:
            self._join(self.address)
        worker = ray.remote(num_cpus=1)(RayWorker)
        prefix = f"perfkit-{secrets.token_hex(4)}"
        self._workers = [
            worker.options(name=f"{prefix}-{number}").remote(self.models)
            for number in range(self.workers)
        ]
        self._in_flight = [0] * self.workers
        self._lock = Lock()
        calls = [worker.ready.remote() for worker in self._workers]
        try:
            ray.get(calls, timeout=base.READY_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError as error:
            waited = f"{self.workers} actors were not ready within {base.READY_TIMEOUT_S:g} s"
            raise ClusterError(f"{waited}; Ray's CPUs may be taken by others") from error
        except ray.exceptions.RayError as error:
            raise not_importable("a worker of Ray", error) or error from error

    def _join(self, address: str) -> None:
        """Connect to a Ray that runs already."""
        import ray

        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            hint = "; if it wants a token, set RAY_AUTH_MODE and RAY_AUTH_TOKEN as they are there"
            if address.startswith("ray://"):
                hint += "; a head's Ray client server has port 10001 unless it was told another"
            hint = hint if isinstance(error, ConnectionError) else ""
            raise ClusterError(f"no Ray can be joined at {address}: {error}{hint}") from error
        self._is_joined, self._workers = True, []
        cpus = ray.cluster_resources().get("CPU", 0)
        if cpus < self.workers:
            raise ClusterError(
                f"the Ray at {address} has {cpus:g} CPUs, too few for {self.workers} workers"
            )

    def _start_own(self) -> None:
        import ray

        self._folder = ScratchFolder("perfkit-ray-")
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

    def _stop(self) -> None:
        if not self._is_joined and self._folder is None:
            return
        import ray

        if self._is_joined:
            for worker in self._workers:
                ray.kill(worker)
        ray.shutdown()
        self._is_joined = False
        if self._folder is not None:
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


def check_listens(address: str) -> None:
    """Raise ClusterError if nothing listens at an address, on which Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:  # else it is "auto"
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(f"no Ray answers at {address}: {error}") from error


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
