"""Endpoints that are taken, and more peers than there are descriptors."""

import os
import signal
import socket
import time
from contextlib import ExitStack, suppress

import pytest
from msgspec.structs import replace

from cluster import Client, ClusterCoordinator, LocalCluster
from cluster.vocabulary.errors import ClusterError
from perfkit.optimized.specs import BASELINE
from tests.faults.raw import connect, coordinator, is_cut, port_of

TIMEOUT_S = 10
#: the part of its time that a process may compute
SPINNING = 0.5


def test_an_ipc_path_in_use_is_refused(tmp_path, spec):
    endpoint = f"ipc://{tmp_path}/socket"
    with ClusterCoordinator(spec, endpoint), Client(endpoint) as client:
        with pytest.raises(ClusterError, match=r"cannot listen at ipc://.*socket: it is in use"):
            ClusterCoordinator(spec, endpoint)
        client.status()
    assert os.listdir(tmp_path) == []
    with ClusterCoordinator(spec, endpoint), Client(endpoint) as client:
        client.status()


def test_an_ipc_path_of_another_program_is_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{tmp_path}/socket")
        other.listen()
        with pytest.raises(ClusterError, match="it is in use"):
            ClusterCoordinator(bind=f"ipc://{tmp_path}/socket")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ClusterError, match="a file that is no socket is there"):
        ClusterCoordinator(bind=f"ipc://{tmp_path}/file")
    assert (tmp_path / "file").read_text() == "precious"


def test_an_ipc_path_of_a_dead_coordinator_is_taken_over(tmp_path):
    endpoint = f"ipc://{tmp_path}/socket"
    with coordinator(BASELINE, bind=endpoint) as dead:
        os.kill(dead.process.pid, signal.SIGKILL)
        dead.process.wait()
        assert (tmp_path / "socket").exists()
        with ClusterCoordinator(bind=endpoint), Client(endpoint) as client:
            client.status()


def test_a_folder_without_write_permission_is_named(tmp_path):
    with pytest.raises(ClusterError, match=r"nowhere/socket\.lock: No such file"):
        ClusterCoordinator(bind=f"ipc://{tmp_path}/nowhere/socket")


def test_a_cluster_listens_and_works_over_ipv6(spec):
    with (
        LocalCluster(1, spec, bind="tcp://[::1]:*") as local,
        Client(local.endpoint) as client,
    ):
        assert local.endpoint.startswith("tcp://[::1]:")
        assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_no_descriptor_is_left_and_peers_are_told(until):
    with ExitStack() as stack:
        running = stack.enter_context(coordinator(BASELINE, descriptors=160))
        first = stack.enter_context(Client(running.endpoint))
        peers = [connect(running.endpoint) for _ in range(60)]
        with pytest.raises(ClusterError, match=r"refuses this peer: .* no descriptor is left"):
            Client(running.endpoint)
        before_s, begin_s = running.busy_s, time.monotonic()
        cut = [peer for peer in peers if is_cut(peer, 0.05)]
        assert 0 < len(cut) < 60
        assert running.busy_s - before_s < SPINNING * (time.monotonic() - begin_s)
        assert first._loop.exchange.refusal is None
        for peer in peers:
            peer.close()
        until(lambda: is_welcome(running.endpoint))


def test_a_flood_of_connections_makes_nobody_spin(until):
    with ExitStack() as stack:
        hasty = replace(BASELINE, sockets=replace(BASELINE.sockets, hello_s=0.3))
        running = stack.enter_context(coordinator(hasty, descriptors=160))
        address = "127.0.0.1", port_of(running.endpoint)
        before_s, begin_s = running.busy_s, time.monotonic()
        flood = []
        for _ in range(400):
            with suppress(ConnectionError):  # it may not listen for a moment
                flood.append(stack.enter_context(socket.create_connection(address)))
        assert len(flood) > 100
        assert all(is_cut(peer, 20.0) for peer in flood)
        assert running.busy_s - before_s < SPINNING * (time.monotonic() - begin_s)
        until(lambda: is_welcome(running.endpoint))


def is_welcome(endpoint):
    try:
        with Client(endpoint) as client:
            client.status()
    except ClusterError:
        return False
    return True
