"""A cluster whose workers only wait, simulated: the real scheduler under a virtual clock.

Scheduler, policy and the workers' sessions are the product's. Simulated are time and the machine:
what each message costs the coordinator's thread and the other parts was measured on real points
(scaling.py), and they compete for the machine's cores, first come first served. Beyond a hundred
workers each is taken to be on a machine of its own, so that only the coordinator is shared.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from heapq import heappop, heappush

from msgspec.structs import replace

from cluster.core.scheduler import Scheduler
from cluster.protocol.client_session import ClientSession, Options
from cluster.protocol.worker_session import HeldLease, WorkerSession
from cluster.spec import ClusterSpec, load_part
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from perfkit.bench.workloads.load import ExperimentError

KIND = "sleep"
#: Virtual time that does not count, and tasks that a worker should run at least.
WARM_UP_S, TASKS_MIN = 0.1, 4
#: Of a thread or a core: a turn here and there is lost between two jobs.
FULL = 0.95


@dataclass(frozen=True)
class Costs:
    """Seconds, all measured: of the coordinator's thread per turn, per task and per heartbeat; of
    the stand-ins' thread per task; of every other thread per task; by which a wait overshoots; and
    between two tasks of an idle cluster's worker that gets none ahead.
    """

    turn_s: float
    task_s: float
    heartbeat_s: float
    stand_in_s: float
    rest_s: float
    overshoot_s: float
    gap_s: float

    @property
    def hop_s(self) -> float:
        """One way between a worker and the coordinator, without what both compute."""
        return max(0.0, self.gap_s - self.turn_s - self.task_s - self.stand_in_s) / 2

    def counters(self) -> dict[str, float | int | None]:
        """Each in µs, for a saved result."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {f"cost_{name.removesuffix('_s')}_us": seconds * 1e6 for name, seconds in named}


NO_COSTS = Costs(*[0.0] * len(fields(Costs)))


@dataclass(frozen=True)
class Predicted:
    """A simulated point. The other figures are cores that the coordinator's thread, which has one,
    would need for every task and every heartbeat of so many workers.
    """

    efficiency: float
    tasks_cores: float
    heartbeats_cores: float
    bottleneck: str


class Thread:
    """One of the machine's threads: jobs one at a time, each when a core is free."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.jobs: deque[Callable[[], float]] = deque()
        self.is_busy = False
        self.busy_s = 0.0

    def put(self, job: Callable[[], float]) -> None:
        """Do a job, which returns how long it takes, after those before it."""
        self.jobs.append(job)
        if not self.is_busy:
            self.is_busy = True
            self._machine.want(self)


class Machine:
    """A virtual clock, and `cores` for its threads, first come first served; None is no limit."""

    def __init__(self, cores: int | None) -> None:
        self.now = 0.0
        self.cores = self._free = cores
        self._waiting: deque[Thread] = deque()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def after(self, wait_s: float, happen: Callable[[], None]) -> None:
        """Let something happen later."""
        self._sequence += 1
        heappush(self._heap, (self.now + wait_s, self._sequence, happen))

    def run(self, until_s: float) -> None:
        """Let everything happen up to a time."""
        while self._heap and self._heap[0][0] <= until_s:
            self.now, _, happen = heappop(self._heap)
            happen()
        self.now = until_s

    def want(self, thread: Thread) -> None:
        """Let a thread do its next job as soon as a core is free."""
        if self._free == 0:
            self._waiting.append(thread)
            return
        if self._free is not None:
            self._free -= 1
        took_s = thread.jobs.popleft()()
        thread.busy_s += took_s
        self.after(took_s, partial(self._done, thread))

    def _done(self, thread: Thread) -> None:
        if self._free is not None:
            self._free += 1
        if thread.jobs:
            self._waiting.append(thread)
        else:
            thread.is_busy = False
        if self._waiting:
            self.want(self._waiting.popleft())


class Simulated:
    """A coordinator, a worker for each of `speeds`, and a client that hands in all tasks at once.

    A payload is the seconds that a task takes at speed 1, as text.
    """

    def __init__(
        self, spec: ClusterSpec, speeds: Sequence[float], costs: Costs, machine: Machine
    ) -> None:
        self._spec, self._costs, self._machine = spec, costs, machine
        policies = load_part(spec.policies)
        limits = replace(spec.limits, workers=max(len(speeds), spec.limits.workers))
        chance = random.Random(0).random
        queue = load_part(spec.queue)
        self._scheduler = Scheduler(policies[spec.policy](), limits, chance, policies, queue)
        self.threads = [Thread(machine) for _ in range(3)]
        self.coordinator, self.stand_ins, self.rest = self.threads
        self._inbox: deque[on.Event] = deque()
        credit = max(1, spec.credit)
        self._workers = {
            (name := f"w{n}"): WorkerSession(name, n + 1, 1, credit, [KIND])
            for n in range(len(speeds))
        }
        self._speeds = dict(zip(self._workers, speeds, strict=True))
        #: tasks that workers have begun and ended, and when the last one ended
        self.begun = self.ended = 0
        self.ended_s = 0.0
        self._wakes_s = -1.0
        #: what each worker works on, and those that run a task
        self._leases: dict[str, HeldLease] = {}
        self._busy: set[str] = set()
        self._client = ClientSession("client")

    def begin(self, payloads: Sequence[bytes]) -> None:
        """Let every worker join and the client hand in its tasks, at no cost."""
        rng = random.Random(1)
        for worker in self._workers.values():
            self._deliver(self._scheduler.handle(worker.introduction()[0], 0.0))
            first_s = rng.random() * self._spec.limits.heartbeat_s
            self._machine.after(first_s, partial(self._beat, worker))
        for start in range(0, len(payloads), self._spec.burst):
            part = [*payloads[start : start + self._spec.burst]]
            self._inbox.append(self._client.submit(KIND, part, Options(), None, 0.0))
        self.coordinator.put(self._turn)

    def _beat(self, worker: WorkerSession) -> None:
        self._send(*worker.heartbeat())
        self._machine.after(self._spec.limits.heartbeat_s, partial(self._beat, worker))

    def _send(self, *events: on.Event) -> None:
        """To the coordinator, which reads all that has arrived when it takes its next turn."""
        self._machine.after(self._costs.hop_s, partial(self._arrive, events))

    def _arrive(self, events: Sequence[on.Event]) -> None:
        self._inbox += events
        if not self.coordinator.is_busy:
            self.coordinator.put(self._turn)

    def _turn(self) -> float:
        """Handle some messages, and what is due; returns how long that takes."""
        costs, now = self._costs, self._machine.now
        took_s, actions = costs.turn_s, list[do.Action]()
        for _ in range(min(self._spec.drain, len(self._inbox))):
            event = self._inbox.popleft()
            is_beat = type(event) is on.WorkerHeartbeat
            took_s += costs.heartbeat_s if is_beat else costs.task_s
            actions += self._scheduler.handle(event, now)
        deadline = self._scheduler.deadline()
        if deadline is not None and deadline <= now:
            actions += self._scheduler.handle_timer(now, behind=bool(self._inbox))
        if self._inbox:
            self.coordinator.jobs.append(self._turn)
        self._wake()
        self._machine.after(took_s + costs.hop_s, partial(self._deliver, actions))
        return took_s

    def _wake(self) -> None:
        """Take a turn when the scheduler's next timer is due."""
        due_s = self._scheduler.deadline()
        if due_s is not None and not self._machine.now < self._wakes_s <= due_s:
            self._wakes_s = due_s
            self._machine.after(max(0.0, due_s - self._machine.now), partial(self._arrive, ()))

    def _deliver(self, actions: Sequence[do.Action]) -> None:
        """Give each worker what the coordinator has sent it; the client only counts."""
        for action in actions:
            worker = self._workers.get(getattr(action, "worker", ""))
            if worker is None:
                continue
            answers = worker.handle(action)
            if answers:
                self._send(*answers)
            if worker.name not in self._busy:
                self.stand_ins.put(partial(self._begin, worker, 0.0))

    def _begin(self, worker: WorkerSession, took_s: float) -> float:
        """Begin a worker's next task unless one runs or none is there."""
        if worker.name in self._busy:
            return took_s
        lease = self._leases.get(worker.name)
        if lease is None or not lease.pending:
            lease = worker.take()
            if lease is None:
                return took_s
            self._leases[worker.name] = lease
        (payload,) = lease.claim(1)
        self._busy.add(worker.name)
        self.begun += 1
        wait_s = float(payload) / self._speeds[worker.name] + self._costs.overshoot_s
        ended = partial(self.stand_ins.put, partial(self._finish, worker, lease, wait_s))
        self._machine.after(wait_s, ended)
        return took_s

    def _finish(self, worker: WorkerSession, lease: HeldLease, wait_s: float) -> float:
        """Report a task and begin the next."""
        now = self._machine.now
        self.ended, self.ended_s = self.ended + 1, now
        self._send(*worker.report(lease, [b""], [], now - wait_s, now))
        self.rest.put(lambda: self._costs.rest_s)
        self._busy.discard(worker.name)
        return self._begin(worker, self._costs.stand_in_s)


def makespan_s(
    spec: ClusterSpec, speeds: Sequence[float], payloads: Sequence[bytes], most_s: float
) -> float:
    """When the last task ends if messages and turns take no time; ExperimentError if not within
    `most_s`.
    """
    machine = Machine(None)
    simulated = Simulated(spec, speeds, NO_COSTS, machine)
    simulated.begin(payloads)
    while simulated.ended < len(payloads):
        if machine.now > most_s:
            raise ExperimentError(
                f"{simulated.ended} of {len(payloads)} simulated tasks ended in {most_s:g} s"
            )
        machine.run(machine.now + spec.limits.heartbeat_s)
    return simulated.ended_s


def predict(
    spec: ClusterSpec,
    workers: int,
    service_s: float,
    costs: Costs,
    window_s: float,
    *,
    own_machines: bool,
) -> Predicted:
    """The efficiency of so many workers whose tasks wait, in a virtual window.

    They share this machine's cores with the coordinator, or have machines of their own, on which
    only the wait takes time.
    """
    machine = Machine(None if own_machines else len(os.sched_getaffinity(0)))
    if own_machines:
        # Their messages still take the coordinator's thread, which is the one that is shared.
        costs = Costs(**{**vars(costs), "stand_in_s": 0.0, "rest_s": 0.0})
    window_s = max(window_s, TASKS_MIN * service_s)
    until_s = WARM_UP_S + window_s
    simulated = Simulated(spec, [1.0] * workers, costs, machine)
    task_s = costs.task_s + costs.turn_s / spec.drain
    fastest = min(workers / service_s, 1 / task_s)
    tasks = round(1.2 * fastest * until_s) + 4 * workers
    simulated.begin([b"%g" % service_s] * tasks)
    machine.run(WARM_UP_S)
    begun = simulated.begun
    busy_s = [thread.busy_s for thread in simulated.threads]
    machine.run(until_s)
    shares = [
        (thread.busy_s - before_s) / window_s
        for thread, before_s in zip(simulated.threads, busy_s, strict=True)
    ]
    tasks_cores = workers / service_s * task_s
    heartbeats_cores = workers / spec.limits.heartbeat_s * costs.heartbeat_s
    return Predicted(
        (simulated.begun - begun) * service_s / workers / window_s,
        tasks_cores,
        heartbeats_cores,
        _bottleneck(shares, tasks_cores, heartbeats_cores, machine.cores),
    )


def _bottleneck(
    shares: Sequence[float], tasks_cores: float, heartbeats_cores: float, cores: int | None
) -> str:
    """What is used up first, in words."""
    coordinator, stand_ins, _ = shares
    if coordinator > FULL:
        by = "heartbeats" if heartbeats_cores > tasks_cores else "tasks"
        return f"the coordinator's thread, by {by}"
    if cores is not None and sum(shares) > FULL * cores:
        return "the machine's cores"
    return "the stand-ins' thread" if stand_ins > FULL else "nothing: all parts keep up"
