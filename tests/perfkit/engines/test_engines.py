"""One contract, every engine: the same tests on this cluster, the pool of processes, Dask and Ray.

An engine is started once for all of these; the last test closes it.
"""

import http.client
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.vocabulary.errors import ClientClosed, ClusterError, TaskFailed
from perfkit.bench.workloads.served import model_work
from perfkit.engines import ENGINES, Engine, MissingExtra, make_engine

TIMEOUT_S = 30.0
WORKERS = 2


def made(name: str, **options: Any) -> Engine:
    """An engine, or a skipped test where its packages are not installed."""
    try:
        return make_engine(name, **options)
    except MissingExtra as missing:
        pytest.skip(str(missing))


Children = Callable[[], list[psutil.Process]]


@pytest.fixture(scope="module")
def engine_children() -> Children:
    """The processes below this one that the engine of this module has started."""
    return started_since()


@pytest.fixture
def children() -> Children:
    """The processes below this one that a test has started; the module's engine may be running."""
    return started_since()


def started_since() -> Children:
    """The processes started below this one since, but for multiprocessing's resource tracker, which
    is started once and ends with this process.
    """
    before = set(psutil.Process().children(recursive=True))

    def started() -> list[psutil.Process]:
        found = set(psutil.Process().children(recursive=True)) - before
        return [one for one in found if "resource_tracker" not in " ".join(one.cmdline())]

    return started


#: Ray takes several seconds of both cores to start.
RUN = [pytest.param(name, marks=[pytest.mark.slow] * (name == "ray")) for name in ENGINES]


#: Its processes take six seconds of a core to start; the module's engine is one.
SLOW_DASK = pytest.param("dask", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=RUN)
def engine(
    request: pytest.FixtureRequest,
    engine_children: Children,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    """Each engine in turn, running, with a model; at its end it waits little for running tasks."""
    tmp_path_factory.getbasetemp()  # else it would be made, and be lost, in a folder of this engine
    # A short name, since Ray puts its sockets there.
    with tempfile.TemporaryDirectory(prefix="t") as own, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", own)
        patch.setattr("perfkit.engines.base.STOP_TIMEOUT_S", 0.5)
        patch.setattr("cluster.local.STOP_TIMEOUT_S", 0.5)
        with made(request.param, workers=WORKERS, models=("digits",)) as running:
            yield running


# Every engine


def test_a_submitted_task_has_a_future_with_its_result(engine: Engine) -> None:
    futures = [engine.submit("echo", b"%d" % number) for number in range(50)]
    assert all(isinstance(future, Future) for future in futures)
    assert [future.result(TIMEOUT_S) for future in futures] == [b"%d" % n for n in range(50)]
    assert engine.submit("noop").result(TIMEOUT_S) == b""
    with pytest.raises(ClusterError, match=f"the {engine.name} engine is running already"):
        engine.start()


@pytest.mark.parametrize("shape", [list, iter])
def test_results_of_a_map_are_distinct_and_in_order(
    engine: Engine, shape: Callable[[list[bytes]], Any]
) -> None:
    payloads = [b"%d" % number for number in range(1_000)]
    assert list(engine.map("echo", shape(payloads))) == payloads
    assert list(engine.map("echo", shape([]))) == []


def test_a_result_that_ends_later_still_comes_in_its_place(engine: Engine) -> None:
    payloads = [b"0.1", *(b"0.0" for _ in range(7))]
    assert list(engine.map("sleep", payloads)) == payloads


def test_an_endless_map_is_read_a_bounded_window_ahead(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.shells.mapping.WINDOW_TASKS", 1_000)
    read = itertools.count()
    results = engine.map("echo", (b"%d" % number for number in read))
    assert list(itertools.islice(results, 20)) == [b"%d" % number for number in range(20)]
    assert next(read) <= 1_100
    results.close()  # type: ignore[attr-defined]
    assert engine.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_large_payloads_come_back_whole(engine: Engine) -> None:
    payloads = [bytes([number]) * (1 << 20) for number in range(4)]
    assert list(engine.map("echo", payloads)) == payloads
    assert engine.submit("echo", payloads[3]).result(TIMEOUT_S) == payloads[3]


def test_a_handler_that_raises_fails_its_task_alone_with_its_message(engine: Engine) -> None:
    with pytest.raises(TaskFailed, match=r"^RuntimeError: on purpose$"):
        engine.submit("fail", b"on purpose").result(TIMEOUT_S)
    results = engine.map("sleep", [b"0", b"0", b"soon", b"0"])
    assert [next(results), next(results)] == [b"0", b"0"]
    with pytest.raises(TaskFailed, match="could not convert string to float"):
        next(results)
    assert engine.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_a_model_answers_as_it_does_in_this_process(engine: Engine) -> None:
    work = model_work("digits", 60, seed=2)
    work.check(list(engine.map("digits", work.payloads)))
    work.part(0, 1).check([engine.submit("digits", work.payloads[0]).result(TIMEOUT_S)])
    with pytest.raises(TaskFailed, match="model 'digits'"):
        engine.submit("digits", b"no picture").result(TIMEOUT_S)


def test_as_many_processes_work_as_were_asked_for(
    engine: Engine, engine_children: Children
) -> None:
    before_s = {one.pid: sum(one.cpu_times()[:2]) for one in engine_children()}
    list(engine.map("spin", [b"0.1"] * 8))
    busy = [one for one in engine_children() if sum(one.cpu_times()[:2]) - before_s[one.pid] > 0.15]
    assert len(busy) == WORKERS


def test_no_process_listens_beyond_loopback(engine: Engine, engine_children: Children) -> None:
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in [psutil.Process(), *engine_children()]
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) <= {"127.0.0.1"}


def test_an_unknown_kind_is_refused_at_once(engine: Engine) -> None:
    for ask in (lambda: engine.submit("ecko"), lambda: engine.map("ecko", [b""])):
        with pytest.raises(
            ClusterError, match=r"no worker offers 'ecko'; .* did you mean 'echo'\?"
        ):
            ask()
    kinds = r"there are digits, digits/1, echo, fail, length, noop, pattern, sleep, spin$"
    with pytest.raises(ClusterError, match=kinds):
        engine.submit("x")


def test_a_payload_that_no_engine_can_carry_is_refused(engine: Engine) -> None:
    with pytest.raises(TypeError, match="a payload is bytes, not str"):
        engine.submit("echo", "x")  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match="one of at most half its size"):
        engine.submit("echo", bytes(40 << 20))


def test_closing_cancels_unfinished_tasks_and_leaves_nothing(
    engine: Engine, engine_children: Children
) -> None:
    futures = [engine.submit("sleep", b"60") for _ in range(5 * WORKERS)]
    results = engine.map("sleep", [b"60"] * 10)
    assert futures[-1].cancel()
    engine.close()
    engine.close()
    for future in futures:
        with pytest.raises((CancelledError, ClientClosed)):
            future.result(TIMEOUT_S)
    with pytest.raises(ClusterError, match="before"):
        next(results)
    assert engine_children() == []
    assert list(Path(tempfile.gettempdir()).glob("perfkit-*")) == []
    for use in (lambda: engine.submit("echo"), lambda: engine.map("echo", [b""])):
        with pytest.raises(ClusterError, match=f"the {engine.name} engine is not running"):
            use()


# Before and after


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_was_not_entered_refuses_tasks(name: str) -> None:
    engine = made(name)
    engine.close()
    with pytest.raises(ClusterError, match=f"the {name} engine is not running; use it in a with"):
        engine.submit("echo")
    with pytest.raises(ClusterError, match=f"the {name} engine can't have 0 workers"):
        made(name, workers=0)


@pytest.mark.parametrize("name", ["local", "zmq", SLOW_DASK])
def test_an_engine_is_started_again_after_it_was_closed(name: str, children: Children) -> None:
    engine = made(name, workers=1)
    for word in (b"once", b"again"):
        with engine:
            assert engine.submit("echo", word).result(TIMEOUT_S) == word
    assert children() == []


@pytest.mark.parametrize(
    "name", ["local", "zmq", SLOW_DASK, pytest.param("ray", marks=pytest.mark.slow)]
)
def test_a_model_that_cannot_be_loaded_is_named(name: str, children: Children) -> None:
    engine = made(name, workers=1, models=("digit",))
    with pytest.raises(ClusterError, match=r"no model 'digit'; did you mean 'digits'\?"):
        engine.start()
    assert children() == []


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ClusterError, match=r"no engine 'x'; there are local, zmq, dask, ray$"):
        make_engine("x")
    with pytest.raises(ClusterError, match=r"did you mean 'dask'\?"):
        make_engine("desk")


# Peers are extras


@pytest.mark.parametrize(
    ("name", "package"), [("dask", "distributed"), ("dask", "cryptography"), ("ray", "ray")]
)
def test_a_missing_extra_says_what_to_install(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"perfkit.engines.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'perfkit\[peers\]'") as missing:
        make_engine(name)
    assert f"the {name} engine is not installed" in str(missing.value)
    assert package in str(missing.value)


def test_peers_are_imported_only_when_their_engine_is_made() -> None:
    program = """
import sys
from perfkit.bench import experiments
from perfkit.engines import make_engine
make_engine("local"), make_engine("zmq")
print(*sys.modules)
"""
    python = [sys.executable, "-c", program]
    loaded = subprocess.run(python, capture_output=True, text=True, check=True).stdout.split()
    assert "perfkit.engines.local" in loaded
    assert {"dask", "distributed", "ray"}.isdisjoint(loaded)


# Single engines


def test_a_pool_worker_that_dies_breaks_the_engine_which_says_so(
    children: Children,
) -> None:
    with made("local", workers=1) as engine:
        future = engine.submit("sleep", b"60")
        (worker,) = children()
        worker.kill()
        with pytest.raises(ClusterError, match="the local engine lost the task: BrokenProcessPool"):
            future.result(TIMEOUT_S)
        with pytest.raises(ClusterError, match="the local engine takes no more tasks"):
            engine.submit("echo")
    with engine:
        assert engine.submit("echo", b"x").result(TIMEOUT_S) == b"x"


PROGRAM = """
import signal, sys
import psutil
from perfkit.engines import base, make_engine
if __name__ == "__main__":
    base.STOP_TIMEOUT_S = 0.2
    with make_engine(sys.argv[1], workers=2) as engine:
        engine.submit("sleep", b"60")
        print(*(one.pid for one in psutil.Process().children(recursive=True)), flush=True)
        signal.pause()
"""


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("local", signal.SIGINT), ("local", signal.SIGKILL), ("dask", signal.SIGKILL)),
        pytest.param("dask", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_program_that_is_interrupted_or_killed_leaves_no_worker(
    name: str, number: int, tmp_path: Path
) -> None:
    made(name)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, script, name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as program:
        assert program.stdout is not None
        pids = [int(word) for word in program.stdout.readline().split()]
        workers = [psutil.Process(pid) for pid in pids]
        program.send_signal(number)
        program.communicate(timeout=TIMEOUT_S)
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, TIMEOUT_S)
    assert alive == []


STRANGER = """
import sys, urllib.error, urllib.request
import distributed
from distributed.security import Security
if __name__ == "__main__":
    port = sys.argv[1]
    plain = f"tcp://127.0.0.1:{port}", Security()
    for address, security in (plain, (f"tls://127.0.0.1:{port}", Security.temporary())):
        try:
            client = distributed.Client(address, security=security, timeout="1s")
        except (OSError, TimeoutError):
            print("refused")
        else:
            print(client.submit(int, "5").result())
"""


def test_dask_works_for_the_holder_of_its_certificate_alone(
    tmp_path: Path, children: Children
) -> None:
    script = tmp_path / "stranger.py"
    script.write_text(STRANGER)
    before = ports([psutil.Process()])
    with made("dask", workers=1) as engine:
        address: str = engine._cluster.scheduler.address  # type: ignore[attr-defined]
        stranger = [sys.executable, script, address.removeprefix("tls://127.0.0.1:")]
        done = subprocess.run(stranger, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.stdout.split() == ["refused", "refused"], done.stderr
        listening = ports([psutil.Process(), *children()]) - before
        plain = {port for port in listening if not refuses_http(port)}
        assert len(listening - plain) >= 3  # scheduler, nanny and worker
        for port in plain:
            assert http_status(port, "/health") == 200
            for path in ("/metrics", "/json/counts.json", "/info/main/workers.html", "/status"):
                assert http_status(port, path) == 404
        assert engine.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def http_status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("GET", path)
    return connection.getresponse().status


def refuses_http(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        try:
            return not connection.recv(4).startswith(b"HTTP")
        except ConnectionResetError:
            return True


def ports(processes: list[psutil.Process]) -> set[int]:
    """The TCP ports that the processes listen at."""
    return {
        connection.laddr.port
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


RAY_STRANGER = """
import os, sys
os.environ["RAY_AUTH_MODE"] = "disabled"
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False)
except ConnectionError:
    print("refused")
"""


@pytest.mark.slow
def test_ray_refuses_a_client_without_its_token_and_keeps_its_sockets_private() -> None:
    with made("ray", workers=1) as engine:
        folder = Path(engine._folder.name)  # type: ignore[attr-defined]
        assert list(folder.iterdir()) == [folder / "r"]
        assert folder.stat().st_mode & 0o777 == 0o700
        address = sys.modules["ray"].get_runtime_context().gcs_address
        python = [sys.executable, "-c", RAY_STRANGER, address]
        done = subprocess.run(python, capture_output=True, text=True, timeout=60)
        assert done.stdout == "refused\n", done.stderr
        assert engine.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_one_process_has_one_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = made("ray")
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.shutdown", lambda: pytest.fail("it is somebody else's"))
    with pytest.raises(ClusterError, match=r"call ray\.shutdown\(\) first"):
        engine.start()


def test_a_ray_that_listens_beyond_loopback_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = made("ray")
    stopped: list[bool] = []
    monkeypatch.setattr("ray.init", lambda *_, **__: None)
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "192.0.2.1")
    monkeypatch.setattr("ray.shutdown", lambda: stopped.append(True))
    with pytest.raises(ClusterError, match=r"Ray would listen at 192\.0\.2\.1: import perfkit"):
        engine.start()
    assert stopped == [True]
