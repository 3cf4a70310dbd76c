"""What befalls clients: names used twice, forks, coordinators that go, sources that wait. Nobody
waits without an end, and each error says why.
"""

import asyncio
import gc
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait

import pytest

from cluster import Client, ClusterCoordinator, LocalCluster, Requirements, Worker
from cluster.shells import client_loop, mapping
from cluster.shells.async_client import AsyncClient
from cluster.vocabulary.errors import (
    Busy,
    ClientClosed,
    ClusterError,
    CoordinatorLost,
    Superseded,
    TaskTimedOut,
    Unreachable,
)
from cluster.work.workloads import HANDLERS

TIMEOUT_S = 10


@pytest.fixture
def client(local, spec):
    with Client(local.endpoint, spec=spec) as one:
        yield one


@pytest.fixture
def deserted(spec):
    """The endpoint of a coordinator that is gone."""
    with ClusterCoordinator(spec) as gone:
        return gone.endpoint


# Names


def test_a_named_client_that_is_killed_and_restarted_gets_its_own_results(local, spec):
    program = (
        "import sys; from cluster import Client; from tests.faults.interrupted import SPECS;"
        "c = Client(sys.argv[1], spec=SPECS[sys.argv[2]], name='worker bee');"
        "f = [c.submit('echo', b'old %d' % n) for n in range(50)]; f[0].result(10);"
        "print('ready', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", program, local.endpoint, spec.name]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as older:
        assert older.stdout.readline() == b"ready\n"
        older.kill()
        with Client(local.endpoint, spec=spec, name="worker bee") as newer:
            futures = [newer.submit("echo", b"new %d" % n) for n in range(50)]
            assert [f.result(TIMEOUT_S) for f in futures] == [b"new %d" % n for n in range(50)]


def test_of_two_clients_of_one_name_the_older_is_told(local, spec):
    with (
        Client(local.endpoint, spec=spec, name="twin") as older,
        Client(local.endpoint, spec=spec, name="twin") as newer,
    ):
        waiting = older.submit("sleep", b"5")
        older.status()
        assert newer.submit("echo", b"x").result(TIMEOUT_S) == b"x"
        for future in (waiting, older.submit("echo", b"y")):
            with pytest.raises(Superseded, match="newer client of the same name"):
                future.result(TIMEOUT_S)
        assert newer.submit("echo", b"z").result(TIMEOUT_S) == b"z"
        assert (older.name, newer.name) == ("twin", "twin")


# What can't be meant


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda c: c.map("echo", b"abc"), "one bytes"),
        (lambda c: c.map("echo", "abc"), "one str"),
        (lambda c: c.submit_batch("echo", memoryview(b"abc")), "one memoryview"),
        (lambda c: c.submit(b"echo", b"x"), "kind"),
        (lambda c: c.submit(object(), b"x"), "kind"),
        (lambda c: c.submit("\ud800", b"x"), "kind"),
        (lambda c: c.submit("echo", b"x", timeout_s=object()), "echo"),
        (lambda c: c.submit("echo", b"x", timeout_s=10**400), "echo"),
        (lambda c: c.change_policy(b"adaptive"), "policy"),
        (lambda c: c.change_policy(object()), "question"),
        (lambda c: Client(c.endpoint, name=b"me"), "name"),
        (lambda c: Client(c.endpoint.encode()), "endpoint"),
    ],
)
def test_bytes_for_text_and_what_cannot_be_encoded_fail_their_own_call(client, use, error):
    other = client.submit("echo", b"other")
    with pytest.raises((ClusterError, TypeError), match=error):
        use(client)
    assert other.result(TIMEOUT_S) == b"other"
    assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


# Callbacks


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_a_callback_that_raises_anything_is_logged_and_hurts_nobody(client, until, caplog, error):
    def leave(_):
        raise error

    called = []
    with caplog.at_level(logging.ERROR):
        future = client.submit("sleep", b"0.01")
        future.add_done_callback(leave)
        future.add_done_callback(called.append)
        until(lambda: called)
    assert "a callback of" in caplog.text
    assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_a_client_whose_callback_takes_long_lives_and_gets_its_results(serve, limited):
    served = serve(spec=limited(client_liveness_s=0.8))
    client, go, called = served.client, threading.Event(), threading.Event()

    def hold(_):
        called.set()
        go.wait(TIMEOUT_S)

    client.submit("sleep", b"0.01").add_done_callback(hold)
    assert called.wait(TIMEOUT_S)
    end_s, results = time.monotonic() + 2.0, 0
    while time.monotonic() < end_s:
        futures = client.submit_batch("echo", [b"x"] * 20)
        assert not wait(futures, TIMEOUT_S).not_done
        results += 1
        go.wait(0.05)
    assert results > 5
    assert "clients_lost" not in served.client.status().counters
    go.set()
    assert client.submit("echo", b"y").result(TIMEOUT_S) == b"y"


# Forks


def forked(use):
    """What ``use`` returns in a forked child, as text."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(TIMEOUT_S)
        try:
            answer = str(use())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        answer = told.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return answer


def test_a_forked_child_is_told_that_the_client_is_its_parents(local, client, spec):
    pending = client.submit("sleep", b"1.0")
    for use in (
        pending.result,
        lambda: client.submit("echo", b"x"),
        lambda: client.map("echo", [b"x"]),
        client.status,
    ):
        assert forked(use).startswith("ClientClosed: this client belongs to the process that")
    assert forked(client.close) == "None"

    def anew():
        with Client(local.endpoint, spec=spec) as own:
            return own.submit("echo", b"own").result(TIMEOUT_S)

    assert forked(anew) == "b'own'"
    assert pending.result(TIMEOUT_S) == b"1.0"
    assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_a_forked_child_ends_in_good_order(client):
    child = multiprocessing.get_context("fork").Process(target=gc.collect)
    child.start()
    child.join(TIMEOUT_S)
    assert child.exitcode == 0
    assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


# Ends


def test_what_is_pending_when_a_client_closes_fails_in_words(local, spec):
    client = Client(local.endpoint, spec=spec)
    future = client.submit("sleep", b"5")
    results = client.map("sleep", [b"5"])
    client.close()
    for end in (future.result, lambda: next(results)):
        with pytest.raises(ClientClosed, match="the client was closed before this was done"):
            end()


def test_closing_reaches_a_task_group_as_an_error(local, spec):
    async def use():
        client = AsyncClient(local.endpoint, spec=spec)
        async with asyncio.TaskGroup() as group:
            group.create_task(client.submit("sleep", b"5"))
            await client.status()
            await client.close()

    with pytest.raises(ExceptionGroup) as ended:
        asyncio.run(asyncio.wait_for(use(), TIMEOUT_S))
    assert ended.group_contains(ClientClosed)


def test_a_coordinator_that_is_gone_for_good_is_given_up(deserted, spec):
    with Client(deserted, spec=spec, give_up_s=0.6) as client:
        futures = [client.submit("echo", b"x") for _ in range(3)]
        results = client.map("echo", [b"x"])
        for end in (*(f.result for f in futures), lambda: next(results)):
            with pytest.raises(Unreachable, match=rf"{deserted} has been silent for .*give_up_s"):
                end()
        with ClusterCoordinator(spec, deserted):
            assert client.status().runs == 0


def test_a_time_limit_holds_without_a_coordinator(deserted, spec):
    with Client(deserted, spec=spec) as client:
        futures = [client.submit("echo", b"x", timeout_s=0.1) for _ in range(3)]
        for future in futures:
            with pytest.raises(TaskTimedOut, match=r"timeout_s = 0\.1 s"):
                future.result(TIMEOUT_S)


def test_what_a_restarted_coordinator_lost_is_told_at_once_and_handed_in_again(spec, until):
    with ClusterCoordinator(spec) as first:
        endpoint = first.endpoint
        client = Client(endpoint, spec=spec)
        again = client.submit("echo", b"again", idempotent=True)
        mapped = client.map("echo", [b"a", b"b"], idempotent=True)
        lost = client.map("echo", [b"a", b"b"])
        futures = [client.submit("echo", b"%d" % n) for n in range(5)]
        until(lambda: futures[-1].task_id)  # so all are accepted
    with ClusterCoordinator(spec, endpoint):
        began = time.monotonic()
        for future in futures:
            with pytest.raises(CoordinatorLost, match="lost task") as error:
                future.result(TIMEOUT_S)
            assert error.value.tasks == (future.task_id,)
        with pytest.raises(CoordinatorLost, match="lost tasks"):
            next(lost)
        assert time.monotonic() - began < 4.0
        worker = Worker(endpoint, HANDLERS, name="w", spec=spec)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            assert again.result(TIMEOUT_S) == b"again"
            assert list(mapped) == [b"a", b"b"]
            renewed = client.resubmit([*futures, again])
            results = [future.result(TIMEOUT_S) for future in renewed]
            assert results == [*(b"%d" % n for n in range(5)), b"again"]
            assert renewed[-1] is again
        finally:
            worker.stop()
            thread.join(TIMEOUT_S)
            client.close()


def test_what_a_killed_coordinator_had_accepted_is_told_by_the_next(spec, until):
    with LocalCluster(0, spec) as killed, killed.client() as client:
        future = client.submit("echo", b"x")
        until(lambda: future.task_id)
        killed.coordinator.kill()
        with (
            ClusterCoordinator(spec, killed.endpoint),
            pytest.raises(CoordinatorLost, match="lost task"),
        ):
            future.result(TIMEOUT_S)


# Mapping


def test_a_coordinator_that_is_told_to_stop_lets_running_tasks_end_and_tells_the_clients(
    spec, until
):
    with LocalCluster(1, spec) as one, one.client() as client:
        running = client.submit("sleep", b"1.0")
        until(lambda: running.task_id and client.status().workers[0].held)
        waiting = client.submit("echo", b"x", wait_for_worker=True, requirements=Requirements("m"))
        until(lambda: waiting.task_id)
        one.coordinator.terminate()
        asked = []  # those that it reads before the signal are accepted
        refused = until(lambda: _refusal(client, asked))
        assert "is stopping" in str(refused)
        assert running.result(TIMEOUT_S) == b"1.0"
        with pytest.raises(CoordinatorLost, match="was stopped"):
            waiting.result(TIMEOUT_S)
        assert one.coordinator.wait(TIMEOUT_S) == 0


def _refusal(client, asked):
    asked.append(client.submit("sleep", b"0"))
    errors = (future.exception() for future in asked if future.done())
    return next((error for error in errors if isinstance(error, Busy)), None)


def test_a_payload_that_cannot_be_sent_stops_what_was_handed_in(client, until, spec):
    def source():
        yield from [b"0.05"] * 100
        yield "text"

    for payloads in (source(), [*[b"0.05"] * (spec.burst + 100), "text"]):
        before = client.status().counters["cancelled"]
        with pytest.raises(TypeError, match="not str"):
            list(client.map("sleep", payloads))
        until(lambda before=before: client.status().counters["cancelled"] > before)
        until(lambda: not client.status().runs)


def test_a_source_may_wait_for_results_of_its_own_map(client):
    heard = threading.Semaphore(0)

    def source():
        for n in range(30):
            yield b"%d" % n
            if n % 3 == 2:
                assert heard.acquire(timeout=TIMEOUT_S)
                assert heard.acquire(timeout=TIMEOUT_S)

    results = []
    for result in client.map("echo", source()):
        results.append(result)
        heard.release()
    assert results == [b"%d" % n for n in range(30)]


def test_a_timeout_is_heard_while_the_source_waits(client):
    go = threading.Event()

    def source():
        yield b"x"
        go.wait(TIMEOUT_S)

    results = client.map("echo", source(), timeout=0.3)
    assert next(results) == b"x"
    with pytest.raises(TimeoutError, match=r"0\.3 s"):
        next(results)
    go.set()


def test_a_fast_generator_keeps_its_order(client, monkeypatch):
    monkeypatch.setattr(mapping, "WINDOW_TASKS", 500)
    payloads = [b"%d" % n for n in range(2_000)]
    assert list(client.map("echo", iter(payloads))) == payloads


# Descriptors


def test_a_client_left_to_the_collector_gives_its_thread_and_descriptors_back(local, spec, until):
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        assert Client(local.endpoint, spec=spec).submit("echo", b"x").result(TIMEOUT_S) == b"x"
    gc.collect()
    until(lambda: threading.active_count() <= threads)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert not [loop for loop in client_loop.LOOPS if not loop.closing]


def test_running_out_of_descriptors_is_an_error(local, spec):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, hard))
    try:
        with pytest.raises(ClusterError, match="no descriptors are left"):
            clients.extend(iter(lambda: Client(local.endpoint, spec=spec), None))
        assert len(clients) > 2
        assert clients[0].submit("echo", b"x").result(TIMEOUT_S) == b"x"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in clients:
            one.close()
