"""A pause is nobody's death: the coordinator stops, or a worker lets no other thread run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
