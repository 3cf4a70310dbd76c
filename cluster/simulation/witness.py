"""A scheduler's promises, checked from outside by its events and actions alone.

``Scheduler.validate`` looks inside, so a scheduler that is wrong about itself may pass it. The
witness keeps a small model of its own, fed with each event and the actions that answer it. It
recognises tasks by their payloads, which must be unique.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import count

from cluster.core.ledger import weight
from cluster.core.run import Needs, Outcome, Streamed
from cluster.simulation.presence import Presence
from cluster.simulation.verdicts import FROM_WORKER, Verdicts
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import Failure, Priority, State, TaskId


class Promise:
    """An accepted run, and the fate of each of its tasks."""

    def __init__(self, event: on.TasksSubmitted, run: int, place: int, now: float) -> None:
        self.run = run
        self.client = event.client
        #: how many runs were accepted before this one
        self.place = place
        self.count = len(event.payloads)
        self.needs: Needs = (event.kind, event.requirements)
        self.priority = event.priority
        self.due = None if event.timeout_s is None else now + event.timeout_s
        self.is_patient = event.wait_for_worker
        #: when a worker last certainly offered what it needs
        self.served_at = -math.inf
        self.accepted_at = now
        #: positions that certainly wait: never leased and not settled
        self.fresh = set(range(self.count))
        #: how often each position was leased
        self.leased: Counter[int] = Counter()
        #: the last lease of each position
        self.leases: dict[int, int] = {}
        #: (position, lease) of streams that their client has received
        self.received: set[tuple[int, int]] = set()
        self.outcomes: dict[int, Outcome] = {}
        #: bytes of delivered outcomes that are not acknowledged, by position
        self.retained: dict[int, int] = {}


class Witness:
    """Raises AssertionError when a scheduler is seen to break a promise."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._promises: dict[tuple[str, int], Promise] = {}
        self._refused: set[tuple[str, int]] = set()
        #: those with open tasks
        self.open: dict[tuple[str, int], Promise] = {}
        #: the time limits of all runs, also of clients that are gone
        self._dues: dict[int, float] = {}
        self._places = count()
        self._tasks: dict[bytes, tuple[Promise, int]] = {}
        self._epochs: dict[str, int] = {}
        self._presence = Presence(limits)
        self._verdicts = Verdicts(limits)
        self._now = 0.0
        #: when each client last sent a message
        self._heard: dict[str, float] = {}
        self._leases: set[int] = set()
        #: by level and client, when it was last leased work, or first accepted before that
        self._turns: dict[tuple[int, str], int] = {}
        #: leases granted to more urgent levels since a level's last one: all of them, and those
        #: that a waiting task of the level with the same needs could have taken
        self._above = [0] * len(Priority)
        self._passed = [0] * len(Priority)

    def observe(self, event: on.Event | None, actions: Sequence[do.Action], now: float) -> None:
        """Take in an event, or None for a timer, and what the scheduler did about it."""
        self._now = now
        self._verdicts.observe(event, actions, now)
        self._forget(event, now)
        if isinstance(event, on.ClientHeartbeat):
            self._check_resent(actions)
        for action in actions:
            if isinstance(action, do.Assign):
                self._assigned(action)
            elif isinstance(action, do.Deliver):
                self._delivered(action, isinstance(event, on.ClientHeartbeat))
            elif isinstance(action, do.Confirm):
                self._confirmed(action, event)
            elif isinstance(action, do.Offer | do.DeliverChunk):
                self._streamed(action)
            elif isinstance(action, do.Accept):
                self._accepted(action, event, now)
            elif isinstance(action, do.Refuse):
                self._refused.add((action.client, action.submission))
            elif isinstance(action, do.Welcome):
                self._epochs[action.worker] = action.epoch
            elif isinstance(action, do.Kill):
                self._killed(action)
        if isinstance(event, on.TasksCancelled):
            self._cancelled(event)
        elif isinstance(event, on.CancelRequested):
            self._cancelled_by_operator(event, actions)
        elif isinstance(event, FROM_WORKER):
            told = any(isinstance(action, do.Disconnect) for action in actions)
            stale = event.epoch != self._epochs.get(event.worker)
            assert told or not stale, f"{event.worker} spoke under a past epoch and was not told"
        for promise in self.open.values():
            assert promise.due is None or now <= promise.due, f"run {promise.run} is overdue"
        self._presence.observe(event, actions, now)
        for action in actions:
            if isinstance(action, do.Assign):
                needs = self._tasks[action.payloads[0]][0].needs
                may = self._presence.may_take(action.worker, needs)
                assert may, f"{action.worker} was leased {needs[0]!r}, which it does not take"
        waiting = self._waiting()
        for level in {*Priority} - {promise.priority for promise in waiting}:
            self._passed[level] = 0
        served = {p.needs for p in self.open.values() if self._presence.offers(p.needs)}
        for promise in self.open.values():
            if promise.needs in served:
                promise.served_at = now
        for needs in {promise.needs for promise in waiting}:
            idle = self._presence.idle(needs)
            assert idle is None, f"{needs[0]!r} waits although {idle.id} has credit for it"

    def arrived(self, event: on.Event, now: float) -> None:
        """A message has come, which the scheduler may read later."""
        self._verdicts.arrived(event, now)

    def stalled(self, pause_s: float, now: float) -> None:
        """The scheduler was not called for a while: nothing it should have done is late.

        It can notice ``pause_s`` of that, and must grant it to all.
        """
        self._verdicts.stalled(pause_s, now)
        self._heard = {client: at + pause_s for client, at in self._heard.items()}
        for promise in self.open.values():
            promise.served_at = min(now, promise.served_at + pause_s)
            promise.due = None if promise.due is None else max(promise.due, now)

    def killed(self, name: str, pid: int, payload: bytes) -> None:
        """A task has killed the process that ran it."""
        promise, position = self._tasks[payload]
        task = TaskId(promise.run, position)
        self._verdicts.killed(name, pid, task, promise.leases[position])

    def _killed(self, action: do.Kill) -> None:
        """Check that a worker is killed only if a task of it is overdue."""
        latest = self._now - self._limits.overrun_s + 1e-9
        held = self._verdicts.runs(action.worker, action.pid)
        is_late = any(self._dues.get(run, math.inf) <= latest for run in held)
        assert is_late, f"{action.worker} is killed although no task of it is overdue"

    def _check_resent(self, actions: Sequence[do.Action]) -> None:
        """Check that one heartbeat brings each outcome once, and not too many of them."""
        weights: dict[tuple[int, int], int] = {}
        for action in actions:
            if isinstance(action, do.Deliver):
                failures = {f.position: f for f in action.failures}
                for position, outcome in enumerate(action.outcomes, action.start):
                    place = (action.submission, position)
                    assert place not in weights, f"{place} was sent again twice for one heartbeat"
                    weights[place] = weight(failures.get(position, outcome))
        size_bytes = sum(weights.values()) - max(weights.values(), default=0)
        assert size_bytes < self._limits.resent_bytes, f"{size_bytes} bytes were sent again at once"

    def _forget(self, event: on.Event | None, now: float) -> None:
        """Drop the promises about acknowledged results, and those to clients that are gone."""
        if isinstance(event, on.ClientHeartbeat):
            for (name, submission), promise in self._promises.items():
                over = submission < event.floor or submission in event.received
                if name == event.client and over:
                    promise.retained.clear()
                    self.open.pop((name, submission), None)
            for submission, start, stop in event.partly:
                told = self._promises.get((event.client, submission))
                retained = told.retained if told is not None else {}
                for position in range(start, stop):
                    retained.pop(position, None)
        gone = {event.client} if isinstance(event, on.ClientLeft) else set()
        if event is None:
            liveness_s = self._limits.client_liveness_s
            gone = {name for name, at in self._heard.items() if at + liveness_s <= now}
        for name in gone:
            self._heard.pop(name, None)
            self._turns = {k: v for k, v in self._turns.items() if k[1] != name}
            self._promises = {k: v for k, v in self._promises.items() if k[0] != name}
            self._refused = {key for key in self._refused if key[0] != name}
            self.open = {k: v for k, v in self.open.items() if k[0] != name}
        if isinstance(event, on.ClientHeartbeat | on.TasksSubmitted):
            self._heard[event.client] = now

    def _held_back(self) -> set[str]:
        """The clients whose retained bytes reach the room that is left: they get no more leases."""
        retained = Counter[str]()
        for (name, _), promise in self._promises.items():
            retained[name] += sum(promise.retained.values())
        room = self._limits.retained_bytes - retained.total()
        return {name for name, size_bytes in retained.items() if size_bytes >= room}

    def _waiting(self) -> list[Promise]:
        """Runs with tasks that certainly wait for a worker, not for their client."""
        held_back = self._held_back()
        return [p for (name, _), p in self.open.items() if p.fresh and name not in held_back]

    def _accepted(self, action: do.Accept, event: on.Event | None, now: float) -> None:
        key = (action.client, action.submission)
        known = self._promises.get(key)
        if known is not None:
            assert known.run == action.run, f"{key} was accepted twice"
            return
        assert isinstance(event, on.TasksSubmitted), f"{key} was accepted without being submitted"
        assert key not in self._refused, f"{key} was accepted after it had been refused"
        promise = Promise(event, action.run, next(self._places), now)
        self._promises[key] = self.open[key] = promise
        if promise.due is not None:
            self._dues[promise.run] = promise.due
        self._turns.setdefault((promise.priority, promise.client), promise.place)
        self._tasks |= {payload: (promise, p) for p, payload in enumerate(event.payloads)}

    def _assigned(self, action: do.Assign) -> None:
        assert action.lease not in self._leases, f"lease {action.lease} was granted twice"
        self._leases.add(action.lease)
        epoch = self._epochs.get(action.worker)
        assert action.epoch == epoch, f"{action.worker} was leased work under a past epoch"
        assert action.payloads, f"lease {action.lease} is of nothing"
        promise = self._tasks[action.payloads[0]][0]
        held_back = promise.client in self._held_back()
        assert not held_back, f"run {promise.run} of {promise.client}, held back, was leased"
        self._check_order(promise)
        self._verdicts.assigned(action, promise.run)
        for position, payload in enumerate(action.payloads, action.start):
            assert self._tasks[payload] == (promise, position), "a lease names the wrong tasks"
            task = f"task {position} of run {promise.run}"
            assert position not in promise.outcomes, f"{task} was leased after its end"
            promise.leased[position] += 1
            promise.leases[position] = action.lease
        promise.fresh.difference_update(range(action.start, action.start + len(action.payloads)))

    def _check_order(self, served: Promise) -> None:
        """Check that it was this run's turn, among runs with the same needs."""
        level, bypasses = served.priority, self._limits.bypasses
        waiting = self._waiting()
        alike = [p for p in waiting if p.needs == served.needs]
        for other in alike:
            names = f"run {served.run} went before run {other.run}"
            if other.priority == level and other.client == served.client:
                assert other.place >= served.place, f"{names} of the same priority"
            elif other.priority == level:
                turns = [self._turns[level, promise.client] for promise in (served, other)]
                assert turns[0] <= turns[1], f"{names}, whose client has waited for longer"
            elif other.priority < level:
                assert self._above[level] >= bypasses, f"{names}, which is more urgent"
        self._turns[level, served.client] = next(self._places)
        self._above[level] = self._passed[level] = 0
        for below in range(level + 1, len(Priority)):
            self._above[below] += 1
            if not any(p.priority == below for p in waiting):
                self._passed[below] = 0
            elif any(p.priority == below for p in alike):
                self._passed[below] += 1
            # Each other starving level may go first, once.
            most = bypasses + len(Priority)
            assert self._passed[below] <= most, f"priority {Priority(below).name} starves"

    def _streamed(self, action: do.Offer | do.DeliverChunk) -> None:
        """Check that a client can still fetch what it is offered or sent."""
        promise = self._promises[action.client, action.submission]
        task = f"task {action.position} of run {promise.run}"
        assert action.position not in promise.outcomes, f"{task} was streamed after its end"
        lease = promise.leases.get(action.position)
        assert action.lease == lease, f"{task} was streamed under lease {action.lease}, not {lease}"

    def _confirmed(self, action: do.Confirm, event: on.Event | None) -> None:
        """Check that a streamed result is confirmed only once its client has received it."""
        key = (action.client, action.submission)
        promise, place = self._promises[key], (action.position, action.lease)
        if isinstance(event, on.StreamReceived) and key == (event.client, event.submission):
            promise.received.add((event.position, event.lease))
        assert place in promise.received, f"{key} was confirmed at {place} before it was received"
        self._settled(key, {action.position: Streamed(action.lease)}, again=True)

    def _delivered(self, action: do.Deliver, reminded: bool) -> None:
        failures: dict[int, Outcome] = {f.position: f for f in action.failures}
        outcomes = dict(enumerate(action.outcomes, action.start)) | failures
        self._settled((action.client, action.submission), outcomes, again=reminded)

    def _settled(self, key: tuple[str, int], outcomes: dict[int, Outcome], *, again: bool) -> None:
        promise = self._promises[key]
        for position, outcome in outcomes.items():
            known = position in promise.outcomes
            first = promise.outcomes.setdefault(position, outcome)
            assert first == outcome, f"{key} has two outcomes at {position}: {first!r}, {outcome!r}"
            assert again or not known, f"{key} was delivered twice at {position}"
            if isinstance(outcome, Failure) and not known:
                self._failed(promise, position, outcome)
            promise.fresh.discard(position)
            if not known and not isinstance(outcome, Streamed):
                text = outcome.message if isinstance(outcome, Failure) else outcome
                promise.retained[position] = len(text)
        if len(promise.outcomes) == promise.count:
            self.open.pop(key, None)

    def _failed(self, promise: Promise, position: int, failure: Failure) -> None:
        """Check that a task may end without a result."""
        task = f"task {position} of run {promise.run}"
        waited_s = self._now - max(promise.accepted_at, promise.served_at)
        is_unserved = not promise.is_patient and waited_s >= self._limits.unserved_s - 1e-9
        if failure.state is State.DEAD_LETTERED:
            deaths = self._verdicts.deaths[TaskId(promise.run, position)]
            enough = 1 if is_unserved else self._limits.deaths
            assert deaths >= enough, f"{task} was buried before it had lost its workers"
        elif failure.error == "NoWorker":
            assert is_unserved, f"{task} was given up although it was served {waited_s:.3f} s ago"

    def _cancelled(self, event: on.TasksCancelled) -> None:
        promise = self.open.get((event.client, event.submission))
        if promise is not None:
            wanted = set(event.positions or range(promise.count)) - promise.outcomes.keys()
            assert not wanted, f"run {promise.run} goes on although it was cancelled at {wanted}"

    def _cancelled_by_operator(
        self, event: on.CancelRequested, actions: Sequence[do.Action]
    ) -> None:
        """Check that a known task has ended, and that the operator is told how."""
        promise = next((p for p in self._promises.values() if p.run == event.run), None)
        if promise is None or event.position >= promise.count:
            return
        task = f"task {event.position} of run {event.run}"
        outcome = promise.outcomes.get(event.position)
        if outcome is None and not any(promise is one for one in self.open.values()):
            return  # its client has said that it needs the run no more
        assert outcome is not None, f"{task} goes on although an operator cancelled it"
        is_cancelled = isinstance(outcome, Failure) and outcome.state is State.CANCELLED
        told = next((action.answer for action in actions if isinstance(action, do.Report)), None)
        assert told in (None, is_cancelled), f"{task}: the operator hears {told} of {outcome!r}"
