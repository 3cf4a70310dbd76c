"""Bytes that change on their way: a message is lost then, never taken for another."""

import random
import socket
import threading
from contextlib import ExitStack

import pytest
from msgspec.structs import replace

from cluster import Client, ClusterCoordinator, ClusterError, Worker
from cluster.work.workloads import HANDLERS
from tests.faults.raw import port_of

TIMEOUT_S = 20.0
#: on average one bit of so many bytes is flipped
BYTES_PER_FLIP = 2_500
#: a handshake that is changed is ZeroMQ's own affair
HANDSHAKE_BYTES = 200


class Flipper:
    """Passes bytes on between peers and a coordinator, and flips bits of them."""

    def __init__(self, endpoint, seed):
        self._target = "127.0.0.1", port_of(endpoint)
        self._chance = random.Random(seed)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self._ends = []
        self.is_calm = False
        self.flips = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        for end in [self._listening, *self._ends]:
            end.close()

    def _accept(self):
        try:
            while True:
                pair = self._listening.accept()[0], socket.create_connection(self._target)
                self._ends += pair
                for one, other in (pair, pair[::-1]):
                    args = (one, other)
                    threading.Thread(target=self._pass_on, args=args, daemon=True).start()
        except OSError:
            return

    def _pass_on(self, one, other):
        passed = 0
        try:
            while data := bytearray(one.recv(1 << 16)):
                for at in range(len(data)):
                    if self.is_calm or passed + at < HANDSHAKE_BYTES:
                        continue
                    if self._chance.random() < 1 / BYTES_PER_FLIP:
                        data[at] ^= 1 << self._chance.randrange(8)
                        self.flips += 1
                passed += len(data)
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


@pytest.fixture
def flipped(spec):
    """A coordinator, with a worker and a client that both go through a flipper."""
    with ExitStack() as stack:

        def start(seed):
            checked = replace(spec, checks=True)
            coordinator = stack.enter_context(ClusterCoordinator(checked))
            flipper = Flipper(coordinator.endpoint, seed)
            stack.callback(flipper.close)
            worker = Worker(flipper.endpoint, HANDLERS, name="w", spec=spec)
            thread = threading.Thread(target=worker.run)
            thread.start()
            stack.callback(thread.join, TIMEOUT_S)
            stack.callback(worker.stop)
            stack.callback(setattr, flipper, "is_calm", True)
            client = stack.enter_context(Client(flipper.endpoint, spec=spec))
            direct = stack.enter_context(Client(coordinator.endpoint, spec=checked))
            return flipper, client, direct

        yield start


def test_no_flipped_bit_makes_a_result_wrong(flipped):
    flipper, client, direct = flipped(seed=1)
    right = wrong = 0
    for number in range(80):
        payload = b"%d " % number * 20
        future = client.submit("echo", payload, idempotent=True)
        try:
            found = future.result(0.2)
        except (ClusterError, TimeoutError):
            continue
        right += found == payload
        wrong += found != payload
    flipper.is_calm = True
    assert client.submit("echo", b"calm").result(TIMEOUT_S) == b"calm"
    assert wrong == 0
    assert right > 10
    assert flipper.flips > 8
    assert direct.status().counters["corrupted"] > 0
