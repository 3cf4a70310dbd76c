"""A worker's side of the protocol, sans-IO like the scheduler: the leases it holds and its epoch.

worker.py puts sockets and threads around it, the simulator a network that loses, repeats and
delays. It takes no lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from cluster.protocol.held_lease import HeldLease
from cluster.protocol.stored_results import FinishedTasks
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import NO_LOAD, Failure, Gpu, KindBatches, Load

MAX_RECENT = 4_096
#: what changes with a worker's offers
OFFERS = ("kinds", "models", "batches")


class WorkerSession:
    """A worker's leases and epoch. Work is claimed from it and reported through it."""

    def __init__(
        self,
        name: str,
        incarnation: int,
        capacity: int,
        credit: int,
        kinds: Sequence[str],
        models: Sequence[str] = (),
        gpus: Sequence[Gpu] = (),
        host: str = "?",
        pid: int = 0,
        batches: Mapping[str, int] | None = None,
        stored_bytes_max: int = Limits().stored_result_bytes,
        wanted: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.incarnation = incarnation
        self.epoch: int | None = None
        self._last_epoch = 0
        self.heartbeat_s: float | None = None
        self.draining = False
        self.leases: dict[int, HeldLease] = {}
        #: leases that nobody works on, in order of arrival
        self.ready: deque[HeldLease] = deque()
        #: the newest leases, so that a repeated message does not start one again
        self._recent: dict[int, None] = {}
        #: the newest cancellations of leases that are on their way, on another connection
        self._early: dict[int, list[int]] = {}
        #: leases with large results that are not fetched yet
        self.storing: dict[int, HeldLease] = {}
        self._stored_bytes_max = stored_bytes_max
        #: orders to be carried out: the models that it is wanted to serve, and to drain and end
        self._wanted: list[str] | None = None
        self._is_dismissed = False
        #: what it offers, and whether the coordinator has still to acknowledge it
        self._offered = on.WorkerOffers(
            name, 0, list(kinds), list(models), batches=dict(batches or {})
        )
        self._has_news = False
        offers = list(kinds), list(models), list(gpus)
        self._introduction = on.WorkerJoined(
            name, incarnation, capacity, credit, *offers, host, pid, wanted=list(wanted)
        )

    def introduction(self, again: bool = False) -> list[on.Event]:
        """The event that asks for a welcome; nothing once there was one, unless it is said
        ``again``, on a new connection.
        """
        if self.epoch is not None and not again:
            return []
        now: dict[str, Any] = {name: getattr(self._offered, name) for name in OFFERS}
        return [replace(self._introduction, epoch=self._last_epoch, **now)]

    def heartbeat(
        self,
        load: Load = NO_LOAD,
        batches: Sequence[KindBatches] = (),
        wants: Mapping[str, int] | None = None,
        credit: int = 0,
    ) -> list[on.Event]:
        """Events to send regularly: its leases, its host's load, how its batches formed and what it
        wants for the next ones, its offers until they are acknowledged, and its stored results.
        """
        if self.epoch is None:
            return []
        facts = list(self.leases), load, list(batches), dict(wants or {}), credit
        beat = on.WorkerHeartbeat(self.name, self.epoch, *facts)
        stored = [e for lease in self.storing.values() for e in self._announce(lease)]
        return [beat, *self._offers(), *stored]

    def offer(
        self,
        kinds: Sequence[str],
        models: Sequence[str],
        trouble: str = "",
        batches: Mapping[str, int] | None = None,
    ) -> list[on.Event]:
        """Offer these kinds and models from now on; ``trouble`` names a model that could not be
        loaded, and why. Returns the events that say so and give back what is not started of other
        kinds; heartbeats repeat them.
        """
        return self._change_offers(
            kinds=list(kinds), models=list(models), trouble=trouble, batches=dict(batches or {})
        )

    def refuse(self, wanted: Sequence[str]) -> list[on.Event]:
        """The events that say that this worker can't change its models as it is wanted to."""
        models = self._offered.models
        odd = sorted({*wanted} ^ {*models})
        trouble = f"it can't load or unload models while it runs: {', '.join(odd)}"[:1_000]
        return self._change_offers(trouble=trouble if odd else "")

    def handle(self, action: do.Action, now: float = 0.0) -> list[on.Event]:
        """Take in one message from the coordinator; returns the answers."""
        if isinstance(action, do.Assign):
            return self._assigned(action, now)
        if isinstance(action, do.Welcome):
            if action.incarnation == self.incarnation and action.epoch != self.epoch:
                self._drop_all()
                self.epoch = self._last_epoch = action.epoch
                self.heartbeat_s = action.heartbeat_s
                self._offered = replace(self._offered, heard=0)
                self._has_news = self._offered.revision > 0
                return self._farewell() if self.draining else self._offers()
        elif isinstance(action, do.Disconnect):
            if self.epoch is None or action.epoch == self.epoch:
                self._drop_all()
                self.epoch = None
        elif isinstance(action, do.Recall):
            lease = self.leases.get(action.lease)
            return self._release(lease) if lease is not None else []
        elif isinstance(action, do.Cancel):
            lease = self.leases.get(action.lease)
            if lease is not None:
                return self._cancel(lease, action.positions)
            self._note_early(action)
        elif isinstance(action, do.Read):
            return self._read(action)
        elif isinstance(action, do.Serve | do.Drain | do.Acknowledge):
            return self._obey(action) if action.epoch == self.epoch else []
        return []

    @property
    def has_orders(self) -> bool:
        """Whether `orders` has any."""
        return self._wanted is not None or self._is_dismissed

    def orders(self) -> tuple[list[str] | None, bool]:
        """The coordinator's orders since the last call: the models that it is wanted to serve, and
        whether to drain and end.
        """
        orders = self._wanted, self._is_dismissed
        self._wanted, self._is_dismissed = None, False
        return orders

    def take(self) -> HeldLease | None:
        """The oldest lease that nobody works on, now the caller's; None without work, or without
        room for more large results.
        """
        if self.storing and self._stored_bytes() >= self._stored_bytes_max:
            return None
        while self.ready:
            lease = self.ready.popleft()
            if lease.pending:
                return lease
        return None

    def take_like(self, lease: HeldLease, most: int) -> list[HeldLease]:
        """Leases of the same kind that nobody works on, now the caller's, oldest first, with at
        least ``most`` tasks in all if there are as many.
        """
        taken: list[HeldLease] = []
        others: list[HeldLease] = []
        while self.ready and most > 0:
            one = self.ready.popleft()
            if one.kind != lease.kind:
                others.append(one)
            elif one.pending:
                taken.append(one)
                most -= len(one.pending)
        self.ready.extendleft(reversed(others))
        return taken

    def put_back(self, leases: Sequence[HeldLease]) -> None:
        """Let go of leases that are still held and have work left; they come first again."""
        kept = [x for x in leases if x.pending and self.leases.get(x.id) is x]
        self.ready.extendleft(reversed(kept))

    def report(
        self,
        lease: HeldLease,
        outcomes: list[bytes],
        failures: list[Failure],
        started_at: float,
        ended_at: float,
    ) -> list[on.Event]:
        """Events that report outcomes of a lease's next tasks, in order; none if the lease is not
        held any more.
        """
        if self.leases.get(lease.id) is not lease:
            return []
        if lease.stored is not None:
            self.storing[lease.id] = lease
            finished = FinishedTasks(outcomes, failures, started_at, ended_at)
            lease.stored.behind.append(finished)
            return self._go_on(lease)
        event = self._finished(lease, outcomes, failures, started_at, ended_at)
        if lease.reported >= lease.stop:
            self._close(lease)
        return [event]

    def give_back(self, lease: HeldLease) -> list[on.Event]:
        """Give back the unstarted tasks of a lease, which would wait behind a large result."""
        return self._release(lease) if self.leases.get(lease.id) is lease else []

    def drain(self) -> list[on.Event]:
        """Events that ask for no more work and give back what is not started."""
        self.draining = True
        if self.epoch is None:
            return []
        events = self._farewell()
        for lease in list(self.leases.values()):
            events += self._release(lease)
        return events

    def is_finished(self, forsaken: bool) -> bool:
        """Whether nothing is left to finish; stored results do not count if ``forsaken``, that is
        if nobody fetches them.
        """
        return not self.leases or (forsaken and all(x.stored for x in self.leases.values()))

    def leave(self, reason: str = "") -> list[on.Event]:
        """Drop all leases; returns the goodbye."""
        epoch, self.epoch = self.epoch, None
        self._drop_all()
        return [] if epoch is None else [on.WorkerLeft(self.name, epoch, reason)]

    def _assigned(self, action: do.Assign, now: float) -> list[on.Event]:
        if action.epoch != self.epoch or action.lease in self._recent:
            return []
        self._recent[action.lease] = None
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]
        lease = self.leases[action.lease] = HeldLease(action, now)
        if self.draining:
            return self._farewell() + self._release(lease)
        if action.kind not in self._offered.kinds:
            return self._release(lease)
        self.ready.append(lease)
        unwanted = self._early.pop(action.lease, None)
        return [] if unwanted is None else self._cancel(lease, unwanted)

    def _note_early(self, action: do.Cancel) -> None:
        """Remember a cancellation that has come before its lease."""
        if action.epoch != self.epoch or action.lease in self._recent:
            return
        before = self._early.get(action.lease)
        everything = before == [] or not action.positions
        self._early[action.lease] = [] if everything else [*(before or ()), *action.positions]
        if len(self._early) > MAX_RECENT:
            del self._early[next(iter(self._early))]

    def _cancel(self, lease: HeldLease, positions: Sequence[int]) -> list[on.Event]:
        """Skip these tasks, or all that are not started. A lease that is not begun and has no other
        tasks is given back at once: its place is another's.
        """
        first = lease.next if lease.stored is None else lease.reported
        lease.cancelled.update(positions or range(first, lease.stop))
        is_unwanted = lease.cancelled.issuperset(range(lease.next, lease.stop))
        if lease.stored is None and lease.pending and is_unwanted and lease in self.ready:
            self.ready.remove(lease)
            return self._release(lease)
        return self._go_on(lease)

    def _obey(self, action: do.Serve | do.Drain | do.Acknowledge) -> list[on.Event]:
        if isinstance(action, do.Drain):
            self._is_dismissed = True
        elif isinstance(action, do.Acknowledge):
            self._has_news &= action.revision < self._offered.revision
        elif action.number > self._offered.heard:
            self._wanted = action.models
            self._introduction = replace(self._introduction, wanted=action.models)
            return self._change_offers(heard=action.number)
        return []

    def _change_offers(self, **changes: Any) -> list[on.Event]:
        changes["revision"] = self._offered.revision + 1
        self._offered, self._has_news = replace(self._offered, **changes), True
        return self._offers()

    def _offers(self) -> list[on.Event]:
        """The events that say what it offers and give back the rest, until that is known."""
        if self.epoch is None or not self._has_news:
            return []
        events: list[on.Event] = [replace(self._offered, epoch=self.epoch)]
        for lease in list(self.leases.values()):
            if lease.kind not in self._offered.kinds:
                events += self._release(lease)
        return events

    def _farewell(self) -> list[on.Event]:
        """The event that a draining worker repeats to a coordinator that still sends work."""
        assert self.epoch is not None
        return [on.WorkerDraining(self.name, self.epoch)]

    def _release(self, lease: HeldLease) -> list[on.Event]:
        lease.give_back()
        if not lease.was_cut:  # else it is repeated: the first answer may have got lost
            return []
        if lease.reported >= lease.stop:
            self._close(lease)
        return [on.TasksReleased(self.name, lease.epoch, lease.id, lease.stop)]

    def _finished(
        self,
        lease: HeldLease,
        outcomes: list[bytes],
        failures: list[Failure],
        started_at: float,
        ended_at: float,
    ) -> on.TasksFinished:
        start = lease.reported
        lease.reported += len(outcomes)
        return on.TasksFinished(
            self.name, lease.epoch, lease.id, start, outcomes, failures, started_at, ended_at
        )

    # Large results

    def _stored_bytes(self) -> int:
        return sum(lease.stored.size_bytes for lease in self.storing.values() if lease.stored)

    def _go_on(self, lease: HeldLease) -> list[on.Event]:
        """Report the outcomes before the next wanted large result, and announce that one."""
        if lease.stored is None:
            return []
        lease.stored.drop(lease.cancelled)
        events: list[on.Event] = []
        while (ready := lease.stored.take(lease.reported)) is not None:
            events.append(self._finished(lease, *ready))
        if lease.reported >= lease.stop:
            self._close(lease)
        elif not lease.stored.results:
            self.storing.pop(lease.id, None)
        return events + self._announce(lease)

    def _announce(self, lease: HeldLease) -> list[on.Event]:
        """The event that the next task of a lease has a large result."""
        position = lease.reported
        if lease.stored is None or (size_bytes := lease.stored.announced(position)) is None:
            return []
        times = lease.stored.times()
        news = on.ResultStored(self.name, lease.epoch, lease.id, position, size_bytes, *times)
        return [news]

    def _read(self, action: do.Read) -> list[on.Event]:
        """A chunk of a stored result, uncopied; nothing if it is gone."""
        lease, position = self.leases.get(action.lease), action.position
        if lease is None or lease.stored is None or action.epoch != lease.epoch:
            return []
        chunk = lease.stored.chunk(position, action.offset, action.size_bytes)
        if chunk is None:
            return []
        return [on.ChunkRead(self.name, lease.epoch, lease.id, position, action.offset, [chunk])]

    def _close(self, lease: HeldLease) -> None:
        del self.leases[lease.id]
        self.storing.pop(lease.id, None)

    def _drop_all(self) -> None:
        for lease in self.leases.values():
            lease.give_back()
        self.leases.clear()
        self.storing.clear()
        self.ready.clear()
        # A new epoch may be another coordinator's, which counts its leases from 1 again.
        self._recent.clear()
        self._early.clear()
