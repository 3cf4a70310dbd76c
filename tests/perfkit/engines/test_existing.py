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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.vocabulary.errors import ClusterError, TaskFailed
from perfkit.bench.workloads.served import model_work
from perfkit.engines import Engine, MissingExtra, make_engine

TIMEOUT_S = 60.0
HERE = Path(__file__).parents[3]
#: Dask's own way to start them on one machine, without its dashboard
SCHEDULER = "distributed.cli.dask_scheduler --host 127.0.0.1 --port 0 --no-dashboard"
WORKER = "distributed.cli.dask_worker --host 127.0.0.1 --no-dashboard --no-nanny --nthreads 2"
Start = Callable[..., subprocess.Popen[bytes]]
Value = Callable[[], Any]


def made(name: str, **options: Any) -> Engine:
    """An engine, or a skipped test where its packages are not installed."""
    try:
        return make_engine(name, **options)
    except MissingExtra as missing:
        pytest.skip(str(missing))


def until(condition: Value) -> Any:
    pause, end_s = threading.Event(), time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < end_s, f"still not so after {TIMEOUT_S} s"
        pause.wait(0.02)
    return found


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
                    env={**os.environ, "PYTHONPATH": str(path), **env},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=(folder / f"{len(list(folder.iterdir()))}.log").open("wb"),
                )
            )
            stack.callback(process.terminate)
            return process

        yield run


class Dask:
    """A scheduler, and workers that are started one by one."""

    def __init__(self, start: Start, folder: Path, **where: Any) -> None:
        self._start = start
        self.file = folder / "scheduler.json"
        self.scheduler = start(f"{SCHEDULER} --scheduler-file {self.file}", **where)
        until(self.file.exists)
        self.address: str = until(lambda: self.file.read_text() and self._facts())["address"]

    def _facts(self) -> Any:
        return json.loads(self.file.read_text())

    def add(self, **where: Any) -> subprocess.Popen[bytes]:
        folder = self.file.parent
        return self._start(
            f"{WORKER} --local-directory {folder} --scheduler-file {self.file}", **where
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


# Ray alone


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


ON_RAY = """
import json, sys
from cluster.vocabulary.errors import ClusterError
from perfkit.engines import make_engine
if __name__ == "__main__":
    try:
        make_engine("ray", address=sys.argv[1], workers=99).start()
    except ClusterError as error:
        print(error)
    for _ in range(2):
        with make_engine("ray", address=sys.argv[1], models=("digits",)) as engine:
            print(engine.submit("echo", b"x").result(60), len(list(engine.map("echo", [b""] * 9))))
    import ray
    ray.init(sys.argv[1], log_to_driver=False)
    print(ray.util.list_named_actors(all_namespaces=True))
"""


@pytest.mark.slow
def test_tasks_run_in_a_ray_that_exists_and_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # Ray's sockets need a short name
    port, agent_port = free_ports(2)
    here = f"127.0.0.1:{port}"
    env = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 2,
    }
    head = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("ray"), "start", "--head", "--block"),
            *("--port", str(port), "--dashboard-agent-listen-port", str(agent_port)),
            *("--num-cpus", "2", "--num-gpus", "0", "--object-store-memory", "100000000"),
            *("--include-dashboard", "false", "--temp-dir", folder),
        ],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        assert head.stdout is not None
        assert any(b"Ray runtime started" in line for line in head.stdout)
        script = tmp_path / "program.py"
        script.write_text(ON_RAY)
        for address in (here, "auto"):
            python = [sys.executable, script, address]
            environ = {**env, "RAY_ADDRESS": here} if address == "auto" else env
            done = subprocess.run(python, env=environ, capture_output=True, text=True, timeout=240)
            *rest, actors = done.stdout.splitlines()
            assert rest == [
                f"the Ray at {address} has 2 CPUs, too few for 99 workers",
                *["b'x' 9"] * 2,
            ], done.stderr
            assert actors == "[]"
        assert head.poll() is None
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(TIMEOUT_S)
        shutil.rmtree(folder)
