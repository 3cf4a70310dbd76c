"""The production scheduler and sessions under a virtual clock, with faults drawn from a seed.

Every message may be delayed (and so overtake others), lost or repeated; workers crash, restart,
drain, offer something else, are paused and cut off; handlers fail, kill their worker or never end;
clients cancel, and so do operators, who also have workers load models and leave (peers.py). A
supervisor tells deaths, or there is none. The coordinator itself stalls, and then finds its
messages unread. Every call of the scheduler is followed by a check of its invariants, and a witness
checks its promises from outside.
At ``heal_at_s`` the faults end, and every accepted task must come to exactly one end. The same seed
gives the same run: ``python -m cluster.simulation.simulator --seed N`` replays it.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from msgspec.structs import replace

from cluster.core.policy import POLICIES, AssignmentPolicy, LeastLoaded
from cluster.core.run import Needs
from cluster.core.scheduler import Scheduler
from cluster.core.worker import WorkerState
from cluster.simulation.peers import (
    CHUNK_BYTES,
    KINDS,
    LATE,
    Faults,
    SimulatedClient,
    SimulatedHost,
    SimulatedWorker,
)
from cluster.simulation.witness import Witness
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import ProcessState, State

FAULTS = Faults()
LIMITS = Limits(
    heartbeat_s=0.2,
    liveness_s=0.6,
    client_liveness_s=30.0,
    unserved_s=1.0,
    bypasses=4,
    resent_bytes=600,
    chunk_bytes=CHUNK_BYTES,
)
#: the longest time that messages wait although the coordinator runs: less than ``liveness_s``
LAG_S = 0.45
#: messages that the coordinator reads in one turn after a stall, and the time it takes
TURN_EVENTS, TURN_S = 8, 0.006
#: bounds that hold the results of some tasks only
NARROW_BYTES = (60, 400)


@dataclass(frozen=True)
class Outcome:
    """How a simulation ended; ``counters`` are the scheduler's."""

    seed: int
    steps: int
    tasks: int
    virtual_s: float
    ends: Counter[str]
    counters: Counter[str]


class Slicing(LeastLoaded):
    """Leases of many tasks, which the plain policies never grant: only these can be split."""

    name = "slicing"

    def lease_tasks(self, worker: WorkerState, needs: Needs, queued: int) -> int:
        return queued


#: as many simulations with large leases as with small ones
SIMULATED = (*POLICIES.values(), *[Slicing] * len(POLICIES))


class Simulation:
    """A scheduler, some workers and clients, and a heap of future steps."""

    def __init__(
        self,
        seed: int,
        faults: Faults = FAULTS,
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
        #: chance for what operators do, which changes nothing in a world without them
        self.whims = random.Random(f"whims of {seed}")
        # Often there is little room for results, so that clients are held back.
        room = random.Random(f"room of {seed}")
        self.is_narrow = room.random() < faults.narrow
        narrow = replace(LIMITS, retained_bytes=room.choice(NARROW_BYTES))
        limits = narrow if self.is_narrow else LIMITS
        self.scheduler = scheduler(policy, limits, self.rng.random, self.policies)
        self.witness = Witness(limits)
        #: messages that wait for the coordinator while it stalls, and until it has read them
        self.inbox: deque[on.Event] = deque()
        self.stalled_until = self.called_at = 0.0
        self.host = SimulatedHost(self, "h", is_absent=room.random() < faults.alone)
        n_workers, n_clients = self.rng.randint(1, 5), self.rng.randint(1, 3)
        self.workers = {
            f"w{i}": SimulatedWorker(self, f"w{i}", gpu=i == 0) for i in range(n_workers)
        }
        self.host.workers = self.workers
        self.clients = {f"c{i}": SimulatedClient(self, f"c{i}", 8) for i in range(n_clients)}

    def run(self, most_steps: int = 60_000) -> Outcome:
        """Run until every task is settled after healing.

        Raises AssertionError, with the seed, if a check fails or the world is still busy after
        ``most_steps``.
        """
        try:
            for worker in self.workers.values():
                self.every(0.2, worker.beat)
            self.every(0.2, self.host.beat)
            for client in self.clients.values():
                self.every(0.1, client.submit)
                self.every(0.2, client.beat)
            self.every(0.1, self.misbehave)
            self.after(self.heal_at_s, self.heal)
            while not self.over():
                assert self.steps < most_steps, self.stuck()
                self.step()
        except AssertionError as error:
            place = f"seed {self.seed} at {self.now:.3f} s"
            replay = f"python -m cluster.simulation.simulator --seed {self.seed}"
            raise AssertionError(f"{place}: {error} ({replay})") from error
        ends = Counter(s for c in self.clients.values() for s in c.outcomes.values())
        waiting = [key for key in self.witness.open if key[0] in self.clients]
        assert not waiting, "an accepted task has no end"
        counters = self.scheduler.counters
        return Outcome(self.seed, self.steps, sum(ends.values()), self.now, ends, counters)

    def step(self) -> None:
        """Do what is due next: a timer of the scheduler or the first step in the heap."""
        self.steps += 1
        deadline = self.scheduler.deadline()
        due = self._heap[0][0]
        stalls = self.stalled_until > due or self.inbox
        if deadline is not None and deadline <= due and not stalls:
            self.now = max(self.now, deadline)
            self.time_out(behind=False)
        else:
            self.now, _, happen = heappop(self._heap)
            happen()

    def over(self) -> bool:
        """Whether the world is healed and no client waits."""
        return self.healed and not any(c.left or c.session.open for c in self.clients.values())

    def stuck(self) -> str:
        """Which clients wait for which submissions, in words."""
        waits = {c.name: [*c.session.open][:5] for c in self.clients.values() if c.session.open}
        return f"not over after {self.steps} steps: {waits} still wait"

    def is_large(self, payload: bytes) -> bool:
        return random.Random(payload).random() < self.faults.large

    def after(self, wait_s: float, happen: Callable[[], None]) -> None:
        """Call ``happen`` in ``wait_s`` seconds."""
        self._sequence += 1
        heappush(self._heap, (self.now + wait_s, self._sequence, happen))

    def every(self, period_s: float, happen: Callable[[], None]) -> None:
        """Call ``happen`` about every ``period_s`` seconds."""

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

    def to_scheduler(self, *events: on.Event) -> None:
        """Send events to the scheduler over the network."""
        for event in events:
            self.send(self.tell, event)

    def tell(self, event: on.Event) -> None:
        """Give the scheduler an event at once, or when it reads its messages again."""
        self.witness.arrived(event, self.now)
        if self.inbox or self.stalled_until > self.now:
            self.inbox.append(event)
        else:
            self.take(event)

    def take(self, event: on.Event) -> None:
        """Let the scheduler handle an event."""
        self.called_at = self.now
        self.route(event, self.scheduler.handle(event, self.now))

    def time_out(self, *, behind: bool) -> None:
        """Let the scheduler do what is due."""
        self.called_at = self.now
        self.route(None, self.scheduler.handle_timer(self.now, behind=behind))

    def stall(self, seconds: float, *, of_all: bool) -> None:
        """Pause the coordinator, or its whole host; the messages to it wait."""
        self.stalled_until = self.now + seconds
        self.after(seconds, self.wake)
        if of_all:
            self.host.suspended_until = self.now + seconds
            for worker in self.workers.values():
                worker.pause(seconds, is_suspended=True)

    def lag(self) -> None:
        """Let messages wait unread while the coordinator's timers go on."""
        self.stalled_until = self.now + LAG_S
        for tick in range(1, round(LAG_S / TURN_S)):
            self.after(tick * TURN_S, lambda: self.do_due(behind=True))
        self.after(LAG_S, self.turn)

    def wake(self) -> None:
        """End a stall; the witness learns of one that the scheduler can notice."""
        deadline = self.scheduler.deadline()
        late_s = 0.0 if deadline is None else self.now - deadline
        is_noticed = late_s > LIMITS.liveness_s / 4
        self.witness.stalled(self.now - self.called_at if is_noticed else 0.0, self.now)
        self.turn()

    def turn(self) -> None:
        """Read some messages, as the coordinator's loop does, and do what is due."""
        self.witness.stalled(0.0, self.now)
        for _ in range(min(TURN_EVENTS, len(self.inbox))):
            self.take(self.inbox.popleft())
        self.do_due(behind=bool(self.inbox))
        if self.inbox:
            self.after(TURN_S, self.turn)

    def do_due(self, *, behind: bool) -> None:
        """Let the scheduler do what is due, if anything is."""
        deadline = self.scheduler.deadline()
        if deadline is not None and deadline <= self.now:
            self.time_out(behind=behind)

    def killed(self, name: str, pid: int, payload: bytes) -> None:
        """A task has killed a worker's process."""
        self.witness.killed(name, pid, payload)

    def route(self, event: on.Event | None, actions: Sequence[do.Action]) -> None:
        """Check what the scheduler did, and send its actions over the network to their peers."""
        self.witness.observe(event, actions, self.now)
        self.scheduler.validate()
        unsent: dict[str, list[int]] = {}
        for action in actions:
            if isinstance(action, do.ToHost):
                self.send(self.host.receive, action)
                continue
            name = str(getattr(action, "worker", None) or getattr(action, "client", ""))
            worker = self.workers.get(name)
            if isinstance(action, do.Assign) and worker and worker.cut_until > self.now:
                unsent.setdefault(name, []).append(action.lease)
            elif peer := worker or self.clients.get(name):
                self.send(peer.receive, action)
        for name, leases in unsent.items():
            self.tell(on.WorkerUnreachable(name, leases))

    def misbehave(self) -> None:
        """Now and then crash, retire, pause or cut off a worker, stall the coordinator, replace a
        client, change the policy, have an operator do something.
        """
        is_calm = not self.inbox and self.stalled_until <= self.now
        if not self.healed and is_calm and self.rng.random() < self.faults.stall:
            if self.rng.random() < 0.3:
                self.lag()
            else:
                self.stall(self.rng.uniform(0.1, 1.5), of_all=self.rng.random() < 0.5)
        for worker in self.workers.values():
            if self.healed:
                return
            if self.rng.random() < self.faults.crash:
                worker.end(ProcessState.GONE)
            if self.rng.random() < self.faults.cut:
                worker.cut_until = self.now + self.rng.uniform(0.1, 1.0)
            if self.rng.random() < self.faults.leave:
                worker.retire()
            if self.rng.random() < self.faults.pause:
                worker.pause(self.rng.uniform(0.1, 1.5), is_suspended=self.rng.random() < 0.5)
        self.operate()
        for client in [*self.clients.values()]:
            if self.rng.random() < self.faults.vanish:
                self.replace(client)
        if self.rng.random() < 0.02:
            policy = self.rng.choice(list(self.policies))
            self.tell(on.PolicyChanged("op", 0, policy))

    def operate(self) -> None:
        """Now and then have a worker offer something else, and an operator ask or order something
        of a worker or about a task.
        """
        rng = self.whims
        for worker in self.workers.values():
            if rng.random() < self.faults.offer:
                kinds = rng.choice((KINDS, KINDS, KINDS, KINDS[:1], KINDS[1:], ()))
                worker.offer(kinds, worker.models, worker.incarnation)
        if rng.random() >= self.faults.order:
            return
        worker = rng.choice([*self.workers.values()])
        runs = [s.run for c in self.clients.values() for s in c.session.open.values() if s.run]
        task = rng.choice(runs or [1]), rng.randint(0, 3)
        orders: list[on.Event] = [
            on.ModelsRequested("op", 0, *rng.choice(((["m"], ["n"]), (["n"], ["m"])))),
            on.LeaveRequested("op", 0, worker.name, worker.incarnation, rng.random() < 0.5),
            on.TasksRequested("op", 0, rng.choice((None, *State)), rng.randint(1, 9)),
            on.StoryRequested("op", 0, *task),
            on.CancelRequested("op", 0, *task),
        ]
        self.tell(rng.choice(orders))

    def replace(self, client: SimulatedClient) -> None:
        """Let a client vanish, perhaps with a goodbye; a new process follows."""
        del self.clients[client.name]
        if self.rng.random() < 0.5:
            self.tell(on.ClientLeft(client.name))
        client.restart()
        self.clients[client.name] = client

    def heal(self) -> None:
        """End the faults, and let a worker come that offers what none did."""
        self.healed = True
        self.tell(on.ModelsRequested("op", 0, ["m"], ["n"]))
        for worker in self.workers.values():
            worker.paused_until = worker.cut_until = 0.0
            worker.offer(KINDS, worker.models, worker.incarnation)
        last = SimulatedWorker(self, "w-late", gpu=True, kinds=(*KINDS, LATE))
        self.workers[last.name] = last
        self.every(0.2, last.beat)


def main() -> None:
    """Run one seed or many, and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--count", type=int, default=1, help="number of seeds (default 1)")
    args = parser.parse_args()
    for seed in range(args.seed, args.seed + args.count):
        outcome = Simulation(seed).run()
        print(
            f"seed {seed}: {outcome.tasks} tasks, {outcome.steps} steps, "
            f"{outcome.virtual_s:.1f} s; {dict(outcome.ends)} {dict(outcome.counters)}"
        )


if __name__ == "__main__":
    main()
