"""Functions of this program on the workers of its cluster, which are processes of their own: they
are called like those of concurrent.futures, replaced while the cluster runs, and never run as they
were before.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from concurrent.futures import as_completed, wait
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cluster import Client, ClusterError, Handlers, LocalCluster, TaskFailed
from perfkit.optimized.specs import OPTIMIZED

TIMEOUT_S = 20


def square(x):
    return x * x


def pid(_=None):
    return os.getpid()


def divide(x, y):
    return x / y


def hold(path, name, seconds=20.0):
    """Say that it runs, and wait until the file is gone."""
    with open(path, "a") as file:
        file.write(name)
    pause, end_s = threading.Event(), time.monotonic() + seconds
    while os.path.exists(path) and time.monotonic() < end_s:
        pause.wait(0.01)
    return name


@pytest.fixture(scope="module")
def local():
    with LocalCluster(2, OPTIMIZED, handlers=[square, pid, divide, hold]) as running:
        yield running


@pytest.fixture(scope="module")
def client(local):
    return local.client()


def version(number):
    """A function of one name that is another one each time, and leaves half a line of output."""

    def versioned(path=None):
        os.write(1, b"half a line")
        return number if path is None else [number, hold(path, "x")]

    return versioned


# Calls


def test_a_function_is_called_by_itself_or_by_its_name_with_any_plain_data(local, client):
    assert client.submit(square, 7).result(TIMEOUT_S) == 49
    assert client.submit("square", 1.5).result(TIMEOUT_S) == 2.25
    assert client.submit(pid).result(TIMEOUT_S) in {worker.pid for worker in local.workers}
    assert list(client.map(square, range(3_000))) == [x * x for x in range(3_000)]
    assert list(client.map(divide, [6, 8], (x for x in (2, 4, 9)))) == [3, 2]
    assert list(client.map(square, [])) == []
    futures = client.submit_batch(square, (x for x in [2, 3]))
    assert [future.result(TIMEOUT_S) for future in futures] == [4, 9]
    table = np.arange(200_000, dtype=np.float32).reshape(2, -1)  # large enough to travel uncopied
    future = client.submit(square, table)
    assert (future.result(TIMEOUT_S) == table * table).all()
    assert future.result() is future.result()


def test_a_future_of_a_call_is_one_of_concurrent_futures(client):
    futures = [client.submit(square, x) for x in range(20)]
    assert sorted(f.result() for f in as_completed(futures, TIMEOUT_S)) == [
        x * x for x in range(20)
    ]
    seen = threading.Event()
    futures[0].add_done_callback(lambda future: seen.set() if future.result() == 0 else None)
    assert seen.wait(TIMEOUT_S)
    failed = client.submit(divide, 1, 0)
    assert wait([failed], TIMEOUT_S).done == {failed}
    assert isinstance(failed.exception(), TaskFailed)


def test_an_asyncio_client_calls_functions_too(local):
    async def calls():
        async with local.async_client() as client:
            results = [x async for x in client.map(divide, range(4), [2] * 4)]
            return [await client.submit(square, 3), await client.submit("square", 4), results]

    assert asyncio.run(calls()) == [9, 16, [0, 0.5, 1, 1.5]]


def test_a_failure_names_the_error_and_has_the_workers_traceback_as_a_note(client):
    with pytest.raises(TaskFailed, match="ZeroDivisionError") as failed:
        client.submit(divide, 1, 0).result(TIMEOUT_S)
    assert str(failed.value) == "ZeroDivisionError: division by zero"
    (note,) = failed.value.__notes__
    assert note.startswith("Raised in the worker:\nTraceback (most recent call last):\n")
    assert "in divide\n    return x / y" in note
    results = client.map(divide, [4, 1, 1], [2, 0, 1])
    assert next(results) == 2
    with pytest.raises(TaskFailed, match="division") as failed:
        next(results)
    assert "in divide" in failed.value.__notes__[0]
    with pytest.raises(TaskFailed, match=r"TypeError: divide\(\) missing 1 required") as failed:
        client.submit(divide, 1).result(TIMEOUT_S)


def test_what_is_not_plain_data_is_an_error_here_for_items_and_there_for_results(local, client):
    with pytest.raises(TypeError, match="square: argument 1 is not plain data but set"):
        client.submit(square, {1})
    with pytest.raises(TypeError, match="square: argument 1 is not plain data but object"):
        list(client.map(square, [1, object()]))
    with pytest.raises(TypeError, match="not iterable"):
        client.map(square, 3)
    local.register(lambda: {1}, "a_set")
    with pytest.raises(TaskFailed, match="TypeError: the result is not plain data but set"):
        client.submit("a_set").result(TIMEOUT_S)
    with pytest.raises(ClusterError, match="at most half its size"):
        client.submit(square, bytes(client.spec.limits.message_bytes))


def test_another_client_can_call_nothing_by_mistake(local):
    with Client(local.endpoint) as stranger:
        with pytest.raises(ClusterError, match=r"square is not registered: cluster.register"):
            stranger.submit(square, 3)
        with pytest.raises(TaskFailed, match="is no call of it; use"):
            stranger.submit("square", b"3").result(TIMEOUT_S)


def test_a_handler_of_bytes_takes_one_payload(client):
    with pytest.raises(TypeError, match="a task of kind 'echo' takes one payload, not 2"):
        client.submit("echo", b"x", b"y")
    with pytest.raises(TypeError, match="handlers take payloads of one source, not of 2"):
        client.map("echo", [b"x"], [b"y"])


# Registering


def test_a_function_is_replaced_on_every_worker_and_the_old_one_is_refused(local, client):
    first, second = version(1), version(2)
    assert local.register(first) is first
    everywhere = [{client.submit(first).result(TIMEOUT_S) for _ in range(20)}]
    with pytest.raises(ClusterError, match=r"cluster.register\(versioned\) sends it as it is now"):
        client.submit(second)
    local.register(second)
    everywhere += [set(client.map("versioned", *[[None] * 200]))]
    assert everywhere == [{1}, {2}]
    with pytest.raises(ClusterError, match="was changed here"):
        client.map(first, [None])


def test_a_file_that_a_function_imports_when_it_is_called_is_taken_as_it_is_now(
    local, client, module
):
    def importing():
        import handlers_of_this_test

        return handlers_of_this_test.NUMBER

    module("NUMBER = 1")
    local.register(importing)
    assert client.submit(importing).result(TIMEOUT_S) == 1
    name = module("NUMBER = 1_000")
    with pytest.raises(ClusterError, match=f"before '{name}', which it uses, was changed here"):
        client.submit(importing)
    local.register(importing)
    assert {client.submit(importing).result(TIMEOUT_S) for _ in range(20)} == {1_000}
    assert client.submit(square, 3).result(TIMEOUT_S) == 9


def test_tasks_that_run_end_with_the_code_they_began_with(local, client, tmp_path, until):
    local.register(version(1))
    path = tmp_path / "held"
    running = client.submit("versioned", str(path))
    until(path.exists)
    local.register(version(2))
    assert client.submit("versioned").result(TIMEOUT_S) == 2
    path.unlink()
    assert running.result(TIMEOUT_S) == [1, "x"]


def test_a_worker_that_is_started_again_has_the_newest_functions(client, local, until):
    local.register(version(1))
    local.register(version(7))
    local.workers[0].kill()
    new = local.restart_worker(local.workers[0])
    until(lambda: client.submit(pid).result(TIMEOUT_S) == new.pid)
    assert set(client.map("versioned", [None] * 100)) == {7}
    assert client.submit(square, 3).result(TIMEOUT_S) == 9


def test_what_a_worker_cannot_load_leaves_the_old_function_in_place(
    local, client, monkeypatch, until
):
    local.register(version(1))
    absent = ModuleType("absent_here")
    monkeypatch.setitem(sys.modules, "absent_here", absent)

    def versioned():
        return absent

    with pytest.raises(ClusterError, match="can't be loaded in a worker: ModuleNotFoundError: No"):
        local.register(versioned)
    with pytest.raises(ClusterError, match=r"can't travel .* 'it' is a lock"):
        local.register(partial_of(threading.Lock()))
    with pytest.raises(ClusterError, match=r"worker-\d dies when it loads them, with code 3"):
        local.register(partial_of(Fatal()))
    assert client.submit("versioned").result(TIMEOUT_S) == 1
    local.register(version(2))
    until(lambda: all(worker.alive() for worker in local.workers))
    assert client.submit("versioned").result(TIMEOUT_S) == 2


class Fatal:
    """As a package does that crashes when it is imported."""

    def __reduce__(self):
        return exec, ("import os; os._exit(3)",)  # coverage has an os._exit that can't travel


def partial_of(it):
    def versioned():
        return it

    return versioned


def test_a_registry_of_handlers_of_bytes_is_sent_and_sent_again(local, client):
    handlers = Handlers()
    handlers.register("shout")(lambda payload: bytes(payload).upper())
    handlers.register_batch("count")(lambda payloads: [b"%d" % len(x) for x in payloads])
    local.register(handlers)
    assert client.submit("shout", b"abc").result(TIMEOUT_S) == b"ABC"
    assert list(client.map("count", [b"", b"xy"])) == [b"0", b"2"]
    handlers.register("shout")(lambda payload: b"!")
    local.register(handlers)
    assert client.submit("shout", b"abc").result(TIMEOUT_S) == b"!"


def test_a_suspended_worker_is_named_and_the_old_function_stays(local, client, monkeypatch, until):
    local.register(version(1))
    monkeypatch.setattr("cluster.local.REGISTER_TIMEOUT_S", 0.3)
    local.workers[1].suspend()
    threads = [*Path(f"/proc/{local.workers[1].pid}/task").glob("*/stat")]
    try:
        until(lambda: all(") T " in thread.read_text() for thread in threads))
        with pytest.raises(ClusterError, match="no answer in time from worker-1; is it stuck"):
            local.register(version(2))
    finally:
        local.workers[1].resume()
    assert set(client.map("versioned", [None] * 50)) == {1}


# In a notebook


def test_an_interrupt_of_a_map_cancels_it_and_leaves_the_cluster_usable(
    local, client, tmp_path, until
):
    path = tmp_path / "held"

    def interrupt():
        until(path.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(client.map(hold, [str(path)] * 100, "x" * 100))
    thread.join()
    until(lambda: not sum(client.status().queued.values()))
    path.unlink()
    assert client.submit(square, 3).result(TIMEOUT_S) == 9


def test_what_a_notebook_shows_is_short_and_escaped(local, client):
    local.register(lambda: 1, "<b>")
    assert repr(local).startswith(f"<LocalCluster optimized at {local.endpoint}: 2 of 2 workers ")
    assert repr(client) == f"<Client of {local.endpoint} (optimized): open>"
    assert repr(local.workers[0]) == f"<WorkerProcess worker-0, pid {local.workers[0].pid}: alive>"
    status = local.status()
    assert str(status).startswith("2 workers; tasks: 0 queued, ")
    assert repr(status) == f"<Status: {status}>"
    for shown in (local, client, status):
        html = shown._repr_html_()
        assert html.startswith("<table><caption>")
        assert "<b>" not in html
        assert not {"<script", "http"} & {html[at : at + 7] for at in range(len(html))}
    assert "&lt;b&gt;" in local._repr_html_()
    assert repr(LocalCluster(3)) == "<LocalCluster baseline, 3 workers: not running>"


def test_a_cluster_without_its_block_says_so_and_has_its_functions_again_when_it_starts():
    local = LocalCluster(0, handlers={"double": lambda x: 2 * x})
    with pytest.raises(ClusterError, match=r"not running; use it in a with block, or call start\("):
        local.register(square)
    with local:
        local.register(square)
        local.add_worker()
        client = local.client()
        assert client.submit("double", 4).result(TIMEOUT_S) == 8
        assert [worker.kinds for worker in local.status().workers] == [["double", "square"]]
    with pytest.raises(ClusterError, match="this client is closed"):
        client.submit(square, 3)
    assert repr(client).endswith(": closed>")
    with local.start() and local.client() as client:
        local.add_worker()
        assert client.submit(square, 4).result(TIMEOUT_S) == 16
    local.stop()
    with pytest.raises(ClusterError, match="'digits' is a model of this cluster"):
        LocalCluster(0, handlers={"digits": partial(square)}, models=["digits"])
