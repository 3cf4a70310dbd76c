"""The supervisors: one a host, each sees the processes of its workers and can kill them."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.core.ledger import Ledger
from cluster.core.roster import Roster
from cluster.vocabulary import events as on


@dataclass(slots=True)
class HostState:
    """A supervisor and its last report."""

    last_seen: float
    report: on.HostReported


class Hosts:
    """All supervisors, by host. One that is silent for ``client_liveness_s`` is forgotten; then
    nobody vouches for its workers any more.
    """

    def __init__(self, ledger: Ledger, roster: Roster) -> None:
        self.by_name: dict[str, HostState] = {}
        self._ledger = ledger
        self._roster = roster
        self._limits = ledger.limits

    def reported(self, event: on.HostReported, now: float) -> None:
        """Take in what a supervisor sees of its workers' processes."""
        host = self.by_name.get(event.host)
        if host is None:
            if len(self.by_name) >= self._limits.hosts:
                self._ledger.counters["hosts_ignored"] += 1
                return
            host = self.by_name[event.host] = HostState(now, event)
            self._ledger.timers.set(("host", event.host), now + self._limits.client_liveness_s)
        host.last_seen, host.report = now, event
        for name, pid, state in event.workers:
            self._roster.seen(event.host, name, pid, state, now)

    def left(self, event: on.HostLeft, now: float) -> None:
        """Forget a supervisor; its workers may have another one from now on."""
        if self.by_name.pop(event.host, None) is None:
            return
        self._ledger.timers.clear(("host", event.host))
        for worker in self._roster.workers.values():
            if worker.supervisor == event.host:
                worker.supervisor = None

    def due(self, name: str, now: float) -> None:
        """Forget a supervisor that has been silent for too long."""
        due = self.by_name[name].last_seen + self._limits.client_liveness_s
        if due > now:
            self._ledger.timers.set(("host", name), due)
        else:
            self.left(on.HostLeft(name), now)

    def grant(self, pause_s: float) -> None:
        """Move forward what was seen before a pause of this process."""
        for host in self.by_name.values():
            host.last_seen += pause_s
