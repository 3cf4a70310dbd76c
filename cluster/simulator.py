"""The production scheduler and sessions under a virtual clock, on a network that misbehaves by
seed.

Every message may be delayed (and so overtake others), lost or repeated; workers crash, restart,
drain and are paused; handlers fail, or take their worker with them; clients cancel. After every
step the scheduler's invariants are checked, and what it promises by a witness from outside. At
``heal_at_s`` the faults end and every accepted task must come to its one end. The same seed gives
the same run: ``python -m cluster.simulator --seed N`` replays it.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from cluster import actions as do
from cluster import events as on
from cluster.client_session import ClientSession, Options, Settled
from cluster.limits import Limits
from cluster.policy import POLICIES, AssignmentPolicy, LeastLoaded
from cluster.roster import WorkerState
from cluster.run import Needs
from cluster.scheduler import Scheduler
from cluster.task import Backoff, Failure, Priority, Requirements, Retry, State
from cluster.witness import Witness
from cluster.worker_session import HeldLease, WorkerSession

LIMITS = Limits(heartbeat_s=0.2, liveness_s=0.6, client_liveness_s=30.0, bypasses=4)
KINDS = ("fast", "slow")
CREDIT = 6
#: payloads that kill the worker that begins them, and that no handler gets through
POISON, DOOMED = b"poison ", b"doomed "


@dataclass(frozen=True)
class Faults:
    """How the world misbehaves until it heals. Chances are per message or per step, delays in
    seconds.
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


@dataclass(frozen=True)
class Outcome:
    """What a simulation ended with; ``counters`` are the scheduler's."""

    seed: int
    steps: int
    tasks: int
    virtual_s: float
    ends: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)


class Slicing(LeastLoaded):
    """Leases of many tasks, which the plain policies never grant: only these can be split."""

    name = "slicing"

    def lease_tasks(self, worker: WorkerState, needs: Needs, queued: int) -> int:
        """All that are queued; the worker's credit is the bound."""
        return queued


#: as many simulations with large leases as with small ones
SIMULATED = (*POLICIES.values(), *[Slicing] * len(POLICIES))


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
            held = sum(lease.stop - lease.reported for lease in self.session.leases.values())
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
        first = lease.reported
        failures = [
            Failure(first + i, "Raised", "it raised")
            for i, payload in enumerate(payloads)
            if payload.startswith(DOOMED) or self.world.rng.random() < self.world.faults.fail
        ]
        failed = {f.position - first for f in failures}
        results = [b"" if i in failed else p[::-1] for i, p in enumerate(payloads)]
        for event in self.session.report(lease, results, failures, 0.0, busy_s):
            self.world.to_scheduler(event)
        self.chunk(lease)


class SimulatedClient:
    """A client session that submits at random and checks that each task has one right outcome."""

    def __init__(self, world: Simulation, name: str, submissions: int) -> None:
        self.world = world
        self.name = name
        self.left = submissions
        self.session = ClientSession(name)
        self.outcomes: dict[tuple[int, int], str] = {}
        self.payloads: dict[int, list[bytes]] = {}

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
        if not isinstance(news, Settled):
            assert news is None, f"{self.name} was refused: {news}"
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


class Simulation:
    """A scheduler, some workers and clients, and a heap of what happens next."""

    def __init__(
        self,
        seed: int,
        faults: Faults = Faults(),
        scheduler: type[Scheduler] = Scheduler,
        policies: Sequence[Callable[[], AssignmentPolicy]] = SIMULATED,
        heal_at_s: float = 3.0,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.faults = faults
        self.heal_at_s = heal_at_s
        self.healed = False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self.policies = {make().name: make for make in policies}
        policy = self.rng.choice(policies)()
        self.scheduler = scheduler(policy, LIMITS, self.rng.random, self.policies)
        self.witness = Witness(LIMITS)
        #: how many workers each poisonous payload has killed
        self.poisoned: Counter[bytes] = Counter()
        n_workers, n_clients = self.rng.randint(1, 5), self.rng.randint(1, 3)
        self.workers = {
            f"w{i}": SimulatedWorker(self, f"w{i}", gpu=i == 0) for i in range(n_workers)
        }
        self.clients = {f"c{i}": SimulatedClient(self, f"c{i}", 8) for i in range(n_clients)}

    def run(self, most_steps: int = 60_000) -> Outcome:
        """Run until every task is settled after healing; AssertionError names the seed if one never
        is.
        """
        try:
            for worker in self.workers.values():
                self.every(0.2, worker.beat)
            for client in self.clients.values():
                self.every(0.1, client.submit)
                self.every(0.2, client.beat)
            self.every(0.1, self.misbehave)
            self.after(self.heal_at_s, self.heal)
            while not self.over():
                assert self.steps < most_steps, self.stuck()
                self.step()
        except AssertionError as error:
            replay = f"python -m cluster.simulator --seed {self.seed}"
            raise AssertionError(
                f"seed {self.seed} at {self.now:.3f} s: {error} ({replay})"
            ) from error
        ends = Counter(s for c in self.clients.values() for s in c.outcomes.values())
        assert not self.witness.open, "an accepted task has no end"
        counters = self.scheduler.counters
        return Outcome(self.seed, self.steps, sum(ends.values()), self.now, ends, counters)

    def step(self) -> None:
        """The next thing that happens: a scheduler's timer or whatever is first in the heap."""
        self.steps += 1
        deadline = self.scheduler.deadline()
        due = self._heap[0][0]
        if deadline is not None and deadline <= due:
            self.now = max(self.now, deadline)
            self.route(None, self.scheduler.handle_timer(self.now))
        else:
            self.now, _, happen = heappop(self._heap)
            happen()
        self.scheduler.validate()
        killed = max(self.poisoned.values(), default=0)
        assert killed <= LIMITS.deaths, f"a task killed {killed} workers"

    def over(self) -> bool:
        """Whether the world is healed and nobody waits for anything."""
        return self.healed and not any(c.left or c.session.open for c in self.clients.values())

    def stuck(self) -> str:
        """Who waits for what, in words."""
        waits = {c.name: [*c.session.open][:5] for c in self.clients.values() if c.session.open}
        return f"not over after {self.steps} steps: {waits} still wait"

    def after(self, wait_s: float, happen: Callable[[], None]) -> None:
        """Let something happen later."""
        self._sequence += 1
        heappush(self._heap, (self.now + wait_s, self._sequence, happen))

    def every(self, period_s: float, happen: Callable[[], None]) -> None:
        """Let something happen again and again, not quite regularly."""

        def again() -> None:
            happen()
            self.after(period_s * self.rng.uniform(0.9, 1.1), again)

        self.after(self.rng.uniform(0, period_s), again)

    def send(self, arrive: Callable[[Any], None], message: Any) -> None:
        """Put a message on the network."""
        copies = 1
        if not self.healed:
            copies = 0 if self.rng.random() < self.faults.loss else 1
            copies += self.rng.random() < self.faults.repeat
        for copy in range(copies):
            delay_s = self.rng.expovariate(1 / self.faults.delay_s) * (1 + 4 * copy)
            self.after(delay_s, lambda: arrive(message))

    def to_scheduler(self, event: on.Event) -> None:
        """Send an event on its way."""
        self.send(self.tell, event)

    def tell(self, event: on.Event) -> None:
        """Let the scheduler know of an event at once."""
        self.route(event, self.scheduler.handle(event, self.now))

    def route(self, event: on.Event | None, actions: Sequence[do.Action]) -> None:
        """Send actions on their way to whom they name."""
        self.witness.observe(event, actions, self.now)
        for action in actions:
            name = str(getattr(action, "worker", None) or getattr(action, "client", ""))
            peer = self.workers.get(name) or self.clients.get(name)
            if peer is not None:
                self.send(peer.receive, action)

    def misbehave(self) -> None:
        """Crash or stop a worker, change the policy, now and then."""
        for worker in self.workers.values():
            if self.healed:
                return
            if self.rng.random() < self.faults.crash:
                worker.restart()
                if self.rng.random() < 0.5:
                    self.tell(on.WorkerLost(worker.name, "connection closed"))
            if self.rng.random() < self.faults.leave:
                worker.retire()
            if self.rng.random() < self.faults.pause:
                worker.paused_until = self.now + self.rng.uniform(0.1, 1.5)
        if self.rng.random() < 0.02:
            policy = self.rng.choice(list(self.policies))
            self.tell(on.PolicyChanged("op", 0, policy))

    def heal(self) -> None:
        """From here on nothing is lost, repeated or stopped."""
        self.healed = True
        for worker in self.workers.values():
            worker.paused_until = 0.0


def main() -> None:
    """Run one seed, or many, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there on")
    args = parser.parse_args()
    for seed in range(args.seed, args.seed + args.count):
        outcome = Simulation(seed).run()
        print(
            f"seed {seed}: {outcome.tasks} tasks, {outcome.steps} steps, "
            f"{outcome.virtual_s:.1f} s; {dict(outcome.ends)} {dict(outcome.counters)}"
        )


if __name__ == "__main__":
    main()
