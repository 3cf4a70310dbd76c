"""Clusters for tests: a module's own real one, small ones inside the test process, and peers that
keep to no protocol. Each test that uses one runs once for every spec under study.

Everything a fixture starts, it ends. Waiting is for a condition, with a deadline that only a fault
reaches.
"""

import importlib
import sys
import textwrap
import threading
import time
from collections import deque
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import zmq
from msgspec.structs import replace

from cluster import BASELINE, Client, ClusterCoordinator, LocalCluster, Worker
from cluster.spec import load_codec
from cluster.transport.hello import heard
from cluster.work.workloads import HANDLERS
from perfkit.optimized.specs import OPTIMIZED
from tests import waiting
from tests.waiting import DEADLINE_S


@pytest.fixture(scope="session")
def until():
    """Wait until a condition holds; return what it gave."""
    return waiting.until


@pytest.fixture(scope="module", params=[BASELINE, OPTIMIZED], ids=lambda spec: spec.name)
def spec(request):
    """A spec under study: what a cluster promises does not depend on its parts."""
    return request.param


@pytest.fixture
def limited(spec):
    """The spec under study within other limits: ``limited(tasks=10)``."""
    return lambda **limits: replace(spec, limits=replace(spec.limits, **limits))


@pytest.fixture(scope="module")
def local(spec):
    """Two worker processes and a coordinator that the tests of a module share and don't harm."""
    with LocalCluster(2, spec) as running:
        yield running


@pytest.fixture
def client(local):
    with local.client() as one:
        yield one


@pytest.fixture
def serve(spec):
    """Start a coordinator and workers as threads of this process: ``serve(handlers, …)``."""
    with ExitStack() as stack:

        def start(handlers=HANDLERS, spec=spec, workers=1, **options):
            coordinator = stack.enter_context(ClusterCoordinator(spec))
            client = stack.enter_context(Client(coordinator.endpoint, spec=spec))
            crew = []
            for number in range(workers):
                worker = Worker(
                    coordinator.endpoint, handlers, name=f"w{number}", spec=spec, **options
                )
                welcome = threading.Event()
                worker.on_welcome = welcome.set
                thread = threading.Thread(target=worker.run, name=worker.name)
                thread.start()
                stack.callback(thread.join, DEADLINE_S)
                stack.callback(worker.stop)
                assert welcome.wait(DEADLINE_S)
                crew.append(SimpleNamespace(worker=worker, thread=thread))
            return SimpleNamespace(coordinator=coordinator, client=client, crew=crew)

        yield start


class Stranger:
    """A bare DEALER that sends any frames and reads the answers."""

    def __init__(self, context, endpoint, spec):
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)
        self.codec = load_codec(spec)
        self.heard = deque()

    def send(self, *frames):
        self.socket.send_multipart(frames)

    def say(self, *events):
        for frames in self.codec.encode(events):
            self.send(*frames)

    def hear(self, kind=object, timeout_s=DEADLINE_S):
        """The next action of a kind; what comes before it is dropped."""
        end_s = time.monotonic() + timeout_s
        while self.heard or self.socket.poll(max(0, round((end_s - time.monotonic()) * 1000))):
            if not self.heard:
                frames = self.socket.recv_multipart()
                announced = heard(frames)
                self.heard.extend([announced] if announced else self.codec.actions(frames))
            action = self.heard.popleft()
            if isinstance(action, kind):
                return action
        raise AssertionError(f"no {kind.__name__} within {timeout_s} s")


@pytest.fixture
def stranger(spec):
    """Peers that keep to no protocol: ``stranger(endpoint)`` connects one."""
    context = zmq.Context()
    yield lambda endpoint: Stranger(context, endpoint, spec)
    context.destroy(linger=0)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that this process and those it starts can import; return its name."""
    names = []

    def write(source, name="handlers_of_this_test"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)
