"""What a program sees of the cluster through its client: results, errors that say why, and no wait
without an end.
"""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress

import pytest
import zmq
from msgspec.structs import replace

from cluster import (
    BASELINE,
    Busy,
    Client,
    ClusterCoordinator,
    ClusterSpec,
    Handlers,
    LocalCluster,
    Priority,
    Requirements,
    Retry,
)
from cluster.shells.futures import TaskFuture
from cluster.spec import DEFAULT_ENDPOINT, load_codec
from cluster.transport.hello import HELLO
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import (
    ClientClosed,
    ClusterError,
    ProtocolError,
    TaskFailed,
    TaskTimedOut,
    Unreachable,
)
from cluster.vocabulary.task import Backoff
from perfkit.optimized.specs import OPTIMIZED

TIMEOUT_S = 10
BURSTY = ClusterSpec(name="bursty", burst=100)
STUDIED = [BASELINE, OPTIMIZED, BURSTY]


class Gate(Handlers):
    """Handlers that record what they run; ``hold`` waits until the gate is opened."""

    def __init__(self):
        super().__init__()
        self.ran = []
        self.started = threading.Event()
        self.opened = threading.Event()
        self.register("echo")(self.echo)
        self.register("hold")(self.hold)
        self.register("mixed")(self.mixed)
        self.register("flaky")(self.flaky)

    def echo(self, payload):
        self.ran.append(payload)
        return payload

    def hold(self, payload):
        self.ran.append(payload)
        self.started.set()
        assert self.opened.wait(TIMEOUT_S)
        return payload

    def mixed(self, payload):
        """Does what the payload says."""
        if payload == b"bad":
            raise ValueError("bad")
        return self.hold(payload) if payload == b"held up" else self.echo(payload)

    def flaky(self, payload):
        """Fails as often as the payload says."""
        self.ran.append(payload)
        if self.ran.count(payload) <= int(payload):
            raise ValueError(f"attempt {self.ran.count(payload)}")
        return payload


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture(scope="module", params=STUDIED, ids=lambda spec: spec.name)
def spec(request):
    """The specs under study, and the plain parts with many tasks in a message."""
    return request.param


@pytest.fixture
def busy(serve, gate):
    """A cluster whose only worker is held up by a task."""
    served = serve(gate)
    served.first = served.client.submit("hold", b"first")
    assert gate.started.wait(TIMEOUT_S)
    yield served
    gate.opened.set()


# Submitting


def test_results_are_those_of_the_task_submitted(serve, gate):
    client = serve(gate).client
    futures = [client.submit("echo", b"%d" % n) for n in range(300)]
    assert [future.result(TIMEOUT_S) for future in futures] == [b"%d" % n for n in range(300)]


def test_a_payload_may_be_anything_like_bytes_and_empty(serve, gate):
    client = serve(gate).client
    for payload in (b"", bytearray(b"ab"), memoryview(b"ab"), b"\x00" * 3_000_000):
        assert client.submit("echo", payload).result(TIMEOUT_S) == bytes(payload)


def test_urgent_tasks_are_served_before_low_ones(busy, gate, until):
    order = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.URGENT]
    tasks = [busy.client.submit("echo", p.name.encode(), priority=p) for p in order * 3]
    status = until(lambda: (s := busy.client.status()).counters["accepted"] == 13 and s)
    held = status.workers[0].held - 1  # what the worker was given before the others came
    gate.opened.set()
    wait(tasks, TIMEOUT_S)
    assert [name for name in gate.ran if name == b"URGENT"] == [b"URGENT"] * 3
    queued = gate.ran[1 + held :]
    assert queued == sorted(queued, key=lambda name: Priority[name.decode()])


def test_many_threads_submit_at_once(serve, gate):
    client = serve(gate).client
    barrier = threading.Barrier(8)

    def use(thread):
        barrier.wait(TIMEOUT_S)
        payloads = [b"%d-%d" % (thread, n) for n in range(50)]
        futures = [client.submit("echo", payload) for payload in payloads]
        return [future.result(TIMEOUT_S) for future in futures] == payloads

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(8))) == [True] * 8


@pytest.mark.parametrize("needs", [None, Requirements(model="resnet", gpu_family="vega")])
def test_a_task_that_waits_too_long_times_out(busy, needs):
    future = busy.client.submit("echo", b"x", requirements=needs, timeout_s=0.05)
    with pytest.raises(TaskTimedOut):
        future.result(TIMEOUT_S)


@pytest.mark.parametrize("backoff", list(Backoff))
def test_a_task_is_tried_as_often_as_asked(serve, gate, backoff):
    client = serve(gate).client
    retry = Retry(max_attempts=3, backoff=backoff, base_s=0.001)
    assert client.submit("flaky", b"2", retry=retry).result(TIMEOUT_S) == b"2"
    with pytest.raises(TaskFailed, match="attempt 3"):
        client.submit("flaky", b"3", retry=retry).result(TIMEOUT_S)
    assert client.status().counters["retried"] == 4


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kind": ""}, "kind ''"),
        ({"kind": "k" * 129}, "length <= 128"),
        ({"kind": 7}, "kind 7"),
        ({"timeout_s": -1.0}, ">= 0"),
        ({"timeout_s": float("nan")}, ">= 0"),
        ({"timeout_s": "soon"}, "expected|Expected"),
        ({"retry": Retry(max_attempts=0)}, "max_attempts"),
        ({"requirements": Requirements(min_vram_bytes=-1)}, "min_vram_bytes"),
    ],
)
def test_options_no_coordinator_would_take_are_refused_at_once(serve, gate, options, complaint):
    client = serve(gate).client
    asked = {"kind": "echo"} | options
    with pytest.raises(ClusterError, match=complaint):
        client.submit(**asked)
    with pytest.raises(ClusterError, match=complaint):
        client.map(payloads=[b"x"], **asked)
    assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


@pytest.mark.parametrize(
    ("wrong", "error"), [({"priority": 9}, ValueError), ({"payload": "text"}, TypeError)]
)
def test_a_wrong_priority_or_payload_is_refused_at_once(serve, wrong, error):
    client = serve().client
    with pytest.raises(error, match=r"Priority|not str"):
        client.submit("echo", **wrong)
    assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_a_payload_too_large_for_a_message_and_a_result_too_large_for_any_are_refused(
    serve, limited
):
    handlers = Handlers()
    handlers.register("grow")(lambda payload: b"x" * int(payload))
    client = serve(handlers, limited(message_bytes=100_000, result_bytes=120_000)).client
    with pytest.raises(ClusterError, match="50001 bytes"):
        client.submit("grow", b"x" * 50_001)
    with pytest.raises(TaskFailed, match="120001 bytes; at most 120000"):
        client.submit("grow", b"120001").result(TIMEOUT_S)
    sizes = [50_000, 50_001, 120_000] * 2
    results = list(client.map("grow", [b"%d" % size for size in sizes]))
    assert results == [b"x" * size for size in sizes]


# Cancelling


def test_a_queued_task_that_is_cancelled_never_runs(busy, gate, until):
    ahead = [busy.client.submit("echo", b"ahead") for _ in range(3)]
    future, behind = (busy.client.submit("echo", name) for name in (b"unwanted", b"behind"))
    until(lambda: busy.client.status().counters["accepted"] == 6)
    assert busy.client.cancel(future)
    until(lambda: busy.client.status().counters["cancelled"])
    gate.opened.set()
    wait([*ahead, behind], TIMEOUT_S)
    assert future.cancelled()
    assert b"unwanted" not in gate.ran


def test_tasks_cancelled_while_others_are_submitted_never_run_and_disturb_nobody(busy, gate):
    assert busy.first.cancel(), "a started one is cancelled for its submitter"
    barrier = threading.Barrier(4)

    def use(thread):
        barrier.wait(TIMEOUT_S)
        wanted, unwanted = [], []
        for number in range(100):
            wanted.append(busy.client.submit("echo", b"wanted %d %d" % (thread, number)))
            unwanted.append(busy.client.submit("echo", b"unwanted"))
            assert unwanted[-1].cancel()
        return wanted, unwanted

    with ThreadPoolExecutor(4) as pool:
        used = list(pool.map(use, range(4)))
    busy.client.status()
    gate.opened.set()
    assert len({future.result(TIMEOUT_S) for wanted, _ in used for future in wanted}) == 400
    assert all(future.cancelled() for _, unwanted in used for future in [*unwanted, busy.first])
    assert gate.ran.count(b"unwanted") <= 8  # those the worker had already begun


# Mapping


def test_a_map_gives_results_in_order(serve, gate):
    client = serve(gate, workers=2).client
    payloads = [b"%d" % n for n in range(1000)]
    assert list(client.map("echo", iter(payloads), priority=Priority.HIGH)) == payloads
    assert list(client.map("echo", [])) == []


def test_a_map_raises_where_a_task_failed_and_cancels_the_rest(serve, spec, gate, until):
    client = serve(gate, replace(spec, burst=min(spec.burst, 4))).client
    payloads = [b"good"] * 3 + [b"bad"] + [b"held up"] * 2000
    results = client.map("mixed", payloads)
    assert [next(results) for _ in range(3)] == [b"good"] * 3
    with pytest.raises(TaskFailed, match="ValueError: bad"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    until(lambda: client.status().counters["cancelled"])
    gate.opened.set()
    counters = until(lambda: (status := client.status()).runs == 0 and status.counters)
    assert counters["done"] + counters["failed"] + counters["cancelled"] == counters["accepted"]
    assert len(gate.ran) < len(payloads)


@pytest.mark.parametrize("read", [0, 1])
def test_a_map_ends_when_the_client_is_closed(serve, spec, gate, monkeypatch, read):
    monkeypatch.setattr("cluster.shells.mapping.WINDOW_TASKS", 2)
    client = serve(gate, replace(spec, burst=1)).client
    results = client.map("echo", [b"%d" % n for n in range(10)])
    assert [next(results) for _ in range(read)] == [b"0"] * read
    client.status()
    client.close()
    with pytest.raises(ClusterError, match="closed"):
        list(results)


# At the bounds


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"tasks": 3}, "open: 3 tasks, of at most 3"),
        ({"payload_bytes": 20}, "bytes, of at most 20"),
        ({"submissions_per_client": 3}, "this client has 3 open submissions"),
    ],
)
def test_a_coordinator_at_a_bound_says_which(serve, limited, gate, limits, reason):
    client = serve(gate, replace(limited(**limits), burst=1)).client
    futures = [client.submit("hold", b"12345") for _ in range(6)]
    with pytest.raises(Busy, match=reason):
        futures[-1].result(TIMEOUT_S)
    with pytest.raises(Busy, match=reason):
        list(client.map("hold", [b"12345"] * 6))
    gate.opened.set()
    refused = [future for future in futures if future.exception(TIMEOUT_S)]
    assert 0 < len(refused) < 6


def test_results_nobody_fetches_are_bounded_too(serve, limited, stranger, gate):
    served = serve(gate, limited(retained_bytes=100))
    peer = stranger(served.coordinator.endpoint)
    peer.say(on.TasksSubmitted("hoarder", 0, "echo", [b"x" * 101]))
    peer.hear(do.Deliver)
    with pytest.raises(Busy, match="101 bytes of results wait to be received"):
        served.client.submit("echo", b"y").result(TIMEOUT_S)
    peer.say(on.ClientHeartbeat("hoarder", 1))
    peer.hear(do.Greet)
    assert served.client.submit("echo", b"y").result(TIMEOUT_S) == b"y"


def test_what_does_not_fit_into_the_socket_leaves_later(serve, gate, spec):
    narrow = replace(spec, sockets=replace(spec.sockets, high_water_mark=5))
    payloads = [b"%d" % n for n in range(500)]
    with Client(serve(gate).coordinator.endpoint, spec=narrow) as client:
        futures = [client.submit("echo", payload) for payload in payloads]
        assert [future.result(TIMEOUT_S) for future in futures] == payloads
        assert list(client.map("echo", payloads)) == payloads


def test_what_is_asked_before_the_coordinator_is_there_is_answered_when_it_is(spec):
    with ClusterCoordinator(spec) as gone:
        endpoint = gone.endpoint
    with Client(endpoint, spec=spec) as client, ThreadPoolExecutor(1) as pool:
        futures = [client.submit("echo", b"%d" % n, timeout_s=0.1) for n in range(100)]
        asked = pool.submit(client.status, TIMEOUT_S)
        with ClusterCoordinator(spec, endpoint):
            assert asked.result(TIMEOUT_S).workers == []
            assert all(isinstance(f.exception(TIMEOUT_S), TaskTimedOut) for f in futures)


# Looking


def test_the_stamps_of_a_traced_task_are_seven_and_rise(serve):
    client = serve().client
    future = client.submit("spin", traced=True)
    assert future.result(TIMEOUT_S) == b""
    assert len(future.stamps) == 7
    assert list(future.stamps) == sorted(future.stamps)
    plain = client.submit("echo")
    plain.result(TIMEOUT_S)
    assert plain.stamps == ()


def test_a_status_says_how_the_cluster_is(busy, gate, spec, until):
    waiting = [busy.client.submit("echo", b"1234", priority=Priority.LOW) for _ in range(5)]
    status = until(lambda: (s := busy.client.status()).counters["accepted"] == 6 and s)
    assert status.policy == "least-loaded"
    assert status.clients == 1
    assert status.assigned + sum(status.queued.values()) == 6
    assert status.queued["low"] == 6 - status.assigned
    assert status.payload_bytes == 5 + 5 * 4
    assert status.counters["messages_in"] > 0
    assert status.counters["bytes_out"] > 0
    (worker,) = status.workers
    assert (worker.worker, worker.capacity, worker.credit) == ("w0", 1, spec.credit)
    assert worker.kinds == ["echo", "flaky", "hold", "mixed"]
    assert worker.held >= 1
    assert not worker.draining
    until(lambda: busy.client.status().workers[0].load.rss_bytes)
    gate.opened.set()
    wait(waiting, TIMEOUT_S)
    assert busy.client.status().workers[0].finished == 6


def test_the_policy_changes_while_tasks_run(serve, gate):
    client = serve(gate).client
    for policy in ("round-robin", "gpu-match", "latency-aware", "memory-aware", "adaptive"):
        assert client.change_policy(policy).policy == policy
        assert list(client.map("echo", [b"x"] * 20)) == [b"x"] * 20
    with pytest.raises(ClusterError, match="no policy 'chaos'; there are adaptive, gpu-match"):
        client.change_policy("chaos")
    assert client.status().policy == "adaptive"


@pytest.mark.parametrize("named", ["tcp://127.0.0.1:9", ""])
def test_without_an_endpoint_the_environment_names_it_or_it_is_the_default(monkeypatch, named):
    monkeypatch.setenv("PERFKIT_ENDPOINT", named)
    with Client(spec=BASELINE) as client:
        assert client.endpoint == (named or DEFAULT_ENDPOINT)


def test_an_endpoint_where_nobody_listens_is_unreachable():
    with Client("tcp://127.0.0.1:9", spec=BASELINE) as client:
        with pytest.raises(Unreachable, match=r"tcp://127.0.0.1:9 within 0.05 s; is it running\?"):
            client.status(timeout=0.05)
        future = client.submit("echo", b"x")
    assert isinstance(future.exception(), ClientClosed)


@pytest.mark.parametrize("endpoint", ["", "nowhere", "tcp://", "tcp://127.0.0.1"])
def test_what_is_no_endpoint_is_an_error_in_words(endpoint):
    with pytest.raises(ClusterError, match="cannot connect to"):
        Client(endpoint)


# Closing


def test_closing_ends_what_is_open(busy, gate, spec, until):
    futures = [busy.client.submit("echo", b"x") for _ in range(5)]
    status = until(lambda: (s := busy.client.status()).counters["accepted"] == 6 and s)
    held = status.workers[0].held
    busy.client.close()
    busy.client.close()
    assert all(isinstance(f.exception(), ClientClosed) for f in [*futures, busy.first])
    with Client(busy.coordinator.endpoint, spec=spec) as other:
        status = other.status()
        assert (status.runs, status.counters["cancelled"]) == (0, 6)
        gate.opened.set()
        assert other.submit("echo", b"y").result(TIMEOUT_S) == b"y"
    assert gate.ran.count(b"x") < held  # one may have been in the worker's hands


def test_a_closed_client_says_so(serve):
    client = serve().client
    client.close()
    for use in (
        lambda: client.submit("echo"),
        lambda: client.map("echo", []),
        client.status,
        lambda: client.change_policy("adaptive"),
    ):
        with pytest.raises(ClusterError, match="this client is closed"):
            use()


def test_a_task_submitted_while_another_thread_closes_ends(serve, gate, spec):
    served = serve(gate)
    for _ in range(20):
        client, barrier = Client(served.coordinator.endpoint, spec=spec), threading.Barrier(2)
        futures: list[TaskFuture] = []

        def submit(client=client, barrier=barrier, futures=futures):
            barrier.wait(TIMEOUT_S)
            with suppress(ClusterError):
                while True:
                    futures.append(client.submit("echo", b"x"))

        with ThreadPoolExecutor(1) as pool:
            pool.submit(submit)
            barrier.wait(TIMEOUT_S)
            client.close()
        assert not wait(futures, TIMEOUT_S).not_done


def test_a_wait_that_is_interrupted_leaves_the_client_usable(busy, gate):
    asked = threading.Timer(
        0.1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]
    )
    asked.start()
    with pytest.raises(KeyboardInterrupt):
        busy.first.result(TIMEOUT_S)
    asked.join()
    gate.opened.set()
    assert busy.first.result(TIMEOUT_S) == b"first"
    assert busy.client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_a_question_that_is_open_when_the_client_closes_is_answered(spec):
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as mute,
        ThreadPoolExecutor(1) as pool,
    ):
        port = mute.bind_to_random_port("tcp://127.0.0.1")
        client = Client(f"tcp://127.0.0.1:{port}", spec=spec)
        asked = pool.submit(client.status, None)
        asks = False
        while not asks:
            frames = mute.recv_multipart()[1:]
            events = [] if frames == [HELLO] else load_codec(spec).events(frames)
            asks = any(isinstance(event, on.StatusRequested) for event in events)
        client.close()
        with pytest.raises(ClusterError, match="closed"):
            asked.result(TIMEOUT_S)


def test_nothing_waits_for_a_heartbeat(limited):
    spec = limited(heartbeat_s=60.0, liveness_s=180.0)
    with LocalCluster(1, spec) as local:
        for number in range(20):
            with Client(local.endpoint, spec=spec) as client:
                assert client.status(TIMEOUT_S).workers
                payloads = [b"%d" % n for n in range(number)]
                assert list(client.map("echo", payloads)) == payloads
                futures = [client.submit("echo", payload) for payload in payloads]
                assert [future.result(TIMEOUT_S) for future in futures] == payloads


def test_a_map_whose_results_do_not_come_in_time_ends_and_cancels_the_rest(busy, until):
    results = busy.client.map("hold", [b"a", b"b"], timeout=0.2)
    with pytest.raises(TimeoutError, match=r"no result within 0\.2 s"):
        next(results)
    until(lambda: busy.client.status().counters["cancelled"] == 2)


def test_a_callback_that_waits_for_its_own_client_is_told_so(busy, gate, until):
    client = busy.client
    told = []

    def wait(_):
        for ask in (
            client.status,
            lambda: next(client.map("echo", [b"x"])),
            client.submit("echo", b"y").result,
            client.close,
        ):
            with pytest.raises(ClusterError, match="callback") as refused:
                ask()
            told.append(refused.value)

    busy.first.add_done_callback(wait)
    gate.opened.set()
    assert client.submit("echo", b"z").result(TIMEOUT_S) == b"z"
    until(lambda: len(told) == 4)


def test_a_coordinator_of_another_spec_is_told_from_none_at_all():
    for here, there in ((BASELINE, OPTIMIZED), (OPTIMIZED, BASELINE)):
        with (
            ClusterCoordinator(there) as coordinator,
            Client(coordinator.endpoint, spec=here) as client,
            pytest.raises(ProtocolError, match=f"spec '{here.name}' was given here: codec"),
        ):
            client.status(timeout=1.0)
