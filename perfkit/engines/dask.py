"""Dask as an engine: a scheduler in this process, each worker a process with one thread.

Used as its documentation advises: futures come from ``Client.get_executor``, its interface to
``concurrent.futures``, and a map is cut into columns, because any task costs its scheduler up to a
millisecond. Like the local engine's, its workers are spawned.

A Dask scheduler runs any code for anyone who reaches its port, which on loopback is each user of
this machine. So scheduler, workers and client speak TLS, by a certificate of this run that never
leaves their memory, and a peer without it is refused. Over plain HTTP Dask serves its health
and nothing else. Everything else is Dask's default.

With an address the scheduler and its workers are somebody else's. Columns go to the workers that
have loaded the models, in threads as many as each has; one that joins later is prepared first.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Executor, Future
from contextlib import ExitStack, suppress
from typing import ClassVar

import dask
import distributed
from distributed.security import Security

from cluster.scratch import ScratchFolder

# isort: split
import cryptography  # noqa: F401  # the certificate needs it, which Dask would say only later

from cluster.vocabulary.errors import ClusterError
from perfkit.engines import base
from perfkit.engines.base import Column, ColumnEngine, answer, load, not_importable

LOGGER = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT_S = 10.0
#: between two looks for workers that have joined a scheduler that exists
LOOK_S = 1.0
TLS_PARTS = "CA_FILE", "CLIENT__CERT", "CLIENT__KEY"
HEALTH_ALONE = {
    f"distributed.{role}.http.routes": ["distributed.http.health"]
    for role in ("scheduler", "worker")
}


class DaskEngine(ColumnEngine):
    """A ``distributed.LocalCluster`` on loopback, without a dashboard, and a client of it; or a
    client of the scheduler at ``address``. The certificates for ``tls://`` are those of Dask's own
    configuration (distributed.comm.tls).
    """

    name: ClassVar[str] = "dask"
    addresses: ClassVar[tuple[str, str]] = (
        r"(tcp|tls)://.+",
        "a scheduler's, as tcp://HOST:PORT or tls://HOST:PORT",
    )
    _executor: Executor | None = None

    def _start(self) -> None:
        self._running = ExitStack()
        if self.address is None:
            self._start_own()
        else:
            self._join(self.address)

    def _start_own(self) -> None:
        self._running.enter_context(dask.config.set(HEALTH_ALONE))
        folder = self._running.enter_context(ScratchFolder("perfkit-dask-"))
        self._cluster = cluster = self._running.enter_context(
            distributed.LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                processes=True,
                host=LOOPBACK,
                security=Security.temporary(),
                # Its scheduler always serves its health over HTTP: a free port, no dashboard.
                dashboard_address=f"{LOOPBACK}:0",
                scheduler_kwargs={"dashboard": False, "local_directory": folder},
                local_directory=folder,
                silence_logs=logging.CRITICAL,
            )
        )
        client = self._running.enter_context(
            distributed.Client(cluster, set_as_default=False, timeout=base.READY_TIMEOUT_S)
        )
        client.wait_for_workers(self.workers, timeout=base.READY_TIMEOUT_S)
        client.run(load, self.models)
        self._executor = client.get_executor(pure=False)

    def _join(self, address: str) -> None:
        """Connect to a scheduler, and prepare its workers."""
        security = configured_security(address)
        try:
            client = distributed.Client(
                address, security=security, set_as_default=False, timeout=CONNECT_TIMEOUT_S
            )
        except OSError as error:
            raise ClusterError(f"no Dask scheduler answers at {address}: {error}") from error
        self._running.enter_context(client)
        #: workers that have been told to load the models, and by those that have, their threads
        self._seen: set[str] = set()
        self._ready: dict[str, int] = {}
        is_over = threading.Event()
        self._running.callback(is_over.set)
        trouble = self._prepare(client)
        if not self._ready:
            raise trouble or ClusterError(f"the Dask scheduler at {address} has no worker")
        try:
            client.run_on_scheduler(load, ())  # it reads what it passes on
        except Exception as error:
            raise not_importable(f"the Dask scheduler at {address}", error) or error from error
        watch = threading.Thread(target=self._watch, args=(client, is_over), daemon=True)
        watch.start()

    def _watch(self, client: distributed.Client, is_over: threading.Event) -> None:
        """Prepare workers that join later."""
        while not is_over.wait(LOOK_S):
            with suppress(Exception):  # the scheduler may be gone, which columns tell
                self._prepare(client)

    def _prepare(self, client: distributed.Client) -> Exception | None:
        """Have new workers load the models, and send columns to those that could from now on;
        returns why one could not.
        """
        present = client.nthreads()
        new = present.keys() - self._seen
        self._seen = set(present)
        outcomes = (
            client.run(load, self.models, workers=list(new), on_error="return") if new else {}
        )
        failed = {w: found for w, found in outcomes.items() if isinstance(found, Exception)}
        fit = {*self._ready, *(new - failed.keys())}
        ready = {worker: threads for worker, threads in present.items() if worker in fit}
        if ready != self._ready or self._executor is None:
            self._ready, self.workers = ready, max(1, sum(ready.values()))
            self._executor = client.get_executor(
                pure=False, workers=list(ready), allow_other_workers=True
            )
        for worker, error in failed.items():
            cause = not_importable(f"the Dask worker at {worker}", error) or error
            LOGGER.warning("it gets no tasks: %s", cause)
            return cause
        return None

    def _stop(self) -> None:
        self._running.close()

    def _send(self, kind: str, payloads: list[bytes]) -> Future[Column]:
        assert self._executor is not None
        return self._executor.submit(answer, self.models, kind, payloads)


def configured_security(address: str) -> Security:
    """The certificates of Dask's configuration, which a ``tls://`` address needs.

    Raises:
        ClusterError: it names none, or files that can't be read.
    """
    security = Security()
    if not address.startswith("tls://"):
        return security
    where = "in Dask's configuration (distributed.comm.tls)"
    try:
        has_certificate = security.get_connection_args("client")["ssl_context"] is not None
    except OSError as error:  # ssl's errors are some too
        raise ClusterError(f"a certificate {where} can't be read: {error}") from error
    if not has_certificate:
        variables = ", ".join(f"DASK_DISTRIBUTED__COMM__TLS__{part}" for part in TLS_PARTS)
        raise ClusterError(
            f"{address} wants certificates, and there are none {where}; set {variables} to the "
            "paths of PEM files"
        )
    return security
