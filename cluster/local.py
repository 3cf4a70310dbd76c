"""A whole cluster on this machine during a with block: a coordinator and workers as processes.

The workers belong to a supervisor, which starts one again that has died. All of them die with the
program, however it ends.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from cluster.shells.async_client import AsyncClient
from cluster.shells.client import Client
from cluster.spec import BASELINE, ClusterSpec, encode_spec
from cluster.supervision.children import Process as Process
from cluster.supervision.crew import Crew, WorkerProcess, host_options, worker_options
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.status import Status

READY_TIMEOUT_S = 30.0
#: Models are tried on a card before they are served, see `cluster.models.runtime.choice`.
TRIAL_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 5.0


class LocalCluster:
    """A coordinator and ``n_workers`` worker processes on loopback, ready when every worker is
    registered.

    ``handlers`` names a registry as ``"module:attribute"``. ``models`` are served besides; workers
    share the weights of large ones unless ``share_models`` is false, and a run takes ``threads``
    threads (default: as the model says). ``environments`` are variables for the first workers, one
    mapping each, such as those that bind it to a card, see `cluster.vocabulary.cards`; models on
    cards may take minutes at the first start on a host. ``probe`` names what makes each worker's
    probe (default: of the host alone). The coordinator writes cProfile statistics to the file
    ``cprofile`` when it ends, and listens at ``bind`` (default: a free port or, by the spec's
    ``transport``, a socket file), beyond this machine only if ``insecure``. What workers print is
    appended to the file ``log``; from the level ``show`` up it is to be read from ``output``.

    Raises ClusterError, with the child's output, if a process does not come up.
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
        environments: Sequence[Mapping[str, str]] = (),
        share_models: bool = True,
        threads: int | None = None,
        probe: str | None = None,
        cprofile: Path | None = None,
        bind: str | None = None,
        insecure: bool = False,
        log: Path | None = None,
        show: Literal["info", "warning", "off"] = "off",
    ) -> None:
        if n_workers < 0:
            raise ClusterError(f"a cluster can't have {n_workers} workers")
        if capacity < 1:
            raise ClusterError(f"a worker can't run {capacity} tasks at once")
        self.spec = spec
        self._n_workers = n_workers
        self._environments = environments
        self._ready_s = READY_TIMEOUT_S + (TRIAL_TIMEOUT_S if environments and models else 0.0)
        self._named = 0
        options = worker_options(capacity, handlers, models, probe, threads)
        options += [] if share_models else ["--no-share"]
        self._host_options = host_options(spec, options, log, show)
        self._shows_output = show != "off"
        self._crew: Crew | None = None
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

    @property
    def workers(self) -> list[WorkerProcess]:
        """The newest process of each worker."""
        return self._crew.workers() if self._crew is not None else []

    @property
    def crew(self) -> Crew:
        """The workers' supervisor; raises ClusterError unless the cluster runs."""
        self._running()
        if self._crew is None:
            assert self._folder is not None
            folder = Path(self._folder.name)
            self._crew = Crew(self._host_options, folder, shows_output=self._shows_output)
        return self._crew

    def start(self) -> Self:
        """Start every process; returns when every worker is registered."""
        if self._coordinator is not None:
            raise ClusterError("the cluster is running already")
        self._folder = tempfile.TemporaryDirectory(prefix="cluster-")
        folder = Path(self._folder.name)
        until_s = time.monotonic() + self._ready_s
        try:
            free = f"ipc://{folder}/socket" if self.spec.transport == "ipc" else "tcp://127.0.0.1:*"
            options = ["--spec", encode_spec(self.spec), "--bind", self._bind or free]
            options += ["--insecure"] if self._insecure else []
            if self._cprofile is not None:
                options += ["--cprofile", str(self._cprofile)]
            self._coordinator = Process(
                "coordinator", self.coordinator_module, ["coordinator", *options], folder,
                guarded=True,
            )  # fmt: skip
            if self._n_workers:
                _ = self.crew  # gets ready while the coordinator does
            self.endpoint = self._coordinator.announcement(until_s)["endpoint"]
            self._start_workers(self._n_workers, until_s)
        except BaseException:
            self.stop()
            raise
        return self

    def add_worker(self) -> WorkerProcess:
        """One more worker process, ready when this returns."""
        self._running()
        return self._start_workers(1, time.monotonic() + self._ready_s)[0]

    def restart_worker(self, worker: WorkerProcess) -> WorkerProcess:
        """A new process for a worker's name, ready when this returns: the one that has replaced a
        dead one already, or another.
        """
        self._running()
        (newest,) = (w for w in self.workers if w.role == worker.role)
        pid = worker.pid if newest.alive() else newest.pid
        self.crew.tell(restart=worker.role, pid=pid)
        return self.crew.ready(worker.role, time.monotonic() + self._ready_s, pid)

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
        if self._crew is not None:
            self._crew.tell(stop=STOP_TIMEOUT_S)
        if self._coordinator is not None:
            self._coordinator.terminate()
        for process in (self._crew, self._coordinator):
            if process is not None:
                process.stop(until_s)
        self._crew = self._coordinator = None
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

    def _start_workers(self, count: int, until_s: float) -> list[WorkerProcess]:
        numbers = range(self._named, self._named + count)
        names = [f"worker-{number}" for number in numbers]
        own = dict(zip(names, self._environments[self._named :], strict=False))
        self._named += count
        if names:
            environments = {name: dict(it) for name, it in own.items()}
            self.crew.tell(endpoint=self.endpoint, start=names, environments=environments)
        return [self.crew.ready(name, until_s) for name in names]
