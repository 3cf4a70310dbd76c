"""A scheduler's promises, checked from outside by its events and actions alone.

``Scheduler.validate`` looks inside, so a scheduler that is wrong about itself may pass it. The
witness keeps a small model of its own, fed with each event and the actions that answer it. It
recognises tasks by their payloads, which must be unique.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import TypeAlias, get_args

from cluster.core.roster import FromHolder
from cluster.core.run import Needs, Outcome, Streamed
from cluster.core.worker import WorkerState
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import Failure, Priority, State

FromWorker: TypeAlias = FromHolder | on.WorkerHeartbeat | on.WorkerDraining | on.WorkerLeft
FROM_WORKER = get_args(FromWorker)


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


class Presence:
    """Workers as seen from outside.

    In doubt a worker holds more tasks than it really does, and is gone earlier.
    """

    def __init__(self, liveness_s: float) -> None:
        self._liveness_s = liveness_s
        self._workers: dict[str, WorkerState] = {}
        #: the open range of each lease, by worker and id
        self._open: dict[tuple[str, int], tuple[int, int]] = {}

    def observe(self, event: on.Event | None, actions: Sequence[do.Action], now: float) -> None:
        """Take in the messages from and to workers."""
        if event is None:
            for silent in [*self._workers.values()]:
                if silent.last_seen + self._liveness_s <= now:
                    self._gone(silent.id)
        elif isinstance(event, on.WorkerUnreachable):
            self._gone(event.worker)
        elif isinstance(event, FROM_WORKER):
            worker = self._workers.get(event.worker)
            if worker is not None and worker.epoch == event.epoch:
                worker.last_seen = now
                self._said(worker, event)
        for action in actions:
            if isinstance(action, do.Welcome):
                assert isinstance(event, on.WorkerJoined), f"{action.worker} is welcome unasked"
                self._welcomed(event, action.epoch, now)
            elif isinstance(action, do.Assign):
                stop = action.start + len(action.payloads)
                self._set(action.worker, action.lease, action.start, stop)
            elif isinstance(action, do.Offer) and isinstance(event, on.ResultStored):
                # A result that waits to be fetched takes no credit.
                self._set(event.worker, event.lease, 0, 0)

    def idle(self, needs: Needs) -> WorkerState | None:
        """A worker that meets the needs and certainly has a slot without work.

        The policy decides how many tasks a busy worker gets ahead.
        """
        idle = (w for w in self._workers.values() if w.free > 0 and w.held < w.capacity)
        return next((worker for worker in idle if worker.offers(*needs)), None)

    def _welcomed(self, event: on.WorkerJoined, epoch: int, now: float) -> None:
        worker = self._workers.get(event.worker)
        if worker is None or worker.epoch != epoch:
            self._gone(event.worker)
            self._workers[event.worker] = WorkerState(event, epoch, now)
        else:
            worker.last_seen = now

    def _said(self, worker: WorkerState, event: FromWorker) -> None:
        if isinstance(event, on.WorkerLeft):
            self._gone(worker.id)
        elif isinstance(event, on.WorkerDraining):
            worker.draining = True
        elif isinstance(event, on.WorkerHeartbeat):
            worker.load = event.load
        elif isinstance(event, on.TasksFinished | on.TasksReleased):
            start, stop = self._open.get((worker.id, event.lease), (0, 0))
            if isinstance(event, on.TasksReleased):
                if start <= event.start < stop:
                    self._set(worker.id, event.lease, start, event.start)
            elif event.outcomes and start <= event.start <= stop - len(event.outcomes):
                self._set(worker.id, event.lease, event.start + len(event.outcomes), stop)

    def _set(self, name: str, lease: int, start: int, stop: int) -> None:
        before = self._open.pop((name, lease), (0, 0))
        worker = self._workers.get(name)
        if worker is not None:
            worker.held += (stop - start) - (before[1] - before[0])
        if start < stop:
            self._open[name, lease] = (start, stop)

    def _gone(self, name: str) -> None:
        self._workers.pop(name, None)
        self._open = {key: span for key, span in self._open.items() if key[0] != name}


class Witness:
    """Raises AssertionError when a scheduler is seen to break a promise."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._promises: dict[tuple[str, int], Promise] = {}
        self._refused: set[tuple[str, int]] = set()
        #: those with open tasks
        self.open: dict[tuple[str, int], Promise] = {}
        self._places = count()
        self._tasks: dict[bytes, tuple[Promise, int]] = {}
        self._epochs: dict[str, int] = {}
        self._presence = Presence(limits.liveness_s)
        #: when each client last sent a message
        self._heard: dict[str, float] = {}
        self._leases: set[int] = set()
        #: leases granted to more urgent levels since a level's last one: all of them, and those
        #: that a waiting task of the level with the same needs could have taken
        self._above = [0] * len(Priority)
        self._passed = [0] * len(Priority)

    def observe(self, event: on.Event | None, actions: Sequence[do.Action], now: float) -> None:
        """Take in an event, or None for a timer, and what the scheduler did about it."""
        self._forget(event, now)
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
        if isinstance(event, on.TasksCancelled):
            self._cancelled(event)
        elif isinstance(event, FROM_WORKER):
            told = any(isinstance(action, do.Disconnect) for action in actions)
            stale = event.epoch != self._epochs.get(event.worker)
            assert told or not stale, f"{event.worker} spoke under a past epoch and was not told"
        for promise in self.open.values():
            assert promise.due is None or now <= promise.due, f"run {promise.run} is overdue"
        self._presence.observe(event, actions, now)
        waiting = self._waiting()
        for level in {*Priority} - {promise.priority for promise in waiting}:
            self._passed[level] = 0
        for needs in {promise.needs for promise in waiting}:
            idle = self._presence.idle(needs)
            assert idle is None, f"{needs[0]!r} waits although {idle.id} has credit for it"

    def _forget(self, event: on.Event | None, now: float) -> None:
        """Drop the promises about acknowledged results, and those to clients that are gone."""
        if isinstance(event, on.ClientHeartbeat):
            for (name, submission), promise in self._promises.items():
                over = submission < event.floor or submission in event.received
                if name == event.client and over:
                    promise.retained.clear()
                    self.open.pop((name, submission), None)
            for submission, start, stop in event.partly:
                retained = self._promises[event.client, submission].retained
                for position in range(start, stop):
                    retained.pop(position, None)
        gone = {event.client} if isinstance(event, on.ClientLeft) else set()
        if event is None:
            liveness_s = self._limits.client_liveness_s
            gone = {name for name, at in self._heard.items() if at + liveness_s <= now}
        for name in gone:
            self._heard.pop(name, None)
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
            if other.priority == level:
                assert other.place >= served.place, f"{names} of the same priority"
            elif other.priority < level:
                assert self._above[level] >= bypasses, f"{names}, which is more urgent"
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
            if isinstance(outcome, Failure) and outcome.state is State.DEAD_LETTERED:
                lost = promise.leased[position] >= self._limits.deaths
                assert lost, f"{key} was buried at {position} before it had lost its workers"
            promise.fresh.discard(position)
            if not known and not isinstance(outcome, Streamed):
                text = outcome.message if isinstance(outcome, Failure) else outcome
                promise.retained[position] = len(text)
        if len(promise.outcomes) == promise.count:
            self.open.pop(key, None)

    def _cancelled(self, event: on.TasksCancelled) -> None:
        promise = self.open.get((event.client, event.submission))
        if promise is not None:
            wanted = set(event.positions or range(promise.count)) - promise.outcomes.keys()
            assert not wanted, f"run {promise.run} goes on although it was cancelled at {wanted}"
