"""A connection that swallows what is sent, without an end that anyone could see."""

import threading
import time
from contextlib import ExitStack

import pytest
from msgspec.structs import replace

from cluster import Client, ClusterCoordinator, Worker
from cluster.work.workloads import HANDLERS
from tests.faults.proxy import Proxy

TIMEOUT_S = 15.0


class Hole:
    """A proxy that swallows what passes on some of its connections."""

    def __init__(self, endpoint):
        self._swallowed = set()
        self.proxy = Proxy(
            endpoint, lambda pair, _, data: None if pair in self._swallowed else data
        )

    def swallow(self, which=slice(None)):
        """Swallow on the connections so far, in order of arrival, or some of them."""
        self._swallowed.update(self.proxy.pairs[which])

    def _alter(self, pair, passed, data):
        return None if pair in self._swallowed else data


@pytest.fixture
def through(spec):
    """A coordinator behind a proxy, and a worker or a client that goes through it."""
    with ExitStack() as stack:

        def start(spec=spec, capacity=1, is_client_behind=False, silence_s=0.3):
            spec = replace(spec, sockets=replace(spec.sockets, silence_s=silence_s))
            coordinator = stack.enter_context(ClusterCoordinator(spec))
            hole = Hole(coordinator.endpoint)
            stack.callback(hole.proxy.close)
            client_at = hole.proxy.endpoint if is_client_behind else coordinator.endpoint
            worker_at = coordinator.endpoint if is_client_behind else hole.proxy.endpoint
            worker = Worker(worker_at, HANDLERS, name="w", spec=spec, capacity=capacity)
            welcome = threading.Event()
            worker.on_welcome = welcome.set
            thread = threading.Thread(target=worker.run)
            thread.start()
            stack.callback(thread.join, TIMEOUT_S)
            stack.callback(worker.stop)
            assert welcome.wait(TIMEOUT_S)
            client = stack.enter_context(Client(client_at, spec=spec))
            assert client.submit("echo", b"first").result(TIMEOUT_S) == b"first"
            return hole, client

        yield start


@pytest.mark.parametrize(
    "which", [slice(None), slice(0, 1), slice(1, 2)], ids=["both lines", "work", "heartbeats"]
)
def test_a_worker_whose_lines_are_swallowed_comes_back(through, which):
    hole, client = through()
    hole.swallow(which)
    begin_s = time.monotonic()
    futures = [client.submit("echo", b"%d" % n) for n in range(60)]
    assert [future.result(TIMEOUT_S) for future in futures] == [b"%d" % n for n in range(60)]
    assert time.monotonic() - begin_s < 8.0


def test_a_slot_whose_line_is_swallowed_runs_its_tasks_again(through):
    hole, client = through(capacity=2)
    hole.swallow(slice(2, None))
    futures = [client.submit("echo", b"%d" % n) for n in range(60)]
    assert [future.result(TIMEOUT_S) for future in futures] == [b"%d" % n for n in range(60)]


def test_a_client_whose_line_is_swallowed_gets_its_results(through):
    hole, client = through(is_client_behind=True)
    hole.swallow()
    begin_s = time.monotonic()
    futures = [client.submit("echo", b"%d" % n) for n in range(60)]
    assert [future.result(TIMEOUT_S) for future in futures] == [b"%d" % n for n in range(60)]
    assert time.monotonic() - begin_s < 8.0


def test_zeromq_itself_ends_a_dead_connection(through, spec):
    short = replace(spec, sockets=replace(spec.sockets, pong_s=1.0))
    hole, client = through(short, silence_s=3600.0)
    hole.swallow()
    assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"
