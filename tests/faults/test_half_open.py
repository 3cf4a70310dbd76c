"""A connection that swallows what is sent, without an end that anyone could see."""

import socket
import threading
import time
from contextlib import ExitStack

import pytest
from msgspec.structs import replace

from cluster import Client, ClusterCoordinator, Worker
from cluster.work.workloads import HANDLERS
from tests.faults.raw import port_of

TIMEOUT_S = 15.0


class Proxy:
    """Passes bytes on between peers and a coordinator until it is told to swallow those of the
    connections that there are by then.
    """

    def __init__(self, endpoint):
        self._target = "127.0.0.1", port_of(endpoint)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self._swallowed = set()
        self._pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self, which=slice(None)):
        """Swallow on the connections so far, in order of arrival, or some of them."""
        self._swallowed.update(self._pairs[which])

    def close(self):
        self._listening.close()
        for pair in self._pairs:
            for one in pair:
                one.close()

    def _accept(self):
        try:
            while True:
                pair = self._listening.accept()[0], socket.create_connection(self._target)
                self._pairs.append(pair)
                for one, other in (pair, pair[::-1]):
                    args = (pair, one, other)
                    threading.Thread(target=self._pass_on, args=args, daemon=True).start()
        except OSError:
            return

    def _pass_on(self, pair, one, other):
        try:
            while data := one.recv(1 << 16):
                if pair not in self._swallowed:
                    other.sendall(data)
            if pair not in self._swallowed:
                other.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


@pytest.fixture
def through(spec):
    """A coordinator behind a proxy, and a worker or a client that goes through it."""
    with ExitStack() as stack:

        def start(spec=spec, capacity=1, is_client_behind=False, silence_s=0.3):
            spec = replace(spec, sockets=replace(spec.sockets, silence_s=silence_s))
            coordinator = stack.enter_context(ClusterCoordinator(spec))
            proxy = Proxy(coordinator.endpoint)
            stack.callback(proxy.close)
            client_at = proxy.endpoint if is_client_behind else coordinator.endpoint
            worker_at = coordinator.endpoint if is_client_behind else proxy.endpoint
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
            return proxy, client

        yield start


@pytest.mark.parametrize(
    "which", [slice(None), slice(0, 1), slice(1, 2)], ids=["both lines", "work", "heartbeats"]
)
def test_a_worker_whose_lines_are_swallowed_comes_back(through, which):
    proxy, client = through()
    proxy.swallow(which)
    begin_s = time.monotonic()
    futures = [client.submit("echo", b"%d" % n) for n in range(60)]
    assert [future.result(TIMEOUT_S) for future in futures] == [b"%d" % n for n in range(60)]
    assert time.monotonic() - begin_s < 8.0


def test_a_slot_whose_line_is_swallowed_runs_its_tasks_again(through):
    proxy, client = through(capacity=2)
    proxy.swallow(slice(2, None))
    futures = [client.submit("echo", b"%d" % n) for n in range(60)]
    assert [future.result(TIMEOUT_S) for future in futures] == [b"%d" % n for n in range(60)]


def test_a_client_whose_line_is_swallowed_gets_its_results(through):
    proxy, client = through(is_client_behind=True)
    proxy.swallow()
    begin_s = time.monotonic()
    futures = [client.submit("echo", b"%d" % n) for n in range(60)]
    assert [future.result(TIMEOUT_S) for future in futures] == [b"%d" % n for n in range(60)]
    assert time.monotonic() - begin_s < 8.0


def test_zeromq_itself_ends_a_dead_connection(through, spec):
    short = replace(spec, sockets=replace(spec.sockets, pong_s=1.0))
    proxy, client = through(short, silence_s=3600.0)
    proxy.swallow()
    assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"
