"""A whole cluster on this machine during a with block: a coordinator and workers as processes.

Children have a pipe as their standard input and stop when it closes, so they outlive neither the
block nor the program, however either ends. Each child is a fresh interpreter, because a process
with a ZeroMQ context must not fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from cluster.shells.async_client import AsyncClient
from cluster.shells.client import Client
from cluster.spec import BASELINE, ClusterSpec, encode_spec
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.status import Status

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
LOG_TAIL_BYTES = 4_000


class Process(subprocess.Popen[bytes]):
    """One child process, and the signals that a fault test sends it."""

    def __init__(self, role: str, module: str, arguments: Sequence[str], folder: Path) -> None:
        self.role = role
        self._log = folder / f"{role}.log"
        with self._log.open("wb") as log:
            super().__init__(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                stderr=log,
                start_new_session=True,
            )

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.poll() is None

    def kill(self) -> None:
        """SIGKILL: no goodbye, no clean-up. Returns when it is gone."""
        super().kill()
        self.wait()

    def suspend(self) -> None:
        """SIGSTOP: silent, but not dead."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.send_signal(signal.SIGCONT)

    def announcement(self, until_s: float) -> dict[str, str]:
        """The line that a child prints when it is ready; other output of a handler's module is
        skipped. Raises ClusterError with the child's last words.
        """
        assert self.stdout is not None
        while select.select([self.stdout], [], [], max(0.0, until_s - time.monotonic()))[0]:
            line = self.stdout.readline()
            if not line:
                code = self.wait()
                raise ClusterError(
                    f"{self.role} ended with code {code} before it was ready{self.last_words()}"
                )
            with contextlib.suppress(ValueError):
                announced = json.loads(line)
                if isinstance(announced, dict) and announced.get("pid") == self.pid:
                    return announced
        raise ClusterError(f"{self.role} was not ready in time{self.last_words()}")

    def last_words(self) -> str:
        """The end of what it wrote to standard error, for an error message."""
        with contextlib.suppress(OSError):
            text = self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
            return f":\n{text}" if text else ""
        return ""

    def stop(self, until_s: float) -> None:
        """Ask it to end by closing its input; SIGKILL if it has not by then."""
        assert self.stdin is not None
        assert self.stdout is not None
        with contextlib.suppress(OSError):
            self.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.send_signal(signal.SIGCONT)
        try:
            self.wait(max(0.01, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
        self.stdout.close()


class LocalCluster:
    """A coordinator and ``n_workers`` worker processes on loopback, ready when every worker is
    registered.

    ``handlers`` names a registry as ``"module:attribute"``. ``models`` are served besides; workers
    share the weights of large ones unless ``share_models`` is false. ``probe`` names what makes
    each worker's probe (default: of the host alone). The coordinator writes cProfile statistics to
    the file ``cprofile`` when it ends, and listens at ``bind`` (default: a free port or, by the
    spec's ``transport``, a socket file), beyond this machine only if ``insecure``. Raises
    ClusterError, with the child's output, if one does not come up.
    """

    #: the module that the coordinator's process runs
    coordinator_module: ClassVar[str] = "cluster.process"

    def __init__(
        self,
        n_workers: int = 2,
        spec: ClusterSpec = BASELINE,
        *,
        capacity: int = 1,
        handlers: str = "cluster.work.workloads:HANDLERS",
        models: Sequence[str] = (),
        share_models: bool = True,
        probe: str | None = None,
        cprofile: Path | None = None,
        bind: str | None = None,
        insecure: bool = False,
    ) -> None:
        if n_workers < 0:
            raise ClusterError(f"a cluster can't have {n_workers} workers")
        if capacity < 1:
            raise ClusterError(f"a worker can't run {capacity} tasks at once")
        self.spec = spec
        self.workers: list[Process] = []
        self._n_workers = n_workers
        self._worker_options = ["--capacity", str(capacity), "--handlers", handlers]
        self._worker_options += [option for model in models for option in ("--model", model)]
        self._worker_options += [] if share_models else ["--no-share"]
        self._worker_options += [] if probe is None else ["--probe", probe]
        self._cprofile = cprofile
        self._bind = bind
        self._insecure = insecure
        self._coordinator: Process | None = None
        self._clients: list[Client] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.endpoint = ""

    @property
    def coordinator(self) -> Process:
        """The coordinator's process; raises ClusterError unless the cluster runs."""
        if self._coordinator is None:
            raise ClusterError("the cluster is not running; use it in a with block")
        return self._coordinator

    @property
    def coordinator_pid(self) -> int:
        """The coordinator's process id."""
        return self.coordinator.pid

    def start(self) -> Self:
        """Start every process; returns when every worker is registered."""
        if self._coordinator is not None:
            raise ClusterError("the cluster is running already")
        self._folder = tempfile.TemporaryDirectory(prefix="cluster-")
        folder = Path(self._folder.name)
        until_s = time.monotonic() + READY_TIMEOUT_S
        try:
            free = f"ipc://{folder}/socket" if self.spec.transport == "ipc" else "tcp://127.0.0.1:*"
            options = ["--spec", encode_spec(self.spec), "--bind", self._bind or free]
            options += ["--insecure"] if self._insecure else []
            if self._cprofile is not None:
                options += ["--cprofile", str(self._cprofile)]
            self._coordinator = Process(
                "coordinator", self.coordinator_module, ["coordinator", *options], folder
            )
            self.endpoint = self._coordinator.announcement(until_s)["endpoint"]
            started = [self._start_worker() for _ in range(self._n_workers)]
            for worker in started:
                worker.announcement(until_s)
        except BaseException:
            self.stop()
            raise
        return self

    def add_worker(self) -> Process:
        """One more worker process, ready when this returns."""
        self._running()
        worker = self._start_worker()
        worker.announcement(time.monotonic() + READY_TIMEOUT_S)
        return worker

    def restart_worker(self, worker: Process) -> Process:
        """Replace a worker by a new process of the same name, ready when this returns."""
        self._running()
        until_s = time.monotonic() + READY_TIMEOUT_S
        worker.stop(time.monotonic() + STOP_TIMEOUT_S)
        again = self._launch(worker.role)
        self.workers[self.workers.index(worker)] = again
        again.announcement(until_s)
        return again

    def client(self) -> Client:
        """A client of this cluster, closed with it."""
        client = Client(self._running(), spec=self.spec)
        self._clients.append(client)
        return client

    def async_client(self) -> AsyncClient:
        """A client for asyncio; close it yourself."""
        return AsyncClient(self._running(), spec=self.spec)

    def status(self) -> Status:
        """The state of the cluster."""
        with Client(self._running(), spec=self.spec) as client:
            return client.status()

    def stop(self) -> None:
        """Stop every process and close every descriptor; safe to call twice."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        until_s = time.monotonic() + STOP_TIMEOUT_S
        processes = [*self.workers, *([self._coordinator] if self._coordinator else [])]
        for process in processes:
            with contextlib.suppress(OSError):
                os.kill(process.pid, signal.SIGTERM) if process.alive() else None
        for process in processes:
            process.stop(until_s)
        self.workers.clear()
        self._coordinator = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _running(self) -> str:
        """The coordinator's endpoint; raises ClusterError unless the cluster runs."""
        _ = self.coordinator
        return self.endpoint

    def _start_worker(self) -> Process:
        self.workers.append(self._launch(f"worker-{len(self.workers)}"))
        return self.workers[-1]

    def _launch(self, role: str) -> Process:
        assert self._folder is not None
        options = ["--spec", encode_spec(self.spec), "--endpoint", self.endpoint, "--name", role]
        folder = Path(self._folder.name)
        return Process(role, "cluster.process", ["worker", *options, *self._worker_options], folder)
