"""A cluster on two hosts of which one can be cut off, and whose coordinator can be restarted.

Both hosts are this machine: each has a supervisor and workers of its own. The far host reaches the
coordinator by a link that can stop passing bytes without closing a connection, as a pulled cable
does.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cluster.local import READY_TIMEOUT_S, STOP_TIMEOUT_S, LocalCluster
from cluster.scratch import ScratchFolder
from cluster.shells.client import Client
from cluster.spec import ClusterSpec, encode_spec
from cluster.supervision.children import Process
from cluster.supervision.crew import Crew, WorkerProcess, host_options, worker_options
from cluster.vocabulary.errors import Unreachable
from cluster.vocabulary.status import Status

HANDLERS = "cluster.work.workloads:HANDLERS"
#: A coordinator that restarts answers no earlier question.
ANSWER_TIMEOUT_S = 0.2


class Link:
    """TCP connections on loopback to an endpoint. While it is cut it passes no byte in either
    direction and closes nothing; what arrives meanwhile is passed on once it is mended.
    """

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._is_whole = threading.Event()
        self._is_whole.set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, name="link", daemon=True).start()

    def cut(self) -> None:
        """Pass nothing from now on."""
        self._is_whole.clear()

    def mend(self) -> None:
        """Pass what has arrived meanwhile, and all that follows."""
        self._is_whole.set()

    def close(self) -> None:
        """Close every connection."""
        self.mend()
        for end in (self._listening, *self._ends):
            _shut(end)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._is_whole.wait()
        try:
            far = socket.create_connection(self._target)
        except OSError:  # the coordinator restarts
            _shut(near)
            return
        self._ends += (near, far)
        threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()
        self._pass_on(far, near)

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                self._is_whole.wait()
                other.sendall(data)
        for end in (one, other):
            _shut(end)


def _shut(end: socket.socket) -> None:
    # Closing alone would not wake a thread that waits for it.
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


class TwoHosts:
    """A coordinator, and `workers` worker processes on each of two hosts."""

    def __init__(self, spec: ClusterSpec, workers: int, folder: Path) -> None:
        self.spec = spec
        self._folder = folder
        self._running = ExitStack()
        self._coordinator = self._start_coordinator("tcp://127.0.0.1:*")
        self._running.callback(lambda: _stop(self._coordinator))
        self.link = Link(self.endpoint)
        self._running.callback(self.link.close)
        self._crews: list[Crew] = []
        ways = {"near": self.endpoint, "far": self.link.endpoint}
        names = {place: [f"{place}-{n}" for n in range(workers)] for place in ways}
        for place, way in ways.items():
            (folder / place).mkdir()
            options = host_options(spec, worker_options(1, HANDLERS, (), None), None, "off")
            crew = Crew(options, folder / place)
            self._running.callback(_stop, crew)
            self._crews.append(crew)
            crew.tell(endpoint=way, start=names[place])
        until_s = time.monotonic() + READY_TIMEOUT_S
        for crew, place in zip(self._crews, names, strict=True):
            for name in names[place]:
                crew.ready(name, until_s)
        self.client = self._running.enter_context(Client(self.endpoint, spec=spec))

    @property
    def workers(self) -> list[WorkerProcess]:
        """The newest process of each worker of both hosts."""
        return [worker for crew in self._crews for worker in crew.workers()]

    @property
    def far_workers(self) -> list[WorkerProcess]:
        """Those behind the link."""
        return self._crews[1].workers()

    def status(self) -> Status | None:
        """What the coordinator says now; None if it does not answer."""
        try:
            return self.client.status(ANSWER_TIMEOUT_S)
        except Unreachable:
            return None

    def kill_coordinator(self) -> None:
        """SIGKILL; its port is free when this returns."""
        self._coordinator.kill()
        self._coordinator.stop(time.monotonic())

    def restart_coordinator(self) -> None:
        """Another coordinator at the same endpoint, ready when this returns."""
        self._coordinator = self._start_coordinator(self.endpoint)

    def close(self) -> None:
        """End every process."""
        self.link.mend()
        self._running.close()

    def _start_coordinator(self, bind: str) -> Process:
        options = ["coordinator", "--spec", encode_spec(self.spec), "--bind", bind]
        module = LocalCluster.coordinator_module
        coordinator = Process("coordinator", module, options, self._folder, guarded=True)
        try:
            until_s = time.monotonic() + READY_TIMEOUT_S
            self.endpoint = coordinator.announcement(until_s)["endpoint"]
        except BaseException:
            coordinator.stop(time.monotonic())
            raise
        return coordinator


@contextmanager
def two_hosts(spec: ClusterSpec, workers: int) -> Iterator[TwoHosts]:
    """A cluster on two hosts with `workers` workers each, all ready; it ends with the block."""
    with ScratchFolder("two-hosts-") as folder:
        cluster = TwoHosts(spec, workers, Path(folder))
        try:
            yield cluster
        finally:
            cluster.close()


def _stop(process: Process) -> None:
    process.stop(time.monotonic() + STOP_TIMEOUT_S)
