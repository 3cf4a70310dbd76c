"""A running coordinator or worker is found by its name, or the error says what is there."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import psutil
import pytest

from cluster import LocalCluster
from cluster.shells.client import Client
from cluster.spec import BASELINE
from cluster.vocabulary.errors import Unreachable
from perfkit.profile.processes import ProcessNotFound, find_process


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    with LocalCluster(2) as cluster:
        yield cluster


def test_each_role_is_the_process_that_was_started_for_it(local: LocalCluster) -> None:
    assert find_process("coordinator", local.endpoint) == local.coordinator_pid
    found = [find_process(f"worker-{number}", local.endpoint) for number in range(2)]
    assert found == [worker.pid for worker in local.workers]


def test_an_unknown_name_is_answered_with_the_names_there_are(local: LocalCluster) -> None:
    there = r"there are coordinator, worker-0, worker-1; did you mean 'worker-1'\?"
    with pytest.raises(ProcessNotFound, match=there):
        find_process("worker1", local.endpoint)


def test_a_worker_of_another_host_is_not_looked_for_here(
    local: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = local.status()
    elsewhere = [msgspec.structs.replace(w, host="rack-7") for w in status.workers]
    moved = msgspec.structs.replace(status, workers=elsewhere)
    monkeypatch.setattr(Client, "status", lambda self, timeout: moved)
    with pytest.raises(ProcessNotFound, match=r"worker-0 is process .* on rack-7, outside this"):
        find_process("worker-0", local.endpoint)


def test_a_coordinator_on_a_socket_file_is_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        assert find_process("coordinator", f"ipc://{tmp_path}/socket") == os.getpid()
    with pytest.raises(ProcessNotFound, match="start a cluster with `perfkit cluster up`"):
        find_process("coordinator", f"ipc://{tmp_path}/nobody")


def test_a_coordinator_that_listens_at_every_address_is_found_by_any_of_ours() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        assert find_process("coordinator", f"tcp://127.0.0.1:{port}") == os.getpid()
        with pytest.raises(ProcessNotFound, match="no process of this machine listens"):
            find_process("coordinator", f"tcp://192.0.2.1:{port}")


def test_a_coordinator_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfkit.profile.processes.ANSWER_WITHIN_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = f"tcp://localhost:{server.getsockname()[1]}"
        assert find_process("coordinator", listening) == os.getpid()
        with pytest.raises(Unreachable, match="no coordinator answers"):
            find_process("worker-0", listening, spec=BASELINE)


@pytest.mark.parametrize(
    "endpoint", ["localhost", "tcp://127.0.0.1", "tcp://127.0.0.1:x", "udp://h:1"]
)
def test_an_impossible_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ProcessNotFound, match="is no endpoint of a running coordinator"):
        find_process("coordinator", endpoint)


@pytest.mark.parametrize(
    ("pids", "who"),
    [([None], "a process of another user listens"), ([7, 8], r"processes \[7, 8\] listen")],
)
def test_an_ambiguous_listener_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, pids: list[int | None], who: str
) -> None:
    here = SimpleNamespace(ip="127.0.0.1", port=5577)
    found = [SimpleNamespace(laddr=here, pid=pid, status=psutil.CONN_LISTEN) for pid in pids]
    monkeypatch.setattr(psutil, "net_connections", lambda kind: found)
    with pytest.raises(ProcessNotFound, match=who):
        find_process("coordinator")
