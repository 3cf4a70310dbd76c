"""Bytes that change on their way: a message is lost then, never taken for another."""

import random
import threading
from contextlib import ExitStack

import pytest
from msgspec.structs import replace

from cluster import Client, ClusterCoordinator, ClusterError, Worker
from cluster.work.workloads import HANDLERS
from tests.faults.proxy import Proxy

TIMEOUT_S = 20.0
#: bytes for each flipped bit, on average
BYTES_PER_FLIP = 2_500
#: a handshake that is changed is ZeroMQ's own affair
HANDSHAKE_BYTES = 200


class Flipper:
    """Flips bits of what passes through a proxy, until it is calm."""

    def __init__(self, seed):
        self._chance = random.Random(seed)
        self.is_calm = False
        self.flips = 0

    def alter(self, pair, passed, data):
        altered = bytearray(data)
        for at in range(max(0, HANDSHAKE_BYTES - passed), len(data)):
            if not self.is_calm and self._chance.random() < 1 / BYTES_PER_FLIP:
                altered[at] ^= 1 << self._chance.randrange(8)
                self.flips += 1
        return altered


@pytest.fixture
def flipped(spec):
    """A coordinator, with a worker and a client that both go through a flipper."""
    with ExitStack() as stack:

        def start(seed):
            checked = replace(spec, checks=True)
            coordinator = stack.enter_context(ClusterCoordinator(checked))
            flipper = Flipper(seed)
            proxy = Proxy(coordinator.endpoint, flipper.alter)
            stack.callback(proxy.close)
            worker = Worker(proxy.endpoint, HANDLERS, name="w", spec=spec)
            thread = threading.Thread(target=worker.run)
            thread.start()
            stack.callback(thread.join, TIMEOUT_S)
            stack.callback(worker.stop)
            stack.callback(setattr, flipper, "is_calm", True)
            client = stack.enter_context(Client(proxy.endpoint, spec=spec))
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
