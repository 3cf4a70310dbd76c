"""A whole cluster on this machine during a with block: a coordinator and workers as processes.

The workers belong to a supervisor, which starts one again that has died. All of them die with the
program, however it ends. Functions of the program's own reach them through a folder that is this
user's alone (`cluster.work.functions`); tasks only name them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, SupportsIndex, TypeVar
from weakref import WeakSet

from cluster.scratch import ScratchFolder
from cluster.shells.async_client import AsyncClient
from cluster.shells.client import Client
from cluster.shells.malloc_trim import one_heap
from cluster.spec import BASELINE, ClusterSpec, encode_spec
from cluster.supervision.children import Process as Process
from cluster.supervision.crew import Crew, WorkerProcess, host_options, worker_options
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.markup import as_table
from cluster.vocabulary.printable import count_of
from cluster.vocabulary.status import Status
from cluster.work.functions import Functions, Pack, Work, pack_work
from cluster.work.pack_folder import PackWriter

W = TypeVar("W", bound=Work)

READY_TIMEOUT_S = 30.0
#: a worker may import what a function needs
REGISTER_TIMEOUT_S = 60.0
NOTHING = "cluster.work.functions:NO_HANDLERS"
#: Models are tried before they are served, on cards too (`cluster.models.runtime.choice`), and one
#: may take seconds a run on a slow or busy machine.
TRIAL_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 5.0
#: those of this process that are not collected
CLUSTERS: WeakSet[LocalCluster] = WeakSet()


class LocalCluster:
    """A coordinator and ``n_workers`` worker processes on loopback, ready when every worker is
    registered.

    ``handlers`` are what the workers can do: a registry of `Handlers` of bytes, or its name as
    ``"module:attribute"``; or functions of plain data, see `register`: one, several in a list, or
    in a mapping from names. ``models`` are served besides; workers share the weights of large ones
    unless ``share_models`` is false, and a run takes ``threads`` threads (default: as the model
    says). ``environments`` are variables for the first workers, one mapping each, such as those
    that bind it to a card, see `cluster.vocabulary.cards`; models on cards may take minutes at the
    first start on a host. ``probe`` names what makes each worker's probe (default: of the host
    alone). The coordinator writes cProfile statistics to the file
    ``cprofile`` when it ends, and listens at ``bind`` (default: a free port or, by the spec's
    ``transport``, a socket file), beyond this machine only if ``insecure``. What workers print is
    appended to the file ``log``; from the level ``show`` up it is to be read from ``output``.

    Raises ClusterError for handlers that can't travel to the workers and, with the child's output,
    if a process does not come up.
    """

    #: the module that the coordinator's process runs
    coordinator_module: ClassVar[str] = "cluster.process"

    def __init__(
        self,
        n_workers: int = 2,
        spec: ClusterSpec = BASELINE,
        *,
        capacity: int = 1,
        handlers: str | Work = "cluster.work.workloads:HANDLERS",
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
        given: Any = n_workers, spec  # a notebook's author has no type checker
        if not isinstance(given[0], SupportsIndex) or n_workers < 0:
            raise ClusterError(f"a cluster can't have {n_workers!r} workers")
        if not isinstance(given[1], ClusterSpec):
            raise ClusterError(f"a spec is a ClusterSpec, such as perfkit.OPTIMIZED, not {spec!r}")
        if isinstance(models, str):
            raise ClusterError(f"models are a list of names: models=[{models!r}]")
        if capacity < 1:
            raise ClusterError(f"a worker can't run {capacity} tasks at once")
        self.spec = spec
        self._n_workers = n_workers
        self._environments = environments
        self._ready_s = READY_TIMEOUT_S + (TRIAL_TIMEOUT_S if models else 0.0)
        self._named = 0
        self._models = models
        #: what was registered, as it is sent to workers of a new start
        self._packs = [] if isinstance(handlers, str) else self._pack(handlers)
        registry = handlers if isinstance(handlers, str) else NOTHING
        self._options = worker_options(capacity, registry, models, probe, threads)
        self._options += [] if share_models else ["--no-share"]
        self._output = log, show
        self._functions = Functions()
        self._folder_of_packs: PackWriter
        self._registering = threading.Lock()
        self._crew: Crew | None = None
        self._cprofile = cprofile
        self._bind = bind
        self._insecure = insecure
        self._coordinator: Process | None = None
        self._clients: list[Client] = []
        self._folder: ScratchFolder | None = None
        self.endpoint = ""
        CLUSTERS.add(self)

    @property
    def coordinator(self) -> Process:
        """The coordinator's process; raises ClusterError unless the cluster runs."""
        if self._coordinator is None:
            raise ClusterError(
                "the cluster is not running; use it in a with block, or call start()"
            )
        return self._coordinator

    @property
    def is_running(self) -> bool:
        """Whether its coordinator has been started, and not stopped."""
        return self._coordinator is not None

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
            folder, (log, show) = Path(self._folder.name), self._output
            options = [*self._options, "--functions", str(folder / "functions")]
            host = host_options(self.spec, options, log, show)
            self._crew = Crew(host, folder, shows_output=show != "off")
        return self._crew

    def start(self) -> Self:
        """Start every process; returns when every worker is registered."""
        if self._coordinator is not None:
            raise ClusterError("the cluster is running already")
        self._folder = ScratchFolder("cluster-")
        folder = Path(self._folder.name)
        until_s = time.monotonic() + self._ready_s
        self._folder_of_packs = PackWriter(folder / "functions")
        for pack in self._packs:
            self._folder_of_packs.keep(self._folder_of_packs.write(pack))
            self._functions.add(pack)
        try:
            free = f"ipc://{folder}/socket" if self.spec.transport == "ipc" else "tcp://127.0.0.1:*"
            options = ["--spec", encode_spec(self.spec), "--bind", self._bind or free]
            options += ["--insecure"] if self._insecure else []
            if self._cprofile is not None:
                options += ["--cprofile", str(self._cprofile)]
            self._coordinator = Process(
                "coordinator", self.coordinator_module, ["coordinator", *options], folder,
                guarded=True, variables=one_heap() if self.spec.trim_bytes else {},
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

    def register(self, work: W, name: str | None = None) -> W:
        """Send a function to every worker; returns it when each has it, so this decorates, too.

        Clients of this cluster call it: ``client.submit(function, item)``. It takes and returns
        plain data (`cluster.work.plain_data`), by as many arguments as it is given, and its tasks
        are of the kind of its name, or of ``name``. It takes along the variables and the helpers
        that it uses, as they are now; what its calls change in them stays in their worker.
        Registered again it replaces what had its name: all tasks that have not begun by then run
        the new code. Until then a call is refused once one of these is defined anew. ``map`` and
        ``submit_batch`` are refused also if something has changed inside a list, a dict, an array,
        an object or a class of up to 64 KiB; ``submit``, for speed, does not look inside. A
        registry of `Handlers` of bytes is sent in the same way.

        Raises ClusterError if it can't travel, naming the variable, or can't be loaded in a worker,
        with the worker's words; the workers keep what they had then.
        """
        self._running()
        packs = self._pack(work, name)
        with self._registering:
            for pack in packs:
                self._send(pack, time.monotonic() + REGISTER_TIMEOUT_S)
        return work

    def client(self) -> Client:
        """A client of this cluster, closed with it."""
        client = Client(self._running(), spec=self.spec, functions=self._functions)
        self._clients.append(client)
        return client

    def async_client(self) -> AsyncClient:
        """A client for asyncio; close it yourself."""
        return AsyncClient(self._running(), spec=self.spec, functions=self._functions)

    def status(self) -> Status:
        """The state of the cluster; raises ClusterError if its coordinator has ended."""
        if not self.coordinator.alive():
            raise ClusterError("the coordinator has ended; stop() and start() begin anew")
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

    def __repr__(self) -> str:
        return f"<LocalCluster {self._summary()}>"

    def _repr_html_(self) -> str:
        rows = [(w.role, w.pid, "alive" if w.alive() else "ended") for w in self.workers]
        return as_table(f"LocalCluster {self._summary()}", ("worker", "pid", "process"), rows)

    def _summary(self) -> str:
        """Where it is, its workers and its functions, in a line."""
        if self._coordinator is None:
            return f"{self.spec.name}, {count_of(self._n_workers, 'worker')}: not running"
        workers, functions = self.workers, ", ".join(self._functions.known)
        alive = sum(worker.alive() for worker in workers)
        facts = [
            f"{self.spec.name} at {self.endpoint}: {alive} of {count_of(len(workers), 'worker')} "
            "alive",
            "" if self._coordinator.alive() else "the coordinator has ended",
            functions and f"functions: {functions}",
        ]
        return "; ".join(filter(None, facts))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _running(self) -> str:
        """The coordinator's endpoint; raises ClusterError unless the cluster runs."""
        _ = self.coordinator
        return self.endpoint

    def _pack(self, work: Work, name: str | None = None) -> list[Pack]:
        packs = pack_work(work, name)
        for taken in sorted(n for pack in packs for n in pack.names):
            if taken.partition("/")[0] in self._models:
                raise ClusterError(f"{taken!r} is a model of this cluster; choose another name")
        return packs

    def _send(self, pack: Pack, until_s: float) -> None:
        """Have every worker use a pack that all of them could load."""
        number = self._folder_of_packs.write(pack)
        try:
            self._agree("try", number, until_s)
        except BaseException:
            self._folder_of_packs.drop(number)
            raise
        self._functions.forget(pack.names)  # in case this is interrupted
        self._folder_of_packs.keep(number)
        self._packs = [it for it in self._packs if not it.names <= pack.names] + [pack]
        self._agree("use", number, until_s)
        self._functions.add(pack)

    def _agree(self, order: str, number: int, until_s: float) -> None:
        if self._crew is not None:
            self._crew.agree(order, number, until_s)

    def _start_workers(self, count: int, until_s: float) -> list[WorkerProcess]:
        numbers = range(self._named, self._named + count)
        names = [f"worker-{number}" for number in numbers]
        own = dict(zip(names, self._environments[self._named :], strict=False))
        self._named += count
        if names:
            environments = {name: dict(it) for name, it in own.items()}
            self.crew.tell(endpoint=self.endpoint, start=names, environments=environments)
        return [self.crew.ready(name, until_s) for name in names]
