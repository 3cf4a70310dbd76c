"""Who lives in a simulated world: workers with virtual handlers, clients that submit at random.

Both are the production sessions with something around them that plays the process: what it does,
when it dies, and what it checks of everything it is told. The world they live in is simulator.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.protocol.client_session import ClientSession, Options, Settled
from cluster.protocol.worker_session import HeldLease, WorkerSession
from cluster.vocabulary import actions as do
from cluster.vocabulary.task import Backoff, Failure, Priority, Requirements, Retry, State

if TYPE_CHECKING:
    from cluster.simulation.simulator import Simulation

KINDS = ("fast", "slow")
CREDIT = 6
#: so few that a large result is a handful of them
CHUNK_BYTES = 3
#: payloads that kill the worker that begins them, and that no handler gets through
POISON, DOOMED = b"poison ", b"doomed "


class SimulatedWorker:
    """A worker session with virtual handlers: it works through its leases, one chunk at a time."""

    def __init__(self, world: Simulation, name: str, gpu: bool) -> None:
        self.world = world
        self.name = name
        self.models = ["m"] if gpu else []
        self.incarnation = 0
        self.paused_until = 0.0
        self.session: WorkerSession
        self.restart()

    def restart(self) -> None:
        """Start over as a new process under the old name."""
        self.incarnation += 1
        self.busy: HeldLease | None = None
        self.session = WorkerSession(self.name, self.incarnation, 1, CREDIT, KINDS, self.models)

    def beat(self) -> None:
        """Send a heartbeat, and see that work goes on."""
        if self.paused_until <= self.world.now:
            for event in self.session.introduction() + self.session.heartbeat():
                self.world.to_scheduler(event)
            self.work()

    def receive(self, action: do.Action) -> None:
        """Take in a message, if the process is not stopped."""
        if self.paused_until <= self.world.now:
            for event in self.session.handle(action):
                self.world.to_scheduler(event)
            leases = (lease for lease in self.session.leases.values() if lease.stored is None)
            held = sum(lease.stop - lease.reported for lease in leases)
            assert held <= CREDIT, f"{self.name} was given {held} tasks on a credit of {CREDIT}"
            self.work()

    def retire(self) -> None:
        """Drain, and leave a little later with whatever is left; a new process follows."""
        born = self.incarnation
        for event in self.session.drain():
            self.world.to_scheduler(event)
        self.world.after(0.2, lambda: self.leave(born))

    def leave(self, born: int) -> None:
        """Say goodbye, unless the process died meanwhile."""
        if born == self.incarnation:
            for event in self.session.leave("retired"):
                self.world.to_scheduler(event)
            self.restart()

    def work(self) -> None:
        """Begin the next chunk unless one is being worked on."""
        if self.busy is None and (lease := self.session.take()) is not None:
            self.busy = lease
            self.chunk(lease)

    def chunk(self, lease: HeldLease) -> None:
        """Start a few tasks of a lease; their end is a step of its own."""
        rng = self.world.rng
        payloads = lease.claim(rng.randint(1, 3))
        if not payloads:
            self.busy = None
            return self.work()
        for payload in payloads:
            if payload.startswith(POISON):
                self.world.poisoned[payload] += 1
                return self.restart()
        busy_s = sum(
            rng.expovariate(1 / (0.002 if lease.kind == "fast" else 0.05)) for _ in payloads
        )
        born = self.incarnation
        self.world.after(busy_s, lambda: self.finish(lease, payloads, busy_s, born))
        return None

    def finish(self, lease: HeldLease, payloads: list[bytes], busy_s: float, born: int) -> None:
        """Report a chunk, unless the process died meanwhile; a stopped process reports when it
        wakes.
        """
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
        for event in self.session.report(lease, results, failures, 0.0, busy_s):
            self.world.to_scheduler(event)
        if lease.stored is not None:
            for event in self.session.give_back(lease):
                self.world.to_scheduler(event)
        self.chunk(lease)


class SimulatedClient:
    """A client session that submits at random and checks that each task has one right outcome."""

    def __init__(self, world: Simulation, name: str, submissions: int) -> None:
        self.world = world
        self.name = name
        self.left = submissions
        self.session = ClientSession(name, CHUNK_BYTES)
        self.outcomes: dict[tuple[int, int], str] = {}
        self.payloads: dict[int, list[bytes]] = {}

    def restart(self) -> None:
        """Start over as a new process, under a name of its own."""
        self.name += "'"
        self.session = ClientSession(self.name, CHUNK_BYTES)
        self.outcomes, self.payloads = {}, {}

    def submit(self) -> None:
        """Hand in a run of random size and attributes, perhaps cancel some of an earlier one."""
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
            payloads = [f"{self.name} {self.left} {p}".encode() for p in range(count)]
            if rng.random() < self.world.faults.poison:
                payloads[-1] = rng.choice((POISON, DOOMED)) + payloads[-1]
            event = self.session.submit(kind, payloads, options, None, self.world.now)
            self.payloads[event.submission] = payloads
            self.world.to_scheduler(event)
        careless = not self.world.healed and rng.random() < self.world.faults.cancel
        if careless and self.session.open:
            submission = rng.choice(list(self.session.open.values()))
            positions = rng.sample(range(submission.count), rng.randint(0, submission.count))
            self.world.to_scheduler(self.session.cancel(submission, positions))

    def beat(self) -> None:
        """Send a heartbeat and whatever seems to have got lost."""
        for event in self.session.heartbeat(self.world.now):
            self.world.to_scheduler(event)

    def receive(self, action: do.Action) -> None:
        """Take in a message; each task may be settled once, with the right result."""
        news = self.session.handle(action, self.world.now)
        for event in self.session.answers():
            self.world.to_scheduler(event)
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
