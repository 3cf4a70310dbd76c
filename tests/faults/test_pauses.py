"""A pause is nobody's death: the coordinator stops, or a worker lets no other thread run."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from cluster import LocalCluster
from cluster.spec import load_codec
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from tests.cluster.conftest import spec, until  # noqa: F401

PAUSE_S = 1.5
CROWD = 100


@contextmanager
def crowd(endpoint: str, codec, heartbeat_s: float) -> Iterator[None]:
    """A hundred workers that only say that they are there, from one thread."""
    context = zmq.Context()
    sockets = [context.socket(zmq.DEALER) for _ in range(CROWD)]
    epochs: dict[int, int] = {}
    ended = threading.Event()

    def say(number, event):
        for frames in codec.encode([event]):
            sockets[number].send_multipart(frames)

    def beat():
        while not ended.wait(heartbeat_s):
            for number in range(CROWD):
                say(number, on.WorkerHeartbeat(f"crowd-{number}", epochs[number], []))

    for number, socket in enumerate(sockets):
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        say(number, on.WorkerJoined(f"crowd-{number}", 1, 1, 1, ["odd"]))
    for number, socket in enumerate(sockets):
        (welcome,) = codec.actions(socket.recv_multipart())
        assert isinstance(welcome, do.Welcome)
        epochs[number] = welcome.epoch
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        context.destroy(linger=0)


def test_a_coordinator_that_stopped_takes_none_of_a_hundred_workers_for_dead(spec, until):  # noqa: F811
    heartbeat_s = spec.limits.heartbeat_s
    with (
        LocalCluster(2, spec) as local,
        local.client() as client,
        crowd(local.endpoint, load_codec(spec), heartbeat_s),
    ):
        held = [client.submit("sleep", b"2") for _ in range(2)]
        until(lambda: client.status().assigned == 2)
        for _ in range(2):
            local.coordinator.suspend()
            threading.Event().wait(PAUSE_S)
            local.coordinator.resume()
            assert len(client.status().workers) == CROWD + 2
        assert [future.result(20.0) for future in held] == [b"2", b"2"]
        counters = client.status().counters
        assert not {"workers_lost", "lost", "clients_lost", "stale_messages"} & counters.keys()
        assert counters["pauses"] == 2


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_on_one_core_with_four_busy_programs_nobody_is_taken_for_dead_in_a_minute(spec):  # noqa: F811
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        with LocalCluster(2, spec) as local, local.client() as client:
            ids = [local.coordinator_pid, local.crew.pid, *(w.pid for w in local.workers)]
            for pid in [*ids, *(one.pid for one in busy)]:
                os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})
            end_s = time.monotonic() + 60.0
            while time.monotonic() < end_s:
                payloads = [b"%d" % number for number in range(50)]
                assert list(client.map("echo", payloads, timeout=30.0)) == payloads
                assert client.submit("spin", b"0.02").result(30.0) == b"0.02"
            counters = client.status(30.0).counters
            assert not {"workers_lost", "worker_deaths", "clients_lost"} & counters.keys()
    finally:
        for one in busy:
            one.kill()
            one.wait()
