"""A running coordinator or worker is found by its name, and watched by it; who is not, is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
import pytest

from cluster import LocalCluster
from cluster.shells.client import Client
from cluster.spec import BASELINE
from cluster.vocabulary.errors import Unreachable
from perfkit.profile import attach_memory, find_process
from perfkit.profile.processes import ProcessNotFound


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    with LocalCluster(2) as cluster:
        yield cluster


@pytest.fixture
def listening() -> Iterator[str]:
    """An endpoint of this very process, where nobody will answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://localhost:{server.getsockname()[1]}"


def test_each_role_is_the_process_that_was_started_for_it(local: LocalCluster) -> None:
    assert find_process("coordinator", local.endpoint) == local.coordinator_pid
    found = [find_process(f"worker-{number}", local.endpoint) for number in range(2)]
    assert found == [worker.pid for worker in local.workers]


@pytest.mark.parametrize("name", ["coordinator", "worker-1"])
def test_a_role_is_watched_by_its_name(local: LocalCluster, name: str) -> None:
    with attach_memory(name, local.endpoint, spec=local.spec, interval_s=0.001) as watch:
        while watch.series.seen < 3:
            watch.wait(0.001)
    series = watch.series
    assert (series.role, series.reason) == (name, None)
    assert {row.role for row in series.findings()} == {name}
    assert series.last is not None
    assert series.last.rss_bytes > 2**20
    if series.last.pss_bytes is not None:
        assert series.last.pss_bytes <= series.last.rss_bytes


def test_a_name_that_nobody_has_is_answered_with_those_there_are(local: LocalCluster) -> None:
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
    with pytest.raises(ProcessNotFound, match=r"worker-0 is process .* on rack-7, not of this"):
        find_process("worker-0", local.endpoint)


def test_a_coordinator_on_a_socket_file_is_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        assert find_process("coordinator", f"ipc://{tmp_path}/socket") == os.getpid()


def test_a_coordinator_that_listens_at_every_address_is_found_by_any_of_ours() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        assert find_process("coordinator", f"tcp://127.0.0.1:{port}") == os.getpid()
        with pytest.raises(ProcessNotFound, match="no process of this machine listens"):
            find_process("coordinator", f"tcp://192.0.2.1:{port}")


def test_nobody_at_the_endpoint_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ProcessNotFound, match="start a cluster with `perfkit cluster up`"):
        find_process("coordinator", f"ipc://{tmp_path}/nobody")


def test_a_coordinator_that_does_not_answer_is_unreachable(
    listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfkit.profile.processes.ANSWER_WITHIN_S", 0.05)
    assert find_process("coordinator", listening) == os.getpid()
    with pytest.raises(Unreachable, match="no coordinator answers"):
        find_process("worker-0", listening, spec=BASELINE)


@pytest.mark.parametrize(
    "endpoint", ["localhost", "tcp://127.0.0.1", "tcp://127.0.0.1:x", "udp://h:1"]
)
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ProcessNotFound, match="is no endpoint of a running coordinator"):
        find_process("coordinator", endpoint)


class Address(NamedTuple):
    ip: str
    port: int


class Listening(NamedTuple):
    laddr: Address
    pid: int | None
    status: str = psutil.CONN_LISTEN


@pytest.mark.parametrize(
    ("pids", "who"), [([None], "a process of another user"), ([7, 8], r"processes \[7, 8\]")]
)
def test_a_listener_that_cannot_be_told_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, pids: list[int | None], who: str
) -> None:
    def connections(kind: str) -> list[Any]:
        return [Listening(Address("127.0.0.1", 5577), pid) for pid in pids]

    monkeypatch.setattr(psutil, "net_connections", connections)
    with pytest.raises(ProcessNotFound, match=f"{who} listen"):
        find_process("coordinator")
