"""The events of a socket and the packets of a port, of real connections."""

import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from perfkit.profile import network
from perfkit.profile.network import capture_packets, watch_socket


def packets_of(data: bytes) -> list[bytes]:
    """What a pcap file holds of each packet."""
    found, at = [], 24
    while at < len(data):
        _, _, kept, whole = struct.unpack_from("<IIII", data, at)
        assert kept <= whole
        found.append(data[at + 16 : at + 16 + kept])
        at += 16 + kept
    return found


def talk() -> tuple[int, Callable[[bytes], None], Callable[[], None]]:
    """The port of a TCP connection, what sends and reads on it, and what closes it."""
    listening = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listening.getsockname())
    far, _ = listening.accept()

    def say(text: bytes) -> None:
        near.sendall(text)
        assert far.recv(len(text), socket.MSG_WAITALL) == text

    def close() -> None:
        for one in (near, far, listening):
            one.close()

    return listening.getsockname()[1], say, close


def test_a_socket_that_finds_and_loses_its_peer_tells_so() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    dealer.linger = router.linger = 0
    dealer.set(zmq.RECONNECT_IVL, 10)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    with watch_socket(dealer) as watch:
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(b"hello")
        assert router.recv_multipart()[1] == b"hello"
        while not watch.counts["connected"]:  # another thread counts
            dealer.poll(10)
        router.close()
        while not watch.counts["connect_retried"]:
            dealer.poll(10)
    counts, series = watch.counts, watch.series()
    assert counts["connected"] == counts["handshake_succeeded"] == 1
    assert counts["disconnected"] >= 1
    assert {name: len(times) for name, times in series.items()} == {
        f"{name}_at_s": count for name, count in counts.items()
    }
    assert series["connected_at_s"] < series["disconnected_at_s"] < series["connect_retried_at_s"]
    context.destroy(linger=0)


def test_a_socket_may_close_while_it_is_watched() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    with watch_socket(dealer):
        dealer.close(linger=0)
    context.term()


def test_the_packets_of_a_port_and_no_others_are_captured(tmp_path: Path) -> None:
    port, say, close = talk()
    _, say_elsewhere, close_elsewhere = talk()
    with capture_packets(port, tmp_path / "new" / "some.pcap") as capture:
        if capture.reason:
            pytest.skip(capture.reason)
        say(b"perfkit " * 100)
        say_elsewhere(b"not ours" * 100)
    close()
    close_elsewhere()
    packets = packets_of(capture.path.read_bytes())
    assert len(packets) == capture.packets >= 1
    assert capture.path.stat().st_mode & 0o777 == 0o600
    assert any(b"perfkit perfkit" in packet for packet in packets)
    assert not any(b"not ours" in packet for packet in packets)
    assert max(map(len, packets)) <= network.KEPT_BYTES
    assert capture.wire_bytes >= 800 + 54 * capture.packets


def test_a_capture_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "FILE_BYTES_MAX", 100)
    port, say, close = talk()
    with capture_packets(port, tmp_path / "some.pcap") as capture:
        if capture.reason:
            pytest.skip(capture.reason)
        for _ in range(10):
            say(b"x" * 500)
    close()
    assert capture.dropped > 0
    kept = len(packets_of(capture.path.read_bytes()))
    assert kept == capture.packets - capture.dropped


def test_without_permission_there_is_a_reason_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(network.socket, "socket", refuse)
    with capture_packets(1, tmp_path / "some.pcap") as capture:
        pass
    assert "Operation not permitted; it needs Linux and CAP_NET_RAW" in capture.reason
    assert not capture.path.exists()
