"""An operator looks into a running cluster, cancels, loads models, and has workers leave."""

import asyncio
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
import zmq

from cluster import AsyncClient, Client, ClusterError, Handlers, LocalCluster
from cluster.vocabulary.task import State, TaskId
from cluster.work.workloads import HANDLERS

TIMEOUT_S = 10


# Tasks


def test_tasks_and_their_stories_are_listed_by_state(serve, until):
    served = serve()
    client = served.client
    done = client.submit("echo", b"x")
    assert done.result(TIMEOUT_S) == b"x"
    odd = client.submit("nobody's", b"y")
    (waiting,) = until(lambda: odd.task_id and client.tasks(State.QUEUED))
    assert (waiting.run, waiting.position, waiting.kind) == (*odd.task_id, "nobody's")
    assert waiting.client.startswith(client.name)
    (ended,) = until(lambda: client.tasks("done"))
    assert (ended.state, ended.worker, ended.attempts) == (State.DONE, "w0", 1)
    story = client.story(done.task_id)
    assert [entry.cause for entry in story] == ["accepted", "assigned", "finished"]
    assert story[0].ago_s >= story[-1].ago_s >= 0.0
    with pytest.raises(ClusterError, match="no task 77:1 is known"):
        client.story(TaskId(77, 1))
    with pytest.raises(ClusterError, match="there is no state 'gone'; there are queued, "):
        client.tasks("gone")
    for limit in (0, 1_001):
        with pytest.raises(ClusterError, match=r"the question: .*`limit`"):
            client.tasks(limit=limit)


def test_a_client_asks_over_the_context_that_it_has(serve, monkeypatch):
    served = serve()
    monkeypatch.delattr(zmq, "Context")  # another would start two threads for each question
    assert [worker.worker for worker in served.client.status().workers] == ["w0"]


def test_a_task_of_another_client_is_cancelled_and_its_future_says_by_whom(serve, until):
    end, handlers = threading.Event(), Handlers()
    handlers.register("hold")(lambda _: end.wait(TIMEOUT_S) and b"held")
    served = serve(handlers)
    with Client(served.coordinator.endpoint, name="boss") as operator:
        running, behind, last = (served.client.submit("hold") for _ in range(3))
        until(lambda: operator.tasks(State.ASSIGNED))
        for future in (running, behind):
            until(lambda future=future: future.task_id)
            assert operator.cancel_task(future.task_id) is True
            with pytest.raises(CancelledError, match="cancelled by the operator boss"):
                future.result(TIMEOUT_S)
            assert future.cancelled()
        assert operator.story(running.task_id)[-1].state == State.CANCELLED
        with pytest.raises(ClusterError, match="no task 9:9 is known"):
            operator.cancel_task(TaskId(9, 9))
        end.set()
        assert last.result(TIMEOUT_S) == b"held"


# Models


def test_models_are_loaded_and_unloaded_while_a_worker_runs(serve, until):
    """The worker's side is played: a model is a handler that is there or not."""
    handlers, orders = Handlers(), []
    handlers.update(HANDLERS)
    served = serve(handlers, on_serve=orders.append)
    worker, client = served.crew[0].worker, served.client
    waiting = client.submit("later", b"x")
    assert client.serve_models(load=["later"]).workers[0].wanted == ["later"]
    assert until(lambda: orders) == [["later"]]
    handlers.register("later")(lambda payload: payload * 2)
    worker.offer(handlers.kinds(), ["later"])
    assert waiting.result(TIMEOUT_S) == b"xx"
    assert until(lambda: (w := client.status().workers[0]).models == ["later"] and w).trouble == ""
    client.serve_models(unload=["later"])
    assert until(lambda: orders[1:]) == [[]]
    worker.offer(HANDLERS.kinds(), [], trouble="as it is wanted")
    assert until(lambda: client.status().workers[0].trouble) == "as it is wanted"
    assert "later" not in client.status().workers[0].kinds
    client.submit("later", b"x")
    assert until(lambda: client.tasks(State.QUEUED))[0].kind == "later"
    with pytest.raises(ClusterError, match="as a list of names, not as 'later'"):
        client.serve_models(load="later")
    with pytest.raises(ClusterError, match="'x' can't be both loaded and unloaded"):
        client.serve_models(["x"], ["x"])


def test_what_a_worker_has_not_started_of_a_withdrawn_kind_goes_to_another_worker(serve, until):
    begun, end = threading.Event(), threading.Event()
    handlers = Handlers()

    @handlers.register("hold")
    def hold(payload):
        begun.set()
        assert end.wait(TIMEOUT_S)
        return payload

    served = serve(handlers)
    futures = [served.client.submit("hold", b"%d" % n) for n in range(2)]
    assert begun.wait(TIMEOUT_S)
    until(lambda: all(future.task_id for future in futures))
    served.crew[0].worker.offer(["other"], [])
    until(lambda: served.client.status().workers[0].kinds == ["other"])
    (waiting,) = until(lambda: served.client.tasks(State.QUEUED))
    assert (waiting.run, waiting.position) == futures[1].task_id
    until(lambda: served.client.status().workers[0].held == 1)
    end.set()
    assert futures[0].result(TIMEOUT_S) == b"0"


def test_a_worker_that_loads_no_models_says_so(serve, until):
    served = serve()
    served.client.serve_models(load=["digits"])
    trouble = until(lambda: served.client.status().workers[0].trouble)
    assert trouble == "it can't load or unload models while it runs: digits"


# Workers that leave


@pytest.fixture(scope="module")
def changing(spec):
    """A cluster whose workers these tests have leave."""
    with LocalCluster(2, spec) as running, running.client() as client:
        yield running, client


def test_a_worker_is_restarted_by_its_supervisor_and_loses_nothing(changing):
    cluster, client = changing
    before = {w.worker: w.pid for w in client.status().workers}
    futures = [client.submit("sleep", b"0.01") for _ in range(100)]
    status = client.restart("worker-0")
    after = {w.worker: w.pid for w in status.workers}
    assert after.keys() == before.keys()
    assert after["worker-0"] != before["worker-0"]
    assert after["worker-1"] == before["worker-1"]
    assert [future.result(TIMEOUT_S) for future in futures] == [b"0.01"] * 100
    assert not client.status().counters.keys() & {"worker_deaths", "lost", "kills"}
    assert cluster.crew.trouble == ""


def test_a_restart_that_takes_too_long_says_what_it_waits_for(changing, until, tmp_path):
    cluster, client = changing
    (pid,) = [w.pid for w in client.status().workers if w.worker == "worker-1"]

    def hold(begun: str) -> str:
        Path(begun).touch()
        threading.Event().wait(2.5)
        return begun

    cluster.register(hold)
    files = [str(tmp_path / name) for name in ("one", "another")]
    busy = [client.submit(hold, file) for file in files]
    until(lambda: len([*tmp_path.iterdir()]) == 2)  # a task that has not begun would be given back
    with pytest.raises(ClusterError, match=r"worker 'worker-1' still holds 1 task 0\.5 s after"):
        client.restart("worker-1", timeout=0.5)
    assert [future.result(TIMEOUT_S) for future in busy] == files
    until(lambda: [w for w in client.status().workers if w.worker == "worker-1" and w.pid != pid])


def test_a_drained_worker_finishes_leaves_and_is_not_started_again(changing, until):
    cluster, client = changing
    futures = [client.submit("sleep", b"0.2") for _ in range(6)]
    (drained,) = [w for w in client.drain("worker-1").workers if w.worker == "worker-1"]
    assert drained.draining
    assert [future.result(TIMEOUT_S) for future in futures] == [b"0.2"] * 6
    until(lambda: [w.worker for w in client.status().workers] == ["worker-0"])
    (process,) = [w for w in cluster.workers if w.role == "worker-1"]
    assert process.wait(TIMEOUT_S) == 0
    until(lambda: "worker-1" not in [w.worker for w in client.status().workers])
    with pytest.raises(ClusterError, match="no worker 'worker-9' is here; there are worker-0; did"):
        client.drain("worker-9")
    client.drain("worker-0")
    until(lambda: not client.status().workers)
    with pytest.raises(ClusterError, match="no worker 'worker-0' is here; there is none"):
        client.restart("worker-0")


def test_a_worker_without_a_supervisor_is_drained_and_not_restarted(serve, until):
    served = serve()
    with pytest.raises(ClusterError, match="'w0' has no supervisor"):
        served.client.restart("w0", timeout=0.1)
    served.client.drain("w0")
    served.crew[0].thread.join(TIMEOUT_S)
    assert not served.crew[0].thread.is_alive()


def test_an_asyncio_program_asks_and_orders_the_same(serve):
    served = serve()

    async def operate():
        async with AsyncClient(served.coordinator.endpoint) as client:
            assert await client.submit("echo", b"x") == b"x"
            (task,) = await client.tasks()
            id = TaskId(task.run, task.position)
            assert (await client.story(id))[-1].cause == "finished"
            assert await client.cancel_task(id) is False
            assert (await client.serve_models(["m"])).workers[0].wanted == ["m"]
            with pytest.raises(ClusterError, match="no supervisor"):
                await client.restart("w0", timeout=0.1)
            assert (await client.drain("w0")).workers[0].draining

    asyncio.run(operate())
