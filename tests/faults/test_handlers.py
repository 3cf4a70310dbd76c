"""Whatever handler code does, its task ends with a clear error, and its worker runs the next."""

import os
import textwrap
import threading
from functools import partial

import pytest

from cluster import LocalCluster, Worker
from cluster.vocabulary.errors import ClusterError, TaskFailed
from cluster.work.workloads import HANDLERS

TIMEOUT_S = 20
NASTY = """
    import asyncio, os, signal, sys, time
    from cluster import Handlers

    HANDLERS = Handlers()

    class PanicException(BaseException):
        pass

    class Mute(BaseException):
        def __str__(self):
            raise PanicException

    class Nameless(type):
        @property
        def __name__(cls):
            raise KeyboardInterrupt

    class Odd(Exception, metaclass=Nameless):
        pass

    class Lazy:
        def __len__(self):
            return 1
        def __getitem__(self, at):
            raise PanicException("while it is read")

    class Liar:
        @property
        def __class__(self):
            raise PanicException("while it is asked")

    RAISED = {
        "panic": PanicException("rust"),
        "cancelled": asyncio.CancelledError(),
        "interrupt": KeyboardInterrupt(),
        "exit": SystemExit(0),
        "closed": GeneratorExit(),
        "mute": Mute(),
        "odd": Odd("caf\\udce9"),
        "nameless": type("", (BaseException,), {})("x" * 100_000),
    }

    def released():
        view = memoryview(b"x")
        view.release()
        return view

    GIVEN = {"liar": Liar(), "text": "text", "none": None}

    def answer(payload):
        name = payload.decode()
        if name in RAISED:
            raise RAISED[name]
        if name == "released":
            return released()
        return GIVEN.get(name, payload)

    COLUMNS = {"lazy": Lazy(), "set": {b"a"}, "dict": {b"a": b"b"}, "text": "a", "bytes": b"a"}

    @HANDLERS.register_batch("batch")
    def batch(payloads):
        name = payloads[0].decode()
        if name == "generator":
            return (payload for payload in [b"a", b"b"])
        return COLUMNS[name] if name in COLUMNS else [answer(payload) for payload in payloads]

    HANDLERS.register("single")(answer)
    HANDLERS.register("pid")(lambda payload: b"%d" % os.getpid())

    @HANDLERS.register("fork")
    def fork(payload):
        child = os.fork()
        if not child:
            if payload == b"return":
                return b"the copy's"
            if payload == b"raise":
                raise ValueError("of the copy")
            if payload == b"sleep":
                time.sleep(60)
            sys.exit(int(payload))
        if payload == b"sleep":
            os.kill(child, signal.SIGTERM)
        return b"%d" % os.waitpid(child, 0)[1]
"""
SINGLE = ["panic", "cancelled", "interrupt", "exit", "closed", "mute", "odd", "nameless"]
SINGLE += ["liar", "text", "none", "released"]
BATCH = [*SINGLE, "lazy", "set", "dict", "text", "bytes", "generator"]


@pytest.mark.parametrize("capacity", [1, 2])
def test_every_outcome_ends_its_task_and_the_worker_goes_on(spec, module, capacity):
    handlers = f"{module(NASTY)}:HANDLERS"
    options = {"capacity": capacity, "handlers": handlers}
    with LocalCluster(1, spec, **options) as local, local.client() as client:
        pid = client.submit("pid").result(TIMEOUT_S)
        for kind, names in ("single", SINGLE), ("batch", BATCH):
            for name in names:
                error = client.submit(kind, name.encode()).exception(TIMEOUT_S)
                assert isinstance(error, TaskFailed), (kind, name)
                assert str(error).partition(":")[0], (kind, name)
        mixed = [b"ok", *map(str.encode, SINGLE), b"ok"]
        futures = [client.submit("single", payload) for payload in mixed]
        errors = [future.exception(TIMEOUT_S) for future in futures]
        assert [error is None for error in errors] == [p == b"ok" for p in mixed]
        assert client.submit("pid").result(TIMEOUT_S) == pid
        counters = client.status().counters
        assert "malformed" not in counters
        assert "workers_lost" not in counters


@pytest.mark.parametrize(
    ("payload", "status"),
    [(b"0", 0), (b"7", 7 << 8), (b"return", 0), (b"raise", 1 << 8), (b"sleep", 15)],
)
def test_a_forked_copy_ends_and_only_the_worker_answers(local_nasty, payload, status):
    with local_nasty.client() as client:
        tasks = [client.submit("fork", payload) for _ in range(5)]
        assert [int(task.result(TIMEOUT_S)) for task in tasks] == [status] * 5
        assert client.status().counters["done"] % 5 == 0
        assert "late_results" not in client.status().counters


@pytest.fixture(scope="module")
def local_nasty(spec, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("nasty")
    (folder / "nasty.py").write_text(textwrap.dedent(NASTY))
    patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    with LocalCluster(1, spec, handlers="nasty:HANDLERS") as running:
        yield running
    patch.undo()


@pytest.mark.parametrize("part", ["take", "heartbeat"])
@pytest.mark.parametrize("capacity", [1, 2])
def test_an_error_of_the_worker_itself_ends_it_without_a_goodbye(
    serve, limited, until, monkeypatch, part, capacity
):
    spec = limited(heartbeat_s=0.02, liveness_s=0.3)
    served = serve(HANDLERS, spec, 0)
    worker = Worker(served.coordinator.endpoint, HANDLERS, capacity=capacity, spec=spec)
    ended = []

    def run():
        try:
            worker.run()
        except RuntimeError as error:
            ended.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: served.client.status().workers)

    def fail(*_):
        raise RuntimeError("of the worker itself")

    monkeypatch.setattr(worker._session, part, fail)
    served.client.submit("echo", b"x")
    thread.join(TIMEOUT_S)
    assert ended == ["of the worker itself"]
    status = until(lambda: not (status := served.client.status()).workers and status)
    assert "workers_left" not in status.counters


def test_a_probe_that_lies_does_not_silence_its_worker(serve, limited, until):
    from cluster.vocabulary.task import Load

    class Panic(BaseException):
        pass

    def panic():
        raise Panic

    for probe in (lambda: Load(rss_bytes=-1), lambda: "load", panic):
        client = serve(HANDLERS, limited(heartbeat_s=0.02, liveness_s=0.3), probe=probe).client
        enough = client.status().counters["messages_in"] + 60
        until(partial(hears, client, enough))
        # One that a stalled machine has made miss its liveness is back with its next heartbeat.
        until(partial(shows, client, Load()))
        assert "malformed" not in client.status().counters


def hears(client, messages):
    return client.status().counters["messages_in"] > messages


def shows(client, load):
    return [worker.load for worker in client.status().workers] == [load]


def test_objects_are_refused_where_they_are_packed():
    np = pytest.importorskip("numpy")
    from cluster.models.frames.tensor import pack_tensor

    for array in ([object()], [None], [[1], [2, 3]], np.array([b"x"], dtype=object)):
        with pytest.raises(ClusterError, match="cannot be sent as a tensor"):
            pack_tensor(array)
