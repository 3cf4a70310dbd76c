"""A worker finishes what it has started, gives back the rest, and is heard while handlers run."""

import threading
from collections import Counter, deque
from types import SimpleNamespace
from typing import NamedTuple

import msgpack
import pytest
import zmq
from msgspec.structs import replace

from cluster import Client, ClusterSpec, Handlers, Worker
from cluster.core.policy import LeastLoaded
from cluster.spec import load_codec, load_part
from cluster.transport.hello import HELLO, IS_READ, READ
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError, TaskTimedOut
from cluster.vocabulary.task import GpuLoad, Load
from cluster.work.workloads import HANDLERS

TIMEOUT_S = 10
BRISK = {"heartbeat_s": 0.02, "liveness_s": 0.3}


class Blocks(LeastLoaded):
    """Leases of up to a hundred tasks, so that a worker has something to recall and to join."""

    name = "blocks"

    def lease_tasks(self, worker, needs, queued):
        return min(queued, 100)


POLICIES = {"blocks": Blocks}


@pytest.fixture
def in_blocks(limited, monkeypatch):
    """The spec under study with a policy that leases many tasks at once."""
    blocks = {"policies": "blocks_of_this_test:POLICIES", "policy": "blocks"}

    def load(path):
        return POLICIES if path == blocks["policies"] else load_part(path)

    monkeypatch.setattr("cluster.shells.dispatcher.load_part", load)
    return replace(limited(message_bytes=100_000), burst=1000, credit=1000, **blocks)


def test_slots_run_as_many_tasks_at_once_as_there_is_capacity_and_stop_gracefully(
    serve, limited, until
):
    handlers, meeting = Handlers(), threading.Barrier(4)

    @handlers.register("meet")
    def meet(payload):
        meeting.wait(TIMEOUT_S)  # ends only when four are in here at the same time
        return payload

    # A stalled machine must not take the worker for dead: its tasks would run twice, and not meet.
    served = serve(handlers, capacity=4, spec=limited(liveness_s=TIMEOUT_S))
    payloads = [b"%d" % n for n in range(8)]
    assert list(served.client.map("meet", payloads)) == payloads
    assert served.client.status().workers[0].capacity == 4
    served.crew[0].worker.stop()
    served.crew[0].thread.join(TIMEOUT_S)
    assert not served.crew[0].thread.is_alive()
    # Its goodbye and this question come on two connections, in no order.
    assert until(lambda: not served.client.status().workers)


def test_it_is_heard_while_a_handler_computes(serve, limited):
    served = serve(spec=limited(**BRISK))
    future = served.client.submit("spin", b"0.7")
    while not future.done():
        assert served.client.status().workers[0].silent_s < BRISK["liveness_s"]
    assert future.result() == b"0.7"
    assert "workers_lost" not in served.client.status().counters


def test_its_probe_reaches_the_status_and_a_card_in_trouble_gets_no_work(serve, limited, until):
    told = [Load(rss_bytes=1, gpu_trouble="0000:0a:00.0 is overheated: edge 99 °C")]
    client = serve(spec=limited(**BRISK), probe=lambda: told[-1]).client
    assert until(lambda: client.status().workers[0].load == told[0])
    future = client.submit("echo", b"x")
    assert until(lambda: sum(client.status().queued.values()) == 1)
    assert not future.done()
    told.append(Load(gpus=(GpuLoad(busy_pct=50.0, temperature_c=60.0),)))
    assert future.result(TIMEOUT_S) == b"x"


def test_a_probe_that_fails_leaves_the_load_unknown_and_the_worker_alive(serve, limited, until):
    def broken():
        raise OSError("the card has fallen off the bus")

    client = serve(spec=limited(**BRISK), probe=broken).client
    (before,) = client.status().workers
    until(lambda: client.status().counters["messages_in"] > 60)
    (after,) = client.status().workers
    assert (after.epoch, after.load) == (before.epoch, Load())


def test_stopping_finishes_what_is_started_and_gives_back_the_rest(serve, spec, until):
    handlers, started, opened, ran = Handlers(), threading.Event(), threading.Event(), []

    @handlers.register("hold")
    def hold(payload):
        ran.append((threading.current_thread().name, payload))
        started.set()
        assert opened.wait(TIMEOUT_S)
        return payload

    served = serve(handlers)
    futures = [served.client.submit("hold", b"%d" % n) for n in range(4)]
    assert started.wait(TIMEOUT_S)
    until(lambda: served.client.status().counters["accepted"] == 4)
    first = served.crew[0]
    first.worker.stop()
    # "w0" is in its handler, so it hears of the stop only when that returns
    opened.set()
    first.thread.join(TIMEOUT_S)
    status = until(lambda: not (status := served.client.status()).workers and status)
    assert status.counters["workers_left"] == 1
    assert status.counters["done"] + sum(status.queued.values()) == 4
    other = Worker(served.coordinator.endpoint, handlers, name="w1", spec=spec)
    thread = threading.Thread(target=other.run, name="w1")
    thread.start()
    assert [future.result(TIMEOUT_S) for future in futures] == [b"0", b"1", b"2", b"3"]
    other.stop()
    thread.join(TIMEOUT_S)
    assert sorted(payload for _, payload in ran) == [b"0", b"1", b"2", b"3"]


def test_no_task_runs_twice_when_a_worker_with_many_slots_is_stopped(serve, limited):
    handlers, ran = Handlers(), Counter()

    @handlers.register("count")
    def count(payload):
        ran[bytes(payload)] += 1
        return payload

    # A stalled machine must not take a worker for dead.
    spec = limited(liveness_s=TIMEOUT_S)
    served = serve(handlers, spec, capacity=4)
    payloads = [b"%d" % n for n in range(600)]
    futures = [served.client.submit("count", payload) for payload in payloads]
    futures[100].result(TIMEOUT_S)
    served.crew[0].worker.stop()
    other = Worker(served.coordinator.endpoint, handlers, name="w1", spec=spec)
    thread = threading.Thread(target=other.run, name="w1")
    thread.start()
    assert [future.result(TIMEOUT_S) for future in futures] == payloads
    other.stop()
    thread.join(TIMEOUT_S)
    assert ran == dict.fromkeys(payloads, 1)


def test_a_tail_that_waits_behind_a_slow_task_is_recalled_for_an_idle_worker(serve, in_blocks):
    handlers, started, opened = Handlers(), threading.Event(), threading.Event()

    @handlers.register("uneven")
    def uneven(payload):
        if payload == b"slow":
            started.set()
            assert opened.wait(TIMEOUT_S)
        return payload

    served = serve(handlers, in_blocks, workers=1)
    results = served.client.map("uneven", [b"slow"] + [b"quick"] * 50)
    assert started.wait(TIMEOUT_S)
    helper = Worker(served.coordinator.endpoint, handlers, name="helper", spec=in_blocks)
    thread = threading.Thread(target=helper.run)
    thread.start()
    with Client(served.coordinator.endpoint, spec=in_blocks) as observer:
        while observer.status().counters["done"] < 50:
            assert not opened.is_set()
    opened.set()
    assert list(results) == [b"slow"] + [b"quick"] * 50
    counters = served.client.status().counters
    helper.stop()
    thread.join(TIMEOUT_S)
    assert counters["recalls"] >= 1


def test_cancelled_tasks_of_a_lease_are_skipped(serve, in_blocks, until):
    handlers, started, opened, ran = Handlers(), threading.Event(), threading.Event(), []

    @handlers.register("hold")
    def hold(payload):
        ran.append(payload)
        started.set()
        assert opened.wait(TIMEOUT_S)
        return payload

    served = serve(handlers, in_blocks)
    first, *rest = served.client.submit_batch("hold", [b"%d" % n for n in range(50)])
    assert started.wait(TIMEOUT_S)
    assert all(future.cancel() for future in rest)
    until(lambda: len(next(iter(served.crew[0].worker._session.leases.values())).cancelled) == 49)
    last = served.client.submit("hold", b"last")
    opened.set()
    assert [first.result(TIMEOUT_S), last.result(TIMEOUT_S)] == [b"0", b"last"]
    assert ran == [b"0", b"last"]


def test_results_too_large_for_one_message_travel_one_by_one(serve, in_blocks):
    handlers = Handlers()

    @handlers.register_batch("grow")
    def grow(payloads):
        return [b"x" * 40_000 if payload != b"bad" else ValueError("bad") for payload in payloads]

    client = serve(handlers, in_blocks).client
    assert list(client.map("grow", [b"a"] * 60)) == [b"x" * 40_000] * 60
    results = client.map("grow", [b"a", b"a", b"bad", b"a"])
    assert [next(results), next(results)] == [b"x" * 40_000] * 2
    with pytest.raises(ClusterError, match="ValueError: bad"):
        next(results)


class Pretender:
    """A coordinator in the hands of a test, with a worker that echoes, and what the worker says:
    events, and its questions whether they are read.
    """

    def __init__(self, spec, router):
        handlers = Handlers()
        handlers.register("echo")(lambda payload: payload)
        self.codec, self.router, self.told = load_codec(spec), router, deque()
        port = router.bind_to_random_port("tcp://127.0.0.1")
        self.worker = Worker(f"tcp://127.0.0.1:{port}", handlers, name="w", spec=spec)
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()
        self.route, self.joined = self.heard(on.WorkerJoined)

    def heard(self, kind):
        """The next of a kind, and where it comes from; what comes before it is dropped."""
        while True:
            while not self.told:
                assert self.router.poll(TIMEOUT_S * 1000)
                route, *frames = self.router.recv_multipart()
                if frames == [IS_READ]:
                    self.told.append((route, IS_READ))
                elif frames != [HELLO]:
                    self.told.extend((route, event) for event in self.codec.events(frames))
            route, event = self.told.popleft()
            if isinstance(event, kind):
                return route, event

    def say(self, *actions):
        for frames in self.codec.encode(actions):
            self.router.send_multipart([self.route, *frames])

    def end(self):
        self.worker.stop()
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def pretend(limited):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        yield lambda **limits: Pretender(limited(**BRISK | limits), router)


def test_what_a_coordinator_says_that_makes_no_sense_is_ignored(pretend):
    pretended = pretend()
    joined, say = pretended.joined, pretended.say
    pretended.router.send_multipart([pretended.route, b"garbage"])
    pretended.router.send_multipart([pretended.route, msgpack.packb({"v": 2})])
    say(do.Welcome("w", joined.incarnation + 1, 6, 0.02))
    say(do.Welcome("w", joined.incarnation, 7, 0.02))
    say(do.Recall("w", 7, 99), do.Cancel("w", 7, 99), do.Disconnect("w", 3, "not you"))
    say(do.Assign("w", 6, 1, "echo", 0, [b"stale"]))
    say(do.Assign("w", 7, 2, "echo", 0, [b"x"]), do.Assign("w", 7, 2, "echo", 0, [b"x"]))
    _, finished = pretended.heard(on.TasksFinished)
    assert (finished.lease, finished.outcomes) == (2, [b"x"])
    say(do.Disconnect("w", 7, "your epoch is over"))
    _, again = pretended.heard(on.WorkerJoined)
    joined.epoch = 7
    assert again == joined
    pretended.end()


def test_a_worker_does_not_leave_until_the_coordinator_has_read_its_reports(pretend):
    pretended = pretend(liveness_s=TIMEOUT_S)
    pretended.say(do.Welcome("w", pretended.joined.incarnation, 7, 0.02))
    pretended.heard(on.WorkerHeartbeat)  # so it has read the welcome
    pretended.worker.stop()
    pretended.heard(on.WorkerDraining)
    route, _ = pretended.heard(bytes)
    pretended.heard(on.WorkerHeartbeat)
    assert pretended.thread.is_alive()
    assert not any(isinstance(event, on.WorkerLeft) for _, event in pretended.told)
    while pretended.thread.is_alive():
        pretended.router.send_multipart([route, READ])
        if pretended.router.poll(20):
            route, *_ = pretended.router.recv_multipart()
    pretended.end()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"capacity": 0}, "with capacity 0.*capacity"),
        ({"capacity": 5000}, "<= 1024.*capacity"),
        ({"name": "w" * 200}, "length <= 128.*worker"),
        ({"capacity": 1000, "spec": ClusterSpec(name="x", credit=5000)}, "credit"),
    ],
)
def test_what_no_coordinator_would_take_is_refused_at_once(options, complaint):
    with pytest.raises(ClusterError, match=complaint):
        Worker("tcp://127.0.0.1:9", HANDLERS, **options)


def test_a_worker_of_no_endpoint_is_an_error_in_words():
    with pytest.raises(ClusterError, match="cannot connect to 'nowhere'"):
        Worker("nowhere", HANDLERS).run()


def test_a_worker_that_never_reached_its_coordinator_stops_too(limited):
    worker = Worker("tcp://127.0.0.1:9", HANDLERS, spec=limited(**BRISK))
    thread = threading.Thread(target=worker.run)
    thread.start()
    worker.stop()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


class Word(NamedTuple):
    """A text as the model below reads it."""

    text: bytes
    items: int = 1
    bucket: str = "any"


class Slow:
    """A model that takes as long for sixteen words as for one, and notes who did what."""

    batch_items_max = 16

    def __init__(self):
        self.ran, self.readers, self.runners = [], set(), set()
        self.takes_s = 0.002
        self.go_on, self.card = threading.Event(), threading.Event()

    def prepare(self, payload):
        self.readers.add(threading.get_ident())
        return Word(bytes(payload))

    def run(self, questions):
        self.runners.add(threading.get_ident())
        self.go_on.wait(TIMEOUT_S)
        self.card.wait(self.takes_s)  # computing, during which other threads may run
        self.ran.append(len(questions))
        return [question.text.upper() for question in questions]

    def handle_batch(self, payloads):
        raise AssertionError("a worker prepares and runs")


@pytest.fixture(params=[1, 2])
def slow(serve, request):
    """A model in a worker with one slot or two."""
    model, handlers = Slow(), Handlers()
    handlers.register_model("shout", model)
    served = serve(handlers, capacity=request.param)
    return SimpleNamespace(model=model, client=served.client, slots=request.param)


def test_a_model_runs_single_tasks_of_many_submissions_together(slow):
    words = [b"word %d" % n for n in range(400)]
    slow.model.go_on.set()
    futures = [slow.client.submit("shout", word) for word in words]
    assert [f.result(TIMEOUT_S) for f in futures] == [word.upper() for word in words]
    assert sum(slow.model.ran) == len(words)
    assert max(slow.model.ran) > 1
    assert len(slow.model.runners) == slow.slots


def test_payloads_are_read_while_every_slot_computes(slow, until):
    futures = [slow.client.submit("shout", b"%d" % n) for n in range(slow.slots + 1)]
    assert until(lambda: slow.model.readers - slow.model.runners)
    slow.model.go_on.set()
    assert sorted(f.result(TIMEOUT_S) for f in futures) == [b"%d" % n for n in range(len(futures))]


def test_a_cancelled_task_that_waits_for_a_model_is_given_back_at_once(slow, until):
    first = [slow.client.submit("shout", b"first") for _ in range(slow.slots)]
    assert until(lambda: len(slow.model.runners) == slow.slots)
    second = slow.client.submit("shout", b"second")
    assert until(lambda: slow.client.status().workers[0].held == slow.slots + 1)
    second.cancel()
    assert until(lambda: slow.client.status().workers[0].held == slow.slots)
    slow.model.go_on.set()
    assert [f.result(TIMEOUT_S) for f in first] == [b"FIRST"] * slow.slots


def test_what_would_miss_its_deadline_fails_at_once_with_the_reason(slow):
    slow.model.takes_s = 0.4
    slow.model.go_on.set()
    assert slow.client.submit("shout", b"a").result(TIMEOUT_S) == b"A"
    with pytest.raises(TaskTimedOut, match="not begun"):
        slow.client.submit("shout", b"b", timeout_s=0.35).result(TIMEOUT_S)
    assert slow.model.ran == [1]
