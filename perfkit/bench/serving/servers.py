"""The servers under load, each for one model: bare ones, the peers, and this project's own.

Each is a context manager that gives a `Server` once it has answered the first question rightly.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import shutil
import signal
import socket
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from msgspec.structs import replace

from cluster.local import LocalCluster, Process
from cluster.models.inference import BUILT_IN, ModelInfo, ModelRepository
from cluster.models.repository.manifest import MANIFEST
from cluster.scratch import ScratchFolder
from cluster.spec import ClusterSpec, encode_spec
from perfkit.bench.serving.exchange import (
    COARSE_COSINE_MIN,
    COSINE_MIN,
    Questions,
    mistake_of,
)
from perfkit.bench.serving.material import Material
from perfkit.bench.workloads.load import ExperimentError

PEERS_FOLDER = Path(__file__).parent / "peers"
READY_S, STOP_S, ASK_EVERY_S = 90.0, 8.0, 0.1
#: What makes the API's backend for `perfkit serve --engine local`.
LOCAL_BACKEND = "cluster.serve.backends.local:make_backend"
#: Peers that keep a core busy while nothing is asked (litserve: 0.9 of it) stand still while others
#: have their turn. Ray, which takes 0.1, would take its stopped processes for dead ones.
RUNS_ON = "rayserve"
#: The most requests of a batch: what the load has in flight at most.
BATCH_MAX = 64


@dataclass(frozen=True)
class Server:
    """A server that is up: its port, the questions in its own format, and its processes.

    They are `process`, all that it has started, and those with the ids `beside`. `model` describes
    what it serves, where a precision was chosen.
    """

    name: str
    port: int
    questions: Questions = field(repr=False)
    process: Process = field(repr=False)
    pauses: bool = False
    beside: tuple[int, ...] = ()
    model: ModelInfo | None = field(default=None, repr=False)

    @contextmanager
    def its_turn(self) -> Iterator[Server]:
        """The server at work; one that `pauses` stands still before and after."""
        if self.pauses:
            self.signal(signal.SIGCONT)
        yield self
        if self.pauses:
            self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        """Send a signal to all that its process has started, which itself has to stay awake."""
        for one in self._processes()[1:]:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def cpu_s(self) -> float:
        """The processor time of all its processes so far."""
        total_s = 0.0
        for one in self._processes():
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total_s += times.user + times.system
        return total_s

    def _processes(self) -> list[psutil.Process]:
        found = []
        for pid in (self.process.pid, *self.beside):
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(pid)
                found += [root, *root.children(recursive=True)]
        return found


@contextmanager
def bare(about: Material, threads: int = 1, batch_max: int = BATCH_MAX) -> Iterator[Server]:
    """The bare server; with `batch_max` 1 it runs requests one by one."""
    name = "bare" if batch_max > 1 else "bare, unbatched"
    options = [*model_options(about, threads), "--batch-max", str(batch_max)]
    with _running("perfkit.bench.serving.bare_server", options) as process:
        port = int(process.announcement(time.monotonic() + READY_S)["port"])
        yield _answering(name, port, about.oip(), process)


@contextmanager
def ours(
    about: Material,
    spec: ClusterSpec,
    options: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    model: str | None = None,
) -> Iterator[Server]:
    """The API in front of a coordinator and a worker, each a process, with more `options` for it.

    Every question carries the `headers`. The worker serves `model`, a path, instead of the built-in
    one; its vectors may then be coarser.
    """
    with LocalCluster(1, spec, models=(model or about.model,), threads=1) as local:
        questions = replace(
            about.oip(),
            headers={**(headers or {})},
            cosine_min=COSINE_MIN if model is None else COARSE_COSINE_MIN,
        )
        with api(in_front_of(local, options)) as (process, port):
            server = _answering("the API", port, questions, process)
            beside = (local.coordinator_pid, *(worker.pid for worker in local.workers))
            yield dataclasses.replace(server, beside=beside)


@contextmanager
def ours_automatic(about: Material, spec: ClusterSpec) -> Iterator[Server]:
    """The same with the precision that is fastest here and loses at most half a point."""
    with ScratchFolder("automatic-") as folder:
        copy = Path(folder, about.model)
        shutil.copytree(BUILT_IN / about.model, copy)
        with (copy / MANIFEST).open("a") as manifest:
            manifest.write('\nprecision = "auto"\n')
        # Trying them takes longer than a worker may take to start; the choice is remembered.
        info = ModelRepository().load(str(copy), threads=1).describe()
        with ours(about, spec, model=str(copy)) as server:
            yield dataclasses.replace(server, model=info)


def in_front_of(local: LocalCluster, options: Sequence[str] = ()) -> list[str]:
    """The options of an API for a cluster that runs."""
    return ["--endpoint", local.endpoint, "--spec", encode_spec(local.spec), *options]


@contextmanager
def ours_local(about: Material) -> Iterator[Server]:
    """The API with the model in its own process: `perfkit serve --engine local`."""
    options = json.dumps({"models": [about.model], "workers": 1})
    given = ["--engine", LOCAL_BACKEND, "--engine-options", options]
    with api(given) as (process, port):
        yield _answering("engine=local", port, about.oip(), process)


@contextmanager
def api(options: Sequence[str]) -> Iterator[tuple[Process, int]]:
    """The API's process, and its port, once it listens."""
    with _running("cluster.serve", [*options, "--bind", "127.0.0.1:0"]) as process:
        url = process.announcement(time.monotonic() + READY_S)["url"]
        yield process, int(url.rpartition(":")[2])


#: How each peer is asked: the path and the body that its script reads.
FORMATS: Mapping[str, Callable[[Material], Questions]] = {
    "pytriton": Material.oip_rows,
    "mlserver": Material.oip_rows,
    "litserve": lambda about: about.rows_json("/predict"),
    "bentoml": lambda about: about.rows_json("/rows"),
    "rayserve": lambda about: about.rows_json("/rows"),
}


@contextmanager
def peer(
    name: str, python: Path, about: Material, threads: int = 1, batch_max: int = BATCH_MAX
) -> Iterator[Server]:
    """A peer in its own environment. Raises ExperimentError, with its last words, if it fails."""
    port = free_port()
    given = [*model_options(about, threads), "--port", str(port), "--batch-max", str(batch_max)]
    command = [str(python), str(PEERS_FOLDER / f"{name}_server.py")]
    if name == "bentoml":
        serve = ["serve", "bentoml_server:Model", "--host", "127.0.0.1", "--port", str(port)]
        command = [str(python.with_name("bentoml")), *serve, "--working-dir", str(PEERS_FOLDER)]
    settings = [
        f"PEER_OPTIONS={chr(10).join(given)}",
        f"PYTHONPATH={PEERS_FOLDER}",
        f"PATH={python.parent}:/usr/bin:/bin",
        # Triton's stub loads libpython of the version it finds: it has to be this one.
        f"LD_LIBRARY_PATH={sysconfig.get_config_var('LIBDIR')}",
        "RAY_USAGE_STATS_ENABLED=0",
        "BENTOML_DO_NOT_TRACK=1",
    ]
    with _running("perfkit.bench.serving.guarded", ["env", *settings, *command]) as process:
        server = _answering(name, port, FORMATS[name](about), process)
        server = dataclasses.replace(server, pauses=name != RUNS_ON)
        try:
            with server.its_turn():
                pass  # from now on it stands still
            yield server
        finally:
            server.signal(signal.SIGCONT)


def model_options(about: Material, threads: int) -> list[str]:
    """The options of every server that is a script."""
    tokenizer = ["--tokenizer", str(about.tokenizer)] if about.tokenizer else []
    named = ["--name", about.model, "--model", str(about.file), "--threads", str(threads)]
    return [*named, *tokenizer]


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(module: str, options: list[str]) -> Iterator[Process]:
    guarded = module.endswith("guarded")
    with ScratchFolder("server-") as folder:
        process = Process("server", module, options, Path(folder), guarded=guarded)
        try:
            yield process
        finally:
            process.stop(time.monotonic() + STOP_S)


def _answering(name: str, port: int, questions: Questions, process: Process) -> Server:
    """The server, once it has answered the first question.

    Raises ExperimentError if it ends, or is not ready in time, or answers wrongly.
    """
    until_s = time.monotonic() + READY_S
    reason = "no answer"
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise ExperimentError(f"{name} ended while it started{process.last_words()}")
        try:
            status, body = _ask_once(port, questions)
        except OSError as error:
            reason = str(error)
        else:
            if status == 200:
                mistake = mistake_of(
                    body, questions.expected[0], questions.compared, questions.cosine_min
                )
                if mistake is not None:
                    raise ExperimentError(f"{name} answers its first question wrongly: {mistake}")
                return Server(name, port, questions, process)
            reason = f"status {status}: {body[:300].decode('utf-8', 'replace')}"
        time.sleep(ASK_EVERY_S)
    raise ExperimentError(
        f"{name} did not get ready within {READY_S:.0f} s: {reason}{process.last_words()}"
    )


def _ask_once(port: int, questions: Questions) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Content-Type": "application/json", **questions.headers}
        connection.request("POST", questions.path, questions.bodies[0], headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
