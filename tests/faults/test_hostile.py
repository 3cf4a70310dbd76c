"""Peers that send without end, or say nothing, harm only themselves."""

import struct
import threading
import time

import pytest

from cluster import Client
from perfkit.optimized.specs import BASELINE, OPTIMIZED
from tests.faults.raw import EMPTY, LAST, connect, coordinator, is_cut, port_of

MIB = 1 << 20
FLOODS = 6
#: a deadline that only a fault reaches
SOON_S = 60.0


@pytest.fixture(scope="module", params=[BASELINE, OPTIMIZED], ids=lambda spec: spec.name)
def running(request):
    with (
        coordinator(request.param) as one,
        Client(one.endpoint, spec=request.param) as one.client,
    ):
        one.client.status()
        yield one


def sends(peer, piece):
    """Whether a peer is still connected, and has sent a piece."""
    try:
        peer.sendall(piece)
    except ConnectionError:
        return False
    return True


def test_a_message_of_300_000_frames_ends_its_senders_connection(running):
    peer = connect(running.endpoint)
    peer.sendall(EMPTY * 300_000 + LAST)
    assert is_cut(peer, SOON_S)
    assert running.client.status(SOON_S).counters["connections_oversized"] >= 1


def test_questions_are_answered_while_messages_of_many_frames_are_thrown_away(running):
    """No question waits until all of them are thrown away."""
    thrown_away, done = [], threading.Event()

    def send():
        for number in range(FLOODS):
            peer = connect(running.endpoint)
            peer.sendall(EMPTY * 300_000 + LAST)
            is_cut(peer, SOON_S)
            thrown_away.append(number)
        done.set()

    thread = threading.Thread(target=send)
    thread.start()
    while not done.is_set():
        before = len(thrown_away)
        running.client.status(SOON_S)
        assert len(thrown_away) - before < FLOODS
    thread.join()


@pytest.mark.parametrize(
    "piece",
    [EMPTY * 100_000, b"\x03" + struct.pack(">Q", MIB) + bytes(MIB)],
    ids=["empty frames", "large frames"],
)
def test_a_message_without_an_end_takes_no_memory_without_one(running, piece):
    before = running.resident_bytes
    peer = connect(running.endpoint)
    most, end_s = 0, time.monotonic() + SOON_S
    while sends(peer, piece):
        most = max(most, running.resident_bytes - before)
        assert time.monotonic() < end_s
    assert most < 250 * MIB
    assert running.client.status(SOON_S).counters["connections_incomplete"] >= 1


@pytest.mark.parametrize("shakes_hands", [False, True])
def test_silent_connections_are_cut_and_lock_nobody_out(running, shakes_hands):
    import socket

    address = "127.0.0.1", port_of(running.endpoint)
    begin_s = time.monotonic()
    peers = [
        connect(running.endpoint, hello=False)
        if shakes_hands
        else socket.create_connection(address)
        for _ in range(241)
    ]
    with Client(running.endpoint, spec=running.client.spec) as newcomer:
        assert newcomer.status(timeout=2.0).clients >= 1
    assert all(is_cut(peer) for peer in peers)
    assert time.monotonic() - begin_s < 5.0
    for peer in peers:
        peer.close()
