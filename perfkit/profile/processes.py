"""The process id of a running coordinator or worker, by its name.

A coordinator is the process that listens at the endpoint, and it knows its workers by name, with
host and process id. So a cluster on this machine is found however it was started, without a file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import psutil

from cluster.shells.client import Client
from cluster.spec import DEFAULT_ENDPOINT, ClusterSpec
from cluster.vocabulary.errors import ClusterError, did_you_mean

COORDINATOR = "coordinator"
ANSWER_WITHIN_S = 3.0


class ProcessNotFound(ClusterError):
    """No process of this machine has that name; the message lists the names there are."""


def find_process(
    name: str, endpoint: str = DEFAULT_ENDPOINT, *, spec: ClusterSpec | None = None
) -> int:
    """The process id of "coordinator", or of a worker of the cluster at `endpoint` by its name.

    `spec` is the cluster's; without one the coordinator's is adopted. Raises ProcessNotFound
    when no process of this machine has that name, Unreachable when the coordinator does not
    answer, and ProtocolError when it answers by another spec.
    """
    if name == COORDINATOR:
        return _listener(endpoint)
    with Client(endpoint, spec=spec) as client:
        workers = {one.worker: one for one in client.status(ANSWER_WITHIN_S).workers}
    worker = workers.get(name)
    if worker is None:
        there = ", ".join([COORDINATOR, *sorted(workers)])
        hint = did_you_mean(name, [COORDINATOR, *workers])
        raise ProcessNotFound(f"nothing at {endpoint} is called {name!r}; there are {there}{hint}")
    if worker.host != socket.gethostname() or not psutil.pid_exists(worker.pid):
        raise ProcessNotFound(
            f"{name} is process {worker.pid} on {worker.host}, outside this machine or container; "
            "look at it from there"
        )
    return worker.pid


def _listener(endpoint: str) -> int:
    """The one process that listens at an endpoint, perhaps with several sockets."""
    pids = {found.pid for found in _sockets_at(endpoint)}
    known = sorted(pid for pid in pids if pid)
    if len(known) == 1:
        return int(known[0])
    if pids:
        found = f"processes {known} listen" if known else "a process of another user listens"
        raise ProcessNotFound(f"{found} at {endpoint}; look at it as that user, or as root")
    raise ProcessNotFound(
        f"no process of this machine listens at {endpoint}; start a cluster with "
        "`perfkit cluster up`, or say where it is"
    )


def _sockets_at(endpoint: str) -> Iterator[Any]:
    """The sockets of this machine that are bound to an endpoint, tcp://HOST:PORT or ipc://PATH."""
    if endpoint.startswith("ipc://"):
        path = os.path.abspath(endpoint.removeprefix("ipc://"))
        # The address of a socket file is its path, unlike psutil's types say.
        unix: list[Any] = list(psutil.net_connections("unix"))
        yield from (one for one in unix if one.laddr and os.path.abspath(one.laddr) == path)
        return
    host, port = _host_and_port(endpoint)
    here = {address.address for found in psutil.net_if_addrs().values() for address in found}
    local = host in here or ip_address(host).is_loopback
    tcp: list[Any] = list(psutil.net_connections("tcp"))
    for one in tcp:
        listens = one.status == psutil.CONN_LISTEN and one.laddr.port == port
        if listens and (
            one.laddr.ip == host or (local and ip_address(one.laddr.ip).is_unspecified)
        ):
            yield one


def _host_and_port(endpoint: str) -> tuple[str, int]:
    """An endpoint's address as numbers; raises ProcessNotFound if it has none."""
    try:
        url = urlsplit(endpoint)
        if url.scheme != "tcp" or not url.hostname or not url.port:
            raise ValueError(endpoint)
        found = socket.getaddrinfo(url.hostname, url.port, type=socket.SOCK_STREAM)
    except (ValueError, OSError) as error:
        raise ProcessNotFound(
            f"{endpoint!r} is no endpoint of a running coordinator ({error}); write it as "
            f"{DEFAULT_ENDPOINT} or ipc://PATH"
        ) from None
    return str(found[0][4][0]), url.port
