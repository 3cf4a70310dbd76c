"""Dask as an engine: a scheduler in this process, each worker a process with one thread.

Used as its documentation advises: futures come from ``Client.get_executor``, its interface to
``concurrent.futures``, and a map is cut into columns, because any task costs its scheduler up to a
millisecond. Like the local engine's, its workers are spawned.

A Dask scheduler runs any code for anyone who reaches its port, which on loopback is each user of
this machine. So scheduler, workers and client speak TLS, by a certificate of this run that never
leaves their memory, and a peer without it is refused. Over plain HTTP Dask serves its health
and nothing else. Everything else is Dask's default.
"""

from __future__ import annotations

import logging
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import ClassVar

import dask
import distributed
from distributed.security import Security

# isort: split
import cryptography  # noqa: F401  # the certificate needs it, which Dask would say only later

from perfkit.engines import base
from perfkit.engines.base import Column, ColumnEngine, answer, load

LOOPBACK = "127.0.0.1"
HEALTH_ALONE = {
    f"distributed.{role}.http.routes": ["distributed.http.health"]
    for role in ("scheduler", "worker")
}


class DaskEngine(ColumnEngine):
    """A ``distributed.LocalCluster`` on loopback, without a dashboard, and a client of it."""

    name: ClassVar[str] = "dask"
    _executor: Executor | None = None

    def _start(self) -> None:
        self._running = ExitStack()
        self._running.enter_context(dask.config.set(HEALTH_ALONE))
        folder = self._running.enter_context(
            TemporaryDirectory(prefix="perfkit-dask-", ignore_cleanup_errors=True)
        )
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

    def _stop(self) -> None:
        self._running.close()

    def _send(self, kind: str, payloads: list[bytes]) -> Future[Column]:
        assert self._executor is not None
        return self._executor.submit(answer, self.models, kind, payloads)
