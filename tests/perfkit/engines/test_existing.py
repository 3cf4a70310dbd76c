"""Engines work on clusters that run already, which go on when an engine is closed.

The schedulers and workers are processes that these tests start, as their users would.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cluster.vocabulary.errors import ClusterError, TaskFailed
from perfkit.bench.workloads.served import model_work
from perfkit.engines import Engine, MissingExtra, make_engine
from tests.waiting import until

TIMEOUT_S = 60.0
HERE = Path(__file__).parents[3]
#: Dask's own way to start them on one machine, without its dashboard
SCHEDULER = "distributed.cli.dask_scheduler --host 127.0.0.1 --port 0 --no-dashboard"
WORKER = "distributed.cli.dask_worker --host 127.0.0.1 --no-dashboard --no-nanny --nthreads 2"
Start = Callable[..., subprocess.Popen[bytes]]


def made(name: str, **options: Any) -> Engine:
    """An engine, or a skipped test where its packages are not installed."""
    try:
        return make_engine(name, **options)
    except MissingExtra as missing:
        pytest.skip(str(missing))


def environment(path: Path = HERE, **more: str) -> dict[str, str]:
    """This process's environment, for one that imports from the folder ``path`` first."""
    paths = filter(None, (str(path), os.environ.get("PYTHONPATH")))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start modules as processes, which end with this module's tests."""
    folder = tmp_path_factory.mktemp("processes")
    with ExitStack() as stack:

        def run(module: str, *more: str, path: Path = HERE, **env: str) -> Any:
            command = [sys.executable, "-P", "-m", *module.split(), *more]
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment(path, **env),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=(folder / f"{len(list(folder.iterdir()))}.log").open("wb"),
                )
            )
            stack.callback(process.terminate)
            return process

        yield run


class Dask:
    """A scheduler, and workers that are started one by one; each gets the ``options``."""

    def __init__(
        self, start: Start, folder: Path, options: tuple[str, ...] = (), **where: Any
    ) -> None:
        self._start = start
        self._options = options
        self.file = folder / "scheduler.json"
        self.scheduler = start(f"{SCHEDULER} --scheduler-file {self.file}", *options, **where)
        until(self.file.exists)
        self.address: str = until(lambda: self.file.read_text() and self._facts())["address"]

    def _facts(self) -> Any:
        return json.loads(self.file.read_text())

    def add(self, **where: Any) -> subprocess.Popen[bytes]:
        folder = self.file.parent
        return self._start(
            f"{WORKER} --local-directory {folder} --scheduler-file {self.file}",
            *self._options,
            **where,
        )


@pytest.fixture(scope="module")
def dask(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Dask:
    """A Dask scheduler with a worker of two threads."""
    pytest.importorskip("distributed")
    cluster = Dask(start, tmp_path_factory.mktemp("dask"))
    cluster.add()
    return cluster


@pytest.fixture(scope="module")
def zmq(start: Start) -> str:
    """The endpoint of a coordinator with a worker that serves a model."""
    coordinator = start("cluster.process coordinator --alone")
    assert coordinator.stdout is not None
    endpoint: str = json.loads(coordinator.stdout.readline())["endpoint"]
    worker = start(f"cluster.process worker --alone --model digits --endpoint {endpoint}")
    assert worker.stdout is not None
    assert worker.stdout.readline()
    return endpoint


@pytest.fixture(params=["zmq", "dask"])
def there(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The name of an engine, and the address of its cluster that exists."""
    found = request.getfixturevalue(request.param)
    return request.param, found.address if request.param == "dask" else found


@contextmanager
def entered(name: str, address: str, **options: Any) -> Iterator[Engine]:
    """A running engine, once its cluster has a worker."""

    def enter() -> Engine | None:
        try:
            return made(name, address=address, **options).start()
        except ClusterError as error:
            if "has no worker" not in str(error):
                raise
            return None

    with closing(until(enter)) as engine:
        yield engine


def test_tasks_and_models_run_on_a_cluster_that_exists_and_goes_on(there: tuple[str, str]) -> None:
    for _ in range(2):
        with entered(*there, models=("digits",)) as engine:
            assert engine.submit("echo", b"x").result(TIMEOUT_S) == b"x"
            payloads = [b"%d" % number for number in range(500)]
            assert list(engine.map("echo", payloads)) == payloads
            work = model_work("digits", 20, seed=2)
            work.check(list(engine.map("digits", work.payloads)))
            with pytest.raises(TaskFailed, match=r"^RuntimeError: on purpose$"):
                engine.submit("fail", b"on purpose").result(TIMEOUT_S)
            with pytest.raises(ClusterError, match="no worker offers 'ecko'"):
                engine.submit("ecko")
            assert engine.workers == (1 if there[0] == "zmq" else 2)
            waiting = engine.submit("sleep", b"1.5")
        assert waiting.done()


def test_a_model_that_is_not_there_is_named(there: tuple[str, str]) -> None:
    with pytest.raises(ClusterError, match="'digit'"), entered(*there, models=("digit",)):
        pass
    with entered(*there) as engine:
        assert engine.submit("echo", b"x").result(TIMEOUT_S) == b"x"


# Addresses


@pytest.mark.parametrize(
    ("name", "address", "complaint"),
    [
        ("local", "tcp://127.0.0.1:1", "the local engine has no address"),
        ("zmq", "127.0.0.1:5577", "no address of the zmq engine; give a coordinator's endpoint"),
        ("dask", "127.0.0.1:8786", "no address of the dask engine; give a scheduler's, as tcp:"),
        ("ray", "tcp://127.0.0.1:6379", "no address of the ray engine; give that of Ray's head"),
        ("ray", "head", "'head' is no address"),
    ],
)
def test_an_address_of_another_kind_is_refused(name: str, address: str, complaint: str) -> None:
    with pytest.raises(ClusterError, match=complaint):
        made(name, address=address)


@pytest.mark.parametrize(
    ("name", "address", "complaint"),
    [
        ("dask", "tcp://127.0.0.1:1", "no Dask scheduler answers at tcp://127.0.0.1:1: "),
        ("ray", "127.0.0.1:1", "no Ray answers at 127.0.0.1:1: "),
        ("ray", "ray://[::1]:1", "no Ray answers at ray://[::1]:1: "),
    ],
)
def test_an_address_where_nobody_answers_is_named(
    name: str, address: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = made(name, address=address)
    monkeypatch.setattr(f"perfkit.engines.{name}.CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(ClusterError, match=f"^{re.escape(complaint)}"):
        engine.start()


# Dask alone


def test_a_dask_worker_that_joins_later_is_prepared_and_used_until_it_goes(dask: Dask) -> None:
    with entered("dask", dask.address) as engine:
        second = dask.add()
        until(lambda: engine.workers == 4)
        assert list(engine.map("sleep", [b"0.01"] * 40)) == [b"0.01"] * 40
        second.terminate()
        until(lambda: engine.workers == 2)
        assert list(engine.map("echo", [b"x"] * 40)) == [b"x"] * 40


@pytest.fixture
def without_perfkit(tmp_path: Path) -> dict[str, Any]:
    """Where a process starts that can't import perfkit."""
    (tmp_path / "perfkit.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'perfkit'\", name='perfkit')"
    )
    return {"path": tmp_path}


@pytest.mark.slow
def test_dask_processes_that_cannot_import_perfkit_are_named(
    start: Start, without_perfkit: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("distributed")
    for role, scheduler, worker in (
        ("worker", {}, without_perfkit),
        ("scheduler", without_perfkit, {}),
    ):
        (folder := tmp_path / role).mkdir()
        cluster = Dask(start, folder, **scheduler)
        cluster.add(**worker)
        missing = r"can't import .*No module named 'perfkit'.*; install there"
        complaint = rf"the Dask {role} at tcp://.* {missing}"
        with pytest.raises(ClusterError, match=complaint), entered("dask", cluster.address):
            pass


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    """A certificate that is its own authority, and its key: the paths, by Dask's names of roles."""
    security = pytest.importorskip("distributed.security").Security.temporary()
    paths = {}
    for name in ("ca_file", "scheduler_cert", "scheduler_key"):
        path = paths[name] = tmp_path / f"{name}.pem"
        path.write_text(getattr(security, f"tls_{name}"))
    return {name.removeprefix("scheduler_"): str(path) for name, path in paths.items()}


def tls_settings(certificate: dict[str, str]) -> dict[str, str]:
    """What a client of Dask sets in its configuration."""
    parts = {"ca-file": "ca_file", "client.cert": "cert", "client.key": "key"}
    return {f"distributed.comm.tls.{part}": certificate[key] for part, key in parts.items()}


def test_a_tls_address_without_certificates_says_which_to_set(certificate: dict[str, str]) -> None:
    dask = pytest.importorskip("dask")
    with pytest.raises(ClusterError, match=r"wants certificates.*TLS__CA_FILE, .*CLIENT__KEY"):
        made("dask", address="tls://127.0.0.1:1").start()
    with (
        dask.config.set({**tls_settings(certificate), "distributed.comm.tls.ca-file": "/nowhere"}),
        pytest.raises(ClusterError, match=r"a certificate in Dask's .* can't be read: .*No such"),
    ):
        made("dask", address="tls://127.0.0.1:1").start()


@contextmanager
def serving(start: Start, *options: str, **env: str) -> Iterator[str]:
    """``perfkit serve`` with a model, told from the shell to use another engine: its address."""
    pytest.importorskip("tritonclient.http")
    api = start("perfkit serve --model digits --port 0 --json", *options, **env)
    assert api.stdout is not None
    yield json.loads(api.stdout.readline())["url"].removeprefix("http://")
    api.send_signal(signal.SIGTERM)
    assert api.wait(TIMEOUT_S) == 0


def check_digits(address: str) -> None:
    """Have tritonclient ask for digits."""
    triton = pytest.importorskip("tritonclient.http")
    pixels = triton.InferInput("pixels", [2, 64], "FP32")
    pixels.set_data_from_numpy(np.zeros((2, 64), np.float32))
    with triton.InferenceServerClient(address) as client:
        answer = client.infer("digits", [pixels]).as_numpy("probabilities")
    assert answer.shape == (2, 10)
    assert answer.sum(axis=1) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_the_api_serves_from_a_dask_that_speaks_tls_and_goes_on(
    start: Start, certificate: dict[str, str], tmp_path: Path
) -> None:
    flags = {"ca_file": "--tls-ca-file", "cert": "--tls-cert", "key": "--tls-key"}
    options = [word for key, flag in flags.items() for word in (flag, certificate[key])]
    cluster = Dask(start, tmp_path, ("--protocol", "tls", *options))
    worker = cluster.add()
    assert cluster.address.startswith("tls://")
    settings = tls_settings(certificate)
    with (
        pytest.importorskip("dask").config.set(settings),
        entered("dask", cluster.address) as engine,
    ):
        assert list(engine.map("echo", [b"x"] * 40)) == [b"x"] * 40
    names = str.maketrans({".": "__", "-": "_"})
    env = {f"DASK_{key.translate(names).upper()}": path for key, path in settings.items()}
    with serving(start, "--engine", "dask", "--address", cluster.address, **env) as address:
        check_digits(address)
    assert cluster.scheduler.poll() is worker.poll() is None


# Ray alone


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


ON_RAY = """
import sys
from cluster.vocabulary.errors import ClusterError
from perfkit.engines import make_engine
if __name__ == "__main__":
    here, *others = sys.argv[1:]
    try:
        make_engine("ray", address=here, workers=99).start()
    except ClusterError as error:
        print(error)
    for address in here, *others:
        with make_engine("ray", address=address, models=("digits",)) as engine:
            print(engine.submit("echo", b"x").result(60), len(list(engine.map("echo", [b""] * 9))))
    import ray
    ray.init(here, log_to_driver=False)
    print(ray.util.list_named_actors(all_namespaces=True))
"""


@dataclass
class Ray:
    """A head of Ray with two CPUs, its addresses, and what a process sets that joins it."""

    process: psutil.Popen
    addresses: list[str]
    settings: dict[str, str]


@pytest.fixture(scope="module")
def ray_head() -> Iterator[Ray]:
    """A Ray that exists; all its processes have ended afterwards."""
    pytest.importorskip("ray")
    port, agent_port, client_port = free_ports(3)
    addresses, client_options = [f"127.0.0.1:{port}"], []
    if find_spec("grpc") is not None:  # of the extra ray[client]
        addresses.append(f"ray://127.0.0.1:{client_port}")
        client_options = ["--ray-client-server-port", str(client_port)]
    settings = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 2,
    }
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # Ray's sockets need a short name
    head = psutil.Popen(
        [
            *(Path(sys.executable).with_name("ray"), "start", "--head", "--block"),
            *("--port", str(port), "--dashboard-agent-listen-port", str(agent_port)),
            *("--num-cpus", "2", "--num-gpus", "0", "--object-store-memory", "100000000"),
            *("--include-dashboard", "false", "--include-log-monitor", "false"),
            *("--temp-dir", folder, *client_options),
        ],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        told = b""
        for line in head.stdout:  # until it ends or is ready
            told += line
            if b"Ray runtime started" in line:
                break
        assert b"Ray runtime started" in told, told.decode()
        yield Ray(head, addresses, settings)
    finally:
        family = [*head.children(recursive=True), head]
        head.terminate()
        _, left = psutil.wait_procs(family, TIMEOUT_S)
        for process in left:
            process.kill()
        shutil.rmtree(folder)
    assert left == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_tasks_run_in_a_ray_that_exists_and_goes_on(ray_head: Ray) -> None:
    here, *others = ray_head.addresses
    addresses = [here, "auto", *others]
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY, *addresses],
        env=environment(RAY_ADDRESS=here, **ray_head.settings),
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        f"the Ray at {here} has 2 CPUs, too few for 99 workers",
        *["b'x' 9" for _ in addresses],
        "[]",
    ], done.stderr
    assert ray_head.process.poll() is None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_api_serves_from_a_ray_that_exists_and_goes_on(ray_head: Ray, start: Start) -> None:
    here = ray_head.addresses[0]
    with serving(start, "--engine", "ray", "--address", here, **ray_head.settings) as api:
        check_digits(api)
    assert ray_head.process.poll() is None
