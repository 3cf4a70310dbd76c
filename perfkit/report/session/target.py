"""Which cluster a report is about, and which of its processes run on this machine."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any, TypeAlias

import psutil

from cluster.local import CLUSTERS, LocalCluster
from cluster.shells.async_client import AsyncClient
from cluster.shells.client import Client
from cluster.shells.client_loop import LOOPS
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.status import Status
from perfkit.profile.processes import COORDINATOR, find_process
from perfkit.report.engine.outcome import ReportError

CLIENT = "this process"
WORKERS = "workers"
#: What names a cluster: itself, a client of it, or its endpoint.
Source: TypeAlias = LocalCluster | Client | AsyncClient | str | None


@dataclass(frozen=True, slots=True)
class Target:
    """A running cluster: where it listens, and its spec if that is known."""

    endpoint: str
    spec: ClusterSpec | None


def find_target(source: Source) -> Target:
    """The cluster that `source` names; without it, the one that this process has open.

    Raises ReportError if `source` is no cluster or does not run, and without it unless exactly one
    is open here.
    """
    if isinstance(source, str):
        return Target(source, None)
    if source is not None:
        endpoint = getattr(source, "endpoint", None)
        if not isinstance(endpoint, str):
            raise ReportError(
                "a performance report is about a LocalCluster, a Client or an endpoint such as "
                f"'tcp://127.0.0.1:5555', not {source!r:.100}"
            )
        if not endpoint or (isinstance(source, LocalCluster) and not source.is_running):
            raise ReportError("the cluster is not running; start it before its report begins")
        return Target(endpoint, getattr(source, "spec", None))
    found: dict[str, Any] = {
        loop.exchange.endpoint: loop.exchange.spec for loop in list(LOOPS) if not loop.closing
    }
    found |= {local.endpoint: local.spec for local in list(CLUSTERS) if local.is_running}
    if len(found) == 1:
        ((endpoint, spec),) = found.items()
        return Target(endpoint, spec)
    call = 'performance_report("run.html", cluster)'
    if found:
        raise ReportError(
            f"{len(found)} clusters are open in this process ({', '.join(sorted(found))}); say "
            f"which one: {call}"
        )
    raise ReportError(
        f"no cluster is open in this process; open a LocalCluster or a Client first, or name one: "
        f"{call}"
    )


class Processes:
    """The cluster's processes on this machine, and this one: their processor time and memory."""

    def __init__(self, endpoint: str) -> None:
        self._known: dict[tuple[str, int], psutil.Process] = {}
        self._gone_s: dict[str, float] = {}
        self._last_s: dict[tuple[str, int], float] = {}
        self._add(CLIENT, os.getpid())
        self.no_coordinator = ""
        try:
            pid = find_process(COORDINATOR, endpoint)
            if pid == os.getpid():
                self.no_coordinator = "The coordinator runs in this process, whose time is both's."
            else:
                self._add(COORDINATOR, pid)
        except (ClusterError, psutil.Error) as error:
            self.no_coordinator = f"The coordinator's process is not watched: {error}."

    def look(self, status: Status | None) -> dict[str, tuple[int, float, int]]:
        """By role: how many processes, their processor time so far in s, and their RSS in bytes.

        The time of a process that has ended stays in its role's sum. A role without a process on
        this machine is left out.
        """
        for worker in status.workers if status is not None else ():
            if worker.host == socket.gethostname():
                self._add(WORKERS, worker.pid)
        found: dict[str, tuple[int, float, int]] = {}
        for (role, pid), process in list(self._known.items()):
            try:
                times, rss_bytes = process.cpu_times(), process.memory_info().rss
            except psutil.Error:
                del self._known[role, pid]
                lost_s = self._last_s.pop((role, pid), 0.0)
                self._gone_s[role] = self._gone_s.get(role, 0.0) + lost_s
                continue
            used_s = self._last_s[role, pid] = times.user + times.system
            count, cpu_s, held_bytes = found.get(role, (0, self._gone_s.get(role, 0.0), 0))
            found[role] = count + 1, cpu_s + used_s, held_bytes + rss_bytes
        return found

    def _add(self, role: str, pid: int) -> None:
        if (role, pid) not in self._known:
            try:
                self._known[role, pid] = psutil.Process(pid)
            except psutil.Error:
                return  # it ended since the coordinator heard of it
