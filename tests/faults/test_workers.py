"""Workers come back: a dead one is started again, a hung one is killed, and both are told."""

import os
import signal
import subprocess
import sys

import pytest

from cluster import BASELINE, LocalCluster
from cluster.spec import encode_spec
from cluster.vocabulary.errors import TaskTimedOut
from perfkit.optimized.specs import OPTIMIZED

TIMEOUT_S = 30
HANDLERS = """
    import os, re, time
    from cluster import Handlers

    HANDLERS = Handlers()
    HANDLERS.register("pid")(lambda payload: b"%d" % os.getpid())
    HANDLERS.register("echo")(lambda payload: payload)

    @HANDLERS.register("end")
    def end(payload):
        os._exit(int(payload))

    @HANDLERS.register("hold")
    def hold(payload):
        end = time.monotonic() + float(payload)
        while time.monotonic() < end:
            sum(range(20_000_000))  # holds the interpreter, in C
        return payload

    @HANDLERS.register("hang")
    def hang(payload):
        if payload == b"in C":
            sum(range(10**12))
        while payload == b"in Python":
            pass
        return payload

    @HANDLERS.register("say")
    def say(payload):
        import subprocess, sys
        print("printed", payload.decode(), "\\x1b[31m")
        print("complained", file=sys.stderr)
        subprocess.run(["echo", "a child's"])
        return payload
"""


BOTH = pytest.mark.parametrize(
    "spec", [BASELINE, OPTIMIZED], ids=lambda spec: spec.name, indirect=True
)


@pytest.fixture(scope="module", params=[OPTIMIZED], ids=lambda spec: spec.name)
def spec(request):
    """One spec, where a supervisor deals with processes, of whose spec it knows nothing."""
    return request.param


@pytest.fixture
def handlers(module):
    return f"{module(HANDLERS)}:HANDLERS"


@pytest.mark.parametrize("end", ["from outside", "by a task", "by its exit"])
def test_a_dead_worker_is_started_again_under_its_name(spec, handlers, until, end):
    with LocalCluster(1, spec, handlers=handlers) as local, local.client() as client:
        (old,) = local.workers
        if end == "from outside":
            os.kill(old.pid, signal.SIGKILL)
        else:
            client.submit("end", b"9" if end == "by a task" else b"1")
        (new,) = until(lambda: [w for w in local.workers if w.pid != old.pid])
        assert not old.alive()
        assert int(client.submit("pid").result(TIMEOUT_S)) in {w.pid for w in local.workers}
        assert new.role == old.role
        assert local.crew.restarts >= 1


@BOTH
def test_the_last_worker_of_a_cluster_comes_back_from_a_task_that_buries_itself(spec, handlers):
    with LocalCluster(1, spec, handlers=handlers) as local, local.client() as client:
        bad = client.submit("end", b"9")
        good = [client.submit("echo", b"%d" % n) for n in range(20)]
        assert [task.result(TIMEOUT_S) for task in good] == [b"%d" % n for n in range(20)]
        story = str(bad.exception(TIMEOUT_S))
        assert local.crew.restarts == 3, story
        assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_a_worker_that_leaves_in_order_is_not_started_again(spec, handlers, until):
    with LocalCluster(2, spec, handlers=handlers) as local, local.client() as client:
        local.workers[0].terminate()
        assert local.workers[0].wait() == 0
        until(lambda: len(client.status().workers) == 1)
        assert [worker.alive() for worker in local.workers] == [False, True]
        assert local.crew.restarts == 0
        assert client.status().counters["workers_left"] == 1


def test_the_second_worker_of_a_name_ends_with_the_reason(spec):
    with LocalCluster(1, spec) as local, local.client() as client:
        options = ["--name", "worker-0", "--spec", encode_spec(spec), "--endpoint", local.endpoint]
        second = subprocess.run(
            [sys.executable, "-m", "cluster.process", "worker", "--alone", *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert second.returncode == 2
        assert "refuses worker 'worker-0'" in second.stderr
        assert second.stderr.count("\n") == 1
        assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"
        assert "workers_lost" not in client.status().counters


@pytest.mark.parametrize("how", [b"in C", b"in Python"])
def test_a_hung_task_times_out_and_its_worker_is_back(spec, handlers, until, how):
    with LocalCluster(2, spec, handlers=handlers) as local, local.client() as client:
        hung = client.submit("hang", how, timeout_s=0.5)
        rest = [client.submit("hang", b"no", timeout_s=TIMEOUT_S) for _ in range(20)]
        assert isinstance(hung.exception(TIMEOUT_S), TaskTimedOut)
        assert [task.result(TIMEOUT_S) for task in rest] == [b"no"] * 20
        until(lambda: local.crew.restarts >= 1)
        pids = {worker.pid for worker in local.workers}
        until(lambda: {worker.pid for worker in client.status().workers} == pids)
        status = client.status()
        assert sum(status.queued.values()) == 0
        assert "dead_lettered" not in status.counters


def test_a_handler_that_holds_the_interpreter_for_seconds_keeps_its_worker(spec, handlers):
    with LocalCluster(1, spec, handlers=handlers) as local, local.client() as client:
        assert spec.limits.liveness_s < 1.5
        assert client.submit("hold", b"2").result(TIMEOUT_S) == b"2"
        counters = client.status().counters
        assert "workers_lost" not in counters
        assert local.crew.restarts == 0


def test_what_handlers_print_has_its_worker_and_task(handlers, tmp_path, until):
    log = tmp_path / "logs" / "workers.log"
    options = {"handlers": handlers, "log": log, "show": "warning"}
    with LocalCluster(1, **options) as local, local.client() as client:
        client.submit("say", b"x").result(TIMEOUT_S)
        shown = local.crew.output.readline().decode()
        lines = until(lambda: len(found := log.read_text().splitlines()) == 3 and found)
    assert shown == "worker-0 [1.0] complained\n"
    text = [line.split(maxsplit=2)[2] for line in lines]
    assert sorted(text) == [
        "info    worker-0 [1.0] printed x \\u001b[31m",
        "info    worker-0 a child's",
        "warning worker-0 [1.0] complained",
    ]


def test_a_flood_of_output_reaches_the_file_and_holds_nobody_up(module, tmp_path, until):
    flood = """
        from cluster import Handlers
        HANDLERS = Handlers()

        @HANDLERS.register("flood")
        def flood(payload):
            for _ in range(20_000):
                print("x" * 100)
            print("y" * 100_000, end="")
            return payload
    """
    log = tmp_path / "workers.log"
    options = {"handlers": f"{module(flood, 'flooding')}:HANDLERS", "log": log, "show": "info"}
    with LocalCluster(1, **options) as local, local.client() as client:
        assert client.submit("flood", b"x").result(TIMEOUT_S) == b"x"
        until(lambda: log.stat().st_size > 20_000 * 130 + 90_000)


@BOTH
def test_a_worker_works_for_the_coordinator_that_takes_the_place_of_a_killed_one(spec):
    payloads = [b"%d" % number for number in range(100)]
    with LocalCluster(1, spec) as local, local.client() as client:
        for payload in payloads:  # each under a lease of its own, which the worker remembers
            assert client.submit("echo", payload).result(TIMEOUT_S) == payload
        local.coordinator.kill()
        with LocalCluster(0, spec, bind=local.endpoint):
            assert list(client.map("echo", payloads, timeout_s=TIMEOUT_S)) == payloads
