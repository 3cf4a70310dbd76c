"""A link that is cut passes nothing, closes nothing, and forgets nothing."""

import socket
import threading

import pytest

from perfkit.bench.workloads.two_hosts import Link


def test_a_cut_link_holds_bytes_back_in_both_directions() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = Link(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        port = int(link.endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as near:
            far, _ = server.accept()
            with far:
                near.sendall(b"there")
                assert far.recv(10) == b"there"
                link.cut()
                near.sendall(b"later")
                far.sendall(b"back")
                for end in (near, far):
                    end.settimeout(0.1)
                    with pytest.raises(TimeoutError):
                        end.recv(10)
                    end.settimeout(5.0)
                link.mend()
                assert (far.recv(10), near.recv(10)) == (b"later", b"back")
                link.close()
                assert near.recv(10) == b""
                assert far.recv(10) == b""
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("link") <= 1


def test_a_link_outlives_its_target() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = server.getsockname()
        link = Link(f"tcp://127.0.0.1:{target[1]}")
    port = int(link.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as refused:
        assert refused.recv(10) == b""
    with (
        socket.create_server(target),
        socket.create_connection(("127.0.0.1", port)) as near,
    ):
        near.settimeout(0.1)
        with pytest.raises(TimeoutError):
            near.recv(10)
    link.close()
