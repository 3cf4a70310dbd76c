"""Sockets count their traffic, and listen to other machines only on request."""

import os
import signal
from collections import deque
from itertools import repeat
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from cluster.spec import BASELINE, ClusterSpec, SocketOptions
from cluster.transport import gate as gates
from cluster.transport.channel import READABLE, WRITABLE, Channel
from cluster.transport.endpoints import check_bind, is_loopback
from cluster.transport.hello import HELLO
from cluster.transport.wakeable import Listener, Waker
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.limits import Limits

SMALL = ClusterSpec(
    name="small",
    sockets=SocketOptions(high_water_mark=2, buffer_bytes=4096),
    limits=Limits(message_bytes=1000),
)


@pytest.fixture
def pair():
    """A ROUTER and a DEALER connected to it: ``pair(spec)``."""
    context = zmq.Context()
    channels = []

    def connect(spec=BASELINE):
        router, dealer = Channel(context, zmq.ROUTER, spec), Channel(context, zmq.DEALER, spec)
        channels.extend((router, dealer))
        port = router.socket.bind_to_random_port("tcp://127.0.0.1")
        dealer.connect(f"tcp://127.0.0.1:{port}")
        assert dealer.socket.poll(5000, zmq.POLLOUT)
        assert router.socket.poll(5000)
        assert router.socket.recv_multipart()[1:] == [HELLO]
        return router, dealer

    yield connect
    for channel in channels:
        channel.socket.linger = 0
        channel.close()
    context.term()


def test_a_socket_file_is_for_its_owner_only(tmp_path):
    context = zmq.Context()
    for endpoint in (f"ipc://{tmp_path}/socket", "ipc://*", f"ipc://@perfkit-{os.getpid()}"):
        channel = Channel(context, zmq.ROUTER, BASELINE)
        path = Path(channel.bind(endpoint).removeprefix("ipc://"))
        assert "@" in endpoint or path.stat().st_mode & 0o777 == 0o700
        channel.close()
    context.term()


def test_what_goes_through_a_channel_is_counted(pair):
    router, dealer = pair()
    dealer.send([b"abc", b"de"])
    assert router.socket.poll(5000)
    ((route, *frames),) = router.receive(10)
    router.send([route, b"back"])
    assert dealer.socket.poll(5000)
    assert list(dealer.receive(10)) == [[b"back"]]
    assert frames == [b"abc", b"de"]
    assert (dealer.messages_out, dealer.bytes_out, dealer.messages_in, dealer.bytes_in) == (
        1, 5, 1, 4,
    )  # fmt: skip
    assert (router.messages_in, router.bytes_in) == (1, len(route) + 5)


def test_a_router_passes_on_large_frames_uncopied_and_copies_its_own(pair, monkeypatch):
    spec = ClusterSpec(name="uncopied", sockets=SocketOptions(zero_copy_bytes=100))
    router, dealer = pair(spec)
    dealer.send([b"large" * 100])
    assert router.socket.poll(5000)
    ((route, large),) = router.receive(10)
    copied, put = [], router._put

    def note(frame, flags, copy):
        copied.append(copy)
        put(frame, flags, copy)

    monkeypatch.setattr(router, "_put", note)
    router.send([route, b"own" * 100, large])
    assert copied == [True, True, False]
    assert dealer.socket.poll(5000)
    ((own, passed_on),) = dealer.receive(10)
    assert (bytes(own), bytes(passed_on)) == (b"own" * 100, b"large" * 100)


def test_no_more_is_read_at_once_than_asked_for(pair, until):
    router, dealer = pair()
    for number in range(5):
        dealer.send([bytes([number])])
    assert router.socket.poll(5000)
    read = []
    while len(read) < 5:
        some = list(router.receive(2))
        assert len(some) <= 2
        read += some
    assert [frame for _, frame in read] == [bytes([number]) for number in range(5)]
    assert list(router.receive(2)) == []


def test_after_a_signal_one_message_is_read_without_a_question_and_the_others_are_not_lost(pair):
    router, dealer = pair()
    listener, asked, get = Listener(router, Waker()), [], router._get
    assert not router.readable()
    router._get = lambda option: asked.append(option) or get(option)
    for number in range(3):
        dealer.send([bytes([number])])
    listener.poll(5000)
    assert [frame for _, frame in router.receive(10)] == [b"\0"]
    assert not asked
    read = []
    while len(read) < 2:
        listener.wait(5000)
        read += [frame for _, frame in router.receive(10)]
    assert read == [b"\1", b"\2"]


def test_a_channel_is_quiet_only_until_it_is_used(pair):
    router, dealer = pair()
    assert not router.is_quiet  # nobody has asked
    assert not router.readable()
    assert router.is_quiet
    dealer.send([b"x"])
    assert router.socket.poll(5000)
    assert router.readable()
    assert not router.is_quiet
    ((route, _),) = router.receive(10)
    assert not router.ready(READABLE)
    assert router.is_quiet
    router.send([route, b"x"])
    assert not router.is_quiet
    assert router.ready(READABLE | WRITABLE)
    assert not router.is_quiet


def test_a_full_channel_or_an_absent_peer_is_an_error_at_once(pair):
    router, dealer = pair(SMALL)
    with pytest.raises(zmq.Again):
        deque(map(dealer.send, repeat([b"x" * 900], 10_000)), maxlen=0)
    with pytest.raises(zmq.ZMQError) as unknown:
        router.send([b"nobody", b"x"])
    assert unknown.value.errno == zmq.EHOSTUNREACH


def test_a_waker_wakes_a_poller_once_for_any_number_of_calls():
    waker, poller = Waker(), zmq.Poller()
    poller.register(waker.fileno(), zmq.POLLIN)
    assert poller.poll(0) == []
    for _ in range(2_000):  # more than the pipe holds
        waker.wake()
    assert poller.poll(0)
    waker.clear()
    assert poller.poll(0) == []
    waker.clear()
    waker.close()
    waker.wake()


def test_a_signal_wakes_a_poller_that_has_not_begun_to_wait():
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    waker, poller = Waker(), zmq.Poller()
    poller.register(waker.fileno(), zmq.POLLIN)
    waker.hear_signals()
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert poller.poll(0)
    finally:
        waker.close()
        signal.signal(signal.SIGUSR1, before)
    assert signal.set_wakeup_fd(-1) == -1


LOOPBACK = """
    tcp://127.0.0.1:* tcp://127.9.9.9:5555 tcp://localhost:5555 tcp://[::1]:5555 ipc:///tmp/socket
    ipc://@abstract
"""
BEYOND = """
    tcp://0.0.0.0:5555 tcp://*:5555 tcp://[::]:5555 tcp://192.168.0.7:5555 tcp://eth0:5555
    tcp://example.org:5555 tcp://127.0.0.1@0.0.0.0:5555 tcp://127.0.0.1;0.0.0.0:5555 tcp://[::1
    tcp://
"""


@pytest.mark.parametrize("endpoint", LOOPBACK.split())
def test_what_only_this_machine_can_reach_may_be_bound(endpoint):
    assert is_loopback(endpoint)
    check_bind(endpoint, insecure=False)


@pytest.mark.parametrize("endpoint", BEYOND.split())
def test_what_others_could_reach_needs_a_word(endpoint):
    assert not is_loopback(endpoint)
    with pytest.raises(ClusterError, match="--insecure"):
        check_bind(endpoint, insecure=False)
    check_bind(endpoint, insecure=True)


@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:5555", "udp://127.0.0.1:1", "inproc://x"])
def test_what_is_no_endpoint_is_refused_with_an_example(endpoint, insecure):
    with pytest.raises(ClusterError, match=r"tcp://127\.0\.0\.1:5555"):
        check_bind(endpoint, insecure)


@given(st.text())
def test_any_text_is_bound_or_refused(text):
    try:
        check_bind("tcp://" + text, insecure=False)
    except ClusterError:
        return
    assert is_loopback("tcp://" + text)


@pytest.mark.parametrize(("passed_mib", "cut"), [(0, 1), (200, 0)])
def test_no_peer_is_cut_for_memory_that_the_traffic_explains(monkeypatch, passed_mib, cut):
    resident = [0]
    monkeypatch.setattr(gates, "resident_bytes", lambda: resident[0])
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        gate = gates.Gate(context, router, BASELINE)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        with context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.connect(f"tcp://127.0.0.1:{port}")
            dealer.send(bytes(4 << 20))
            assert router.poll(5000)
            gate.sweep(0.0, 0, behind=False)
            resident[0] = 300 << 20
            gate.sweep(0.1, passed_mib << 20, behind=False)
            assert gate.cuts["incomplete"] == cut
        gate.close()
