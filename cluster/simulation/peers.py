"""The peers of a simulated world: workers with virtual handlers, the supervisor that sees their
processes, clients that submit at random.

Workers and clients wrap a production session in a simulated process, which crashes and restarts and
checks every message it receives. simulator.py has the world.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.protocol.client_session import ClientSession, Options, Settled
from cluster.protocol.held_lease import HeldLease
from cluster.protocol.worker_session import WorkerSession
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import (
    Backoff,
    Failure,
    Priority,
    ProcessState,
    Requirements,
    Retry,
    State,
)

KINDS = ("fast", "slow")
CREDIT = 6
#: small, so that a large result takes a handful of chunks
CHUNK_BYTES = 3
#: a kind that no worker offers, and one that a worker offers only after the world has healed
NOBODYS, LATE = "nobody's", "late"
#: prefixes of payloads that kill their worker, that always fail, and that never end
POISON, DOOMED, ENDLESS = b"poison ", b"doomed ", b"endless "
#: how long a supervisor repeats that a process has ended
REPEAT_S = 10.0


@dataclass(frozen=True)
class Faults:
    """How the world misbehaves until it heals; ``large`` and ``narrow`` hold on.

    Chances are per message, step, result or world, delays in seconds.
    """

    delay_s: float = 0.02
    loss: float = 0.05
    repeat: float = 0.05
    crash: float = 0.02
    pause: float = 0.02
    leave: float = 0.01
    poison: float = 0.1
    fail: float = 0.1
    cancel: float = 0.05
    large: float = 0.1
    vanish: float = 0.0
    narrow: float = 0.5
    unserved: float = 0.1
    endless: float = 0.2
    cut: float = 0.01
    stall: float = 0.05
    alone: float = 0.3
    order: float = 0.1
    offer: float = 0.02


class World(Protocol):
    """What a peer knows of the world around it."""

    now: float
    rng: random.Random
    faults: Faults
    healed: bool
    #: whether submissions may be refused for want of room
    is_narrow: bool
    host: SimulatedHost

    def killed(self, name: str, pid: int, payload: bytes) -> None:
        """A task has killed a worker's process."""

    def after(self, wait_s: float, happen: Callable[[], None]) -> None:
        """Call ``happen`` in ``wait_s`` seconds."""

    def to_scheduler(self, *events: on.Event) -> None:
        """Send events to the scheduler over the network."""

    def is_large(self, payload: bytes) -> bool:
        """Whether a task has a large result, at every attempt."""


class SimulatedWorker:
    """A worker session with virtual handlers: it runs its leases one chunk at a time."""

    def __init__(self, world: World, name: str, gpu: bool, kinds: Sequence[str] = KINDS) -> None:
        self.host = world.host
        self.world = world
        self.name = name
        self._starts_with = kinds, ["m"] if gpu else []
        self.incarnation = 0
        self.paused_until = self.cut_until = 0.0
        #: paused by a signal, not by a handler that lets no other thread run
        self.is_suspended = False
        self.session: WorkerSession
        self.restart()

    def restart(self) -> None:
        """Become a new process under the old name."""
        self.incarnation += 1
        self.kinds, self.models = self._starts_with
        self.busy: HeldLease | None = None
        self.is_endless = False
        offers = self.kinds, self.models, ()
        self.session = WorkerSession(
            self.name, self.incarnation, 1, CREDIT, *offers, self.host.name, self.incarnation
        )

    def end(self, state: ProcessState) -> None:
        """End this process; its supervisor sees that, and a new one follows."""
        pid = self.incarnation
        self.restart()
        self.cut_until = self.world.now + self.world.rng.uniform(0.0, 0.3)
        self.host.saw(self.name, pid, state)

    def pause(self, seconds: float, *, is_suspended: bool) -> None:
        """Do and hear nothing for a while."""
        self.paused_until = self.world.now + seconds
        self.is_suspended = is_suspended

    def beat(self) -> None:
        """Send a heartbeat, and go on with work."""
        if self.paused_until <= self.world.now:
            self.world.to_scheduler(*self.session.introduction(), *self.session.heartbeat())
            self.work()

    def receive(self, action: do.Action) -> None:
        """Take in a message, unless the process is paused."""
        if self.paused_until <= self.world.now:
            self.world.to_scheduler(*self.session.handle(action))
            self.obey(*self.session.orders())
            leases = (lease for lease in self.session.leases.values() if lease.stored is None)
            held = sum(lease.stop - lease.reported for lease in leases)
            assert held <= CREDIT, f"{self.name} was given {held} tasks on a credit of {CREDIT}"
            self.work()
            if self.is_stuck() and self.session.epoch is None:
                self.end(ProcessState.KILLED)  # it can't join again: its operator steps in

    def obey(self, wanted: list[str] | None, is_dismissed: bool) -> None:
        """Load models after a while, or leave."""
        born = self.incarnation
        if wanted is not None:
            load_s = self.world.rng.uniform(0.0, 0.5)
            self.world.after(load_s, lambda: self.offer(self.kinds, wanted, born))
        if is_dismissed:
            self.retire()

    def offer(self, kinds: Sequence[str], models: list[str], born: int) -> None:
        """Offer these from now on, unless the process died meanwhile."""
        if born == self.incarnation:
            self.kinds, self.models = kinds, models
            news = self.session.offer(kinds, models)
            if self.paused_until <= self.world.now:  # else its heartbeats say so
                self.world.to_scheduler(*news)

    def is_stuck(self) -> bool:
        """Whether it is in a task that never ends."""
        return self.busy is not None and self.is_endless

    def retire(self) -> None:
        """Drain, and leave a little later with unfinished leases; a new process follows."""
        born = self.incarnation
        self.world.to_scheduler(*self.session.drain())
        self.world.after(0.2, lambda: self.leave(born))

    def leave(self, born: int) -> None:
        """Say goodbye, unless the process died meanwhile."""
        if born == self.incarnation:
            self.world.to_scheduler(*self.session.leave("retired"))
            self.end(ProcessState.KILLED)

    def work(self) -> None:
        """Begin the next chunk unless one is running."""
        if self.busy is None and (lease := self.session.take()) is not None:
            self.busy, self.is_endless = lease, False
            self.chunk(lease)

    def chunk(self, lease: HeldLease) -> None:
        """Start a few tasks of a lease; `finish` is a later step."""
        rng = self.world.rng
        payloads = lease.claim(rng.randint(1, 3))
        if not payloads:
            self.busy = None
            self.work()
            return
        for position, payload in enumerate(payloads, lease.next - len(payloads)):
            if payload.startswith(POISON):
                self.world.killed(self.name, self.incarnation, payload)
                self.end(ProcessState.GONE)
                return
            if payload.startswith(ENDLESS) and position not in lease.cancelled:
                self.is_endless = True
                return
        mean_s = 0.002 if lease.kind == "fast" else 0.05
        busy_s = sum(rng.expovariate(1 / mean_s) for _ in payloads)
        born = self.incarnation
        self.world.after(busy_s, lambda: self.finish(lease, payloads, busy_s, born))

    def finish(self, lease: HeldLease, payloads: list[bytes], busy_s: float, born: int) -> None:
        """Report a chunk, unless the process died meanwhile; a paused process reports later."""
        if born != self.incarnation:
            return
        if self.paused_until > self.world.now:
            wait_s = self.paused_until - self.world.now
            self.world.after(wait_s, lambda: self.finish(lease, payloads, busy_s, born))
            return
        first = lease.next - len(payloads)
        failures = [
            Failure(first + i, "Raised", "it raised")
            for i, payload in enumerate(payloads)
            if payload.startswith(DOOMED) or self.world.rng.random() < self.world.faults.fail
        ]
        failed = {f.position - first for f in failures}
        results = [b"" if i in failed else p[::-1] for i, p in enumerate(payloads)]
        for i, result in enumerate(results):
            if result and self.world.is_large(payloads[i]):
                lease.store(first + i, result)
                results[i] = b""
        self.world.to_scheduler(*self.session.report(lease, results, failures, 0.0, busy_s))
        if lease.stored is not None:
            self.world.to_scheduler(*self.session.give_back(lease))
        self.chunk(lease)


class SimulatedHost:
    """The supervisor of all workers: it says what it sees of their processes, and kills them.

    One that is absent sees and says nothing.
    """

    def __init__(self, world: World, name: str, *, is_absent: bool) -> None:
        self.world = world
        self.name = name
        self.is_absent = is_absent
        self.suspended_until = 0.0
        self.workers: dict[str, SimulatedWorker] = {}
        self._ended: dict[tuple[str, int], tuple[ProcessState, float]] = {}

    def saw(self, name: str, pid: int, state: ProcessState) -> None:
        """A process has ended."""
        self._ended[name, pid] = (state, self.world.now)
        self.beat()

    def beat(self) -> None:
        """Say what it sees."""
        if self.is_absent or self.suspended_until > self.world.now:
            return
        now = self.world.now
        self._ended = {p: seen for p, seen in self._ended.items() if seen[1] + REPEAT_S > now}
        seen = [(*process, state) for process, (state, _) in self._ended.items()]
        for worker in self.workers.values():
            stopped = worker.is_suspended and worker.paused_until > now
            state = ProcessState.STOPPED if stopped else ProcessState.RUNNING
            seen.append((worker.name, worker.incarnation, state))
        self.world.to_scheduler(on.HostReported(self.name, seen))

    def receive(self, action: do.Action) -> None:
        """Kill or restart a process, unless it has ended."""
        assert isinstance(action, do.Kill | do.Restart), f"{action} is sent to a supervisor"
        worker = self.workers[action.worker]
        if worker.incarnation != action.pid:
            return
        if isinstance(action, do.Kill):
            worker.end(ProcessState.KILLED)
        else:
            worker.retire()


class SimulatedClient:
    """A client session that submits at random and checks that each task has one right outcome."""

    def __init__(self, world: World, name: str, submissions: int) -> None:
        self.world = world
        self.name = name
        self.left = submissions
        self.session = ClientSession(name, CHUNK_BYTES)
        self.outcomes: dict[tuple[int, int], str] = {}
        self.payloads: dict[int, list[bytes]] = {}

    def restart(self) -> None:
        """Become a new process under a new name."""
        self.name += "'"
        self.session = ClientSession(self.name, CHUNK_BYTES)
        self.outcomes, self.payloads = {}, {}

    def submit(self) -> None:
        """Submit a run of random size and attributes; perhaps cancel tasks of an earlier one."""
        rng = self.world.rng
        if self.left and rng.random() < 0.5:
            self.left -= 1
            options = Options(
                priority=rng.choice(list(Priority)),
                requirements=Requirements(model="m" if rng.random() < 0.2 else None),
                timeout_s=rng.choice((None, None, 0.3, 5.0)),
                retry=Retry(rng.choice((1, 3)), rng.choice(list(Backoff)), base_s=0.05),
            )
            count, kind = rng.choice((1, 1, 3, 20)), rng.choice(KINDS)
            if rng.random() < self.world.faults.unserved:
                kind, is_patient = rng.choice(((NOBODYS, False), (LATE, False), (LATE, True)))
                options = options._replace(wait_for_worker=is_patient)
            payloads = [f"{self.name} {self.left} {p}".encode() for p in range(count)]
            if rng.random() < self.world.faults.poison:
                payloads[-1] = rng.choice((POISON, DOOMED)) + payloads[-1]
            is_endless = rng.random() < self.world.faults.endless
            if is_endless and options.timeout_s and not self.world.host.is_absent:
                payloads[0] = ENDLESS + payloads[0]
            event = self.session.submit(kind, payloads, options, None, self.world.now)
            self.payloads[event.submission] = payloads
            self.world.to_scheduler(event)
        careless = not self.world.healed and rng.random() < self.world.faults.cancel
        if careless and self.session.open:
            submission = rng.choice(list(self.session.open.values()))
            positions = rng.sample(range(submission.count), rng.randint(0, submission.count))
            self.world.to_scheduler(self.session.cancel(submission, positions))

    def beat(self) -> None:
        """Send a heartbeat, and messages that seem to be lost."""
        self.world.to_scheduler(*self.session.heartbeat(self.world.now))

    def receive(self, action: do.Action) -> None:
        """Take in a message; each task may be settled once, with the right result."""
        news = self.session.handle(action, self.world.now)
        self.world.to_scheduler(*self.session.answers())
        if not isinstance(news, Settled):
            narrow = self.world.is_narrow
            assert news is None or narrow, f"{self.name} was refused: {news.reason}"
            return
        id = news.submission.id
        states = {f.position: f.state for f in news.failures}
        for position, result in enumerate(news.results, news.start):
            key = (id, position)
            assert key not in self.outcomes, f"{self.name} was told twice about {key}"
            state = states.get(position, State.DONE)
            right = state is not State.DONE or result == self.payloads[id][position][::-1]
            assert right, f"{self.name} got a wrong result for {key}"
            self.outcomes[key] = state
