"""The coordinator's side of its clients: their submissions, and what they have received.

Submissions are numbered by their client, so a repeated message is recognised; results are retained
until the client acknowledges them, so a lost one can be delivered again. A refused number is over
like a received one: a late repeat must not start it, even if there is room by then.
"""

from __future__ import annotations

import math
from itertools import islice

from cluster.core.ledger import CANCELLED, Ledger
from cluster.core.rangeset import RangeSet, as_ranges
from cluster.core.run import Run
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.lifecycle import Cause
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.printable import count_of

#: the longest while between two answers to a client that acknowledges nothing
MAX_WAIT_S = 600.0
#: reminders that one heartbeat is answered
MAX_REMINDERS = 1_024
OVER = "it was refused, or is over"
LOST = "the coordinator lost it"
NEWER = "a newer client of the same name has taken its place"
STOPPING = "the coordinator is stopping; hand it in to the next one"
STOPPED = "the coordinator was stopped"


class Reminders:
    """When a client's reminders are answered with outcomes: twice per heartbeat, until
    ``resent_bytes`` were sent again that it has not acknowledged; then after a wait that doubles.

    So a peer that reminds and never reads can't make the coordinator hold much.
    """

    __slots__ = ("again_at", "left_bytes", "wait_s")

    def __init__(self, limits: Limits) -> None:
        self.again_at = -math.inf
        self.left_bytes = limits.resent_bytes
        self.wait_s = 0.0

    def answered(self, size_bytes: int, limits: Limits, now: float) -> None:
        """Reminders were answered with ``size_bytes`` of outcomes."""
        if not size_bytes:
            return
        self.left_bytes -= size_bytes
        self.again_at = now + limits.heartbeat_s / 2
        if self.left_bytes <= 0:
            self.left_bytes = limits.resent_bytes
            self.wait_s = min(max(limits.heartbeat_s, 2 * self.wait_s), MAX_WAIT_S)
            self.again_at = now + self.wait_s

    def acknowledged(self, size_bytes: int, limits: Limits) -> None:
        """The client has ``size_bytes`` of outcomes."""
        if size_bytes:
            self.left_bytes = min(self.left_bytes + size_bytes, limits.resent_bytes)
            self.again_at, self.wait_s = -math.inf, 0.0


class ClientState:
    """One client and the submissions that it has not acknowledged."""

    __slots__ = ("floor", "id", "last_seen", "over", "reminders", "submissions")

    def __init__(self, id: str, limits: Limits, now: float) -> None:
        self.id = id
        self.last_seen = now
        #: all submissions below this number are over
        self.floor = 0
        self.submissions: dict[int, Run] = {}
        #: submissions from the floor on that are over. A client that leaves no number out never
        #: reaches the bound; for another, the numbers it left out may count as over.
        self.over = RangeSet(limits.submissions_per_client + 1)
        self.reminders = Reminders(limits)


class Clients:
    """All clients, by name. A client that stays silent too long is dropped with its submissions.

    A name may end with "#" and an incarnation: the highest takes the place of those below.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.by_name: dict[str, ClientState] = {}
        #: the newest incarnation of each name that has any
        self._incarnations: dict[str, str] = {}
        #: whether nothing more is accepted
        self.is_closing = False
        self._ledger = ledger
        self._limits = ledger.limits

    def submitted(self, event: on.TasksSubmitted, now: float) -> None:
        """Accept a run, refuse it with a reason, or recognise it as a repeat."""
        client = self._seen(event.client, now, event.submission == 0)
        if client is None:
            if self._is_outdated(event.client):
                return self._refuse(event, NEWER, "Superseded")
            return self._refuse(
                event, f"there is room for {count_of(self._limits.clients, 'client')} only"
            )
        known = client.submissions.get(event.submission)
        if known is not None:
            self._ledger.out.append(do.Accept(client.id, event.submission, known.id))
        elif event.submission in client.over:
            # The client may have missed the refusal; one that received results ignores this.
            self._ledger.out.append(do.Refuse(client.id, event.submission, OVER))
        if known or event.submission < client.floor or event.submission in client.over:
            self._ledger.counters["duplicate_submissions"] += 1
            return None
        payload_bytes = sum(map(len, event.payloads))
        reason = self._full(client, len(event.payloads), payload_bytes)
        if reason is not None:
            client.over.add(event.submission)
            return self._refuse(event, reason)
        run = self._ledger.accept(event, payload_bytes, now)
        run.client = client.id  # each message has another string that says the same
        client.submissions[event.submission] = run
        return None

    def dismiss(self) -> None:
        """Tell every client which submissions will have no outcome."""
        for client in self.by_name.values():
            for submission, run in client.submissions.items():
                if run.open:
                    why = STOPPED, "CoordinatorLost"
                    self._ledger.out.append(do.Refuse(client.id, submission, *why))

    def are_owed(self) -> bool:
        """Whether a client has not acknowledged how a submission ended."""
        return any(client.submissions for client in self.by_name.values())

    def cancelled(self, event: on.TasksCancelled, now: float) -> None:
        """End the open tasks of some positions, or of all."""
        client = self.by_name.get(event.client)
        run = client.submissions.get(event.submission) if client is not None else None
        if run is None:
            self._ledger.counters["late_cancels"] += 1
            return
        spans = as_ranges(event.positions) if event.positions else [(0, run.count)]
        for start, stop in spans:
            self._ledger.end(run, (start, min(stop, run.count)), Cause.CANCELLED, CANCELLED, now)

    def heartbeat(self, event: on.ClientHeartbeat, now: float) -> None:
        """Forget what the client acknowledges, and send again what it seems to have missed."""
        client = self._seen(event.client, now)
        if client is None:
            if self._is_outdated(event.client):
                for submission, _ in event.waiting:
                    self._ledger.out.append(_superseded(event.client, submission))
            return
        heartbeat_s = self._limits.heartbeat_s
        self._ledger.out.append(do.Greet(client.id, heartbeat_s, event.received))
        retained_bytes = self._ledger.retained_bytes
        for submission in event.received:
            self._received(client, submission, now)
        if event.floor > client.floor:
            client.floor = event.floor
            for submission in [s for s in client.submissions if s < event.floor]:
                self._received(client, submission, now)
            client.over.forget_below(event.floor)
        for submission, start, stop in event.partly:
            run = client.submissions.get(submission)
            if run is not None:
                self._ledger.backpressure.add(client.id, -run.discard(start, stop))
        freed_bytes = retained_bytes - self._ledger.retained_bytes
        client.reminders.acknowledged(freed_bytes, self._limits)
        if event.waiting:
            self._reminded(client, dict(event.waiting), now)

    def left(self, event: on.ClientLeft, now: float) -> None:
        """Forget a client and its submissions."""
        client = self.by_name.pop(event.client, None)
        if client is None:
            return
        plain, _, incarnation = client.id.rpartition("#")
        if self._incarnations.get(plain) == incarnation:
            del self._incarnations[plain]
        self._ledger.timers.clear(("client", client.id))
        self._ledger.queue.forget(client.id)
        for run in client.submissions.values():
            self._ledger.forget(run, now)
        self._ledger.backpressure.forget(client.id)

    def shrink(self) -> None:
        """Release the memory of tables that are empty now."""
        for client in self.by_name.values():
            client.submissions.clear()

    def grant(self, pause_s: float) -> None:
        """Move forward what was seen before a pause of this process."""
        for client in self.by_name.values():
            client.last_seen += pause_s

    def due(self, name: str, now: float) -> None:
        """Drop a client if it has been silent for too long."""
        due = self.by_name[name].last_seen + self._limits.client_liveness_s
        if due > now:
            self._ledger.timers.set(("client", name), due)
        else:
            self._ledger.counters["clients_lost"] += 1
            self.left(on.ClientLeft(name), now)

    def _seen(self, name: str, now: float, is_first: bool = False) -> ClientState | None:
        """The client of this name; None if it is outdated, or one too many. A newcomer that has
        spoken to another coordinator, or in vain to this one, is told so, unless it ``is_first``.
        """
        client = self.by_name.get(name)
        if client is None:
            if self._is_outdated(name):
                return None
            self._supersede(name, now)
            if len(self.by_name) >= self._limits.clients:
                return None
            client = self.by_name[name] = ClientState(name, self._limits, now)
            self._ledger.timers.set(("client", name), now + self._limits.client_liveness_s)
            if not is_first:
                self._ledger.out.append(do.Meet(name))
        client.last_seen = now
        return client

    def _is_outdated(self, name: str) -> bool:
        plain, _, incarnation = name.rpartition("#")
        return incarnation < self._incarnations.get(plain, "")

    def _supersede(self, name: str, now: float) -> None:
        """Drop the older client of the same name, and tell it."""
        plain, mark, incarnation = name.rpartition("#")
        if not mark:
            return
        older = self.by_name.get(f"{plain}#{self._incarnations.get(plain, '')}")
        if older is not None:
            told = [_superseded(older.id, submission) for submission in older.submissions]
            self.left(on.ClientLeft(older.id), now)
            self._ledger.out += told
            self._ledger.counters["clients_superseded"] += 1
        self._incarnations[plain] = incarnation

    def _full(self, client: ClientState, tasks: int, payload_bytes: int) -> str | None:
        """Why a submission must be refused, in words; None when it need not be."""
        most = self._limits.submissions_per_client
        if self.is_closing:
            return STOPPING
        if not tasks:
            return "it holds no task"
        if len(client.submissions) >= most:
            return f"this client has {count_of(most, 'open submission')}, as many as it may"
        return self._ledger.full(tasks, payload_bytes)

    def _refuse(self, event: on.TasksSubmitted, reason: str, error: str = "Busy") -> None:
        self._ledger.counters["refused"] += len(event.payloads)
        self._ledger.out.append(do.Refuse(event.client, event.submission, reason, error))

    def _received(self, client: ClientState, submission: int, now: float) -> None:
        run = client.submissions.pop(submission, None)
        if run is None:
            return
        if submission >= client.floor:
            client.over.add(submission)
        self._ledger.forget(run, now)

    def _reminded(self, client: ClientState, waiting: dict[int, int], now: float) -> None:
        """Answer reminders, within the bounds; the client repeats those that are not answered."""
        size_bytes, reminders = 0, client.reminders
        if now < reminders.again_at:
            self._ledger.counters["reminders_put_off"] += 1
            return
        for submission, count in islice(waiting.items(), MAX_REMINDERS):
            if (room := reminders.left_bytes - size_bytes) > 0:
                size_bytes += self._remind(client, submission, count, room)
        reminders.answered(size_bytes, self._limits, now)

    def _remind(self, client: ClientState, submission: int, count: int, most_bytes: int) -> int:
        run = client.submissions.get(submission)
        if run is not None:
            self._ledger.out.append(do.Accept(client.id, submission, run.id))
            if count < run.count - run.open:
                return self._ledger.redeliver(run, most_bytes)
        elif submission >= client.floor:
            why = (OVER,) if submission in client.over else (LOST, "CoordinatorLost")
            client.over.add(submission)
            self._ledger.out.append(do.Refuse(client.id, submission, *why))
        return 0


def _superseded(client: str, submission: int) -> do.Refuse:
    return do.Refuse(client, submission, NEWER, "Superseded")
