"""A cluster whose workers only wait, simulated: the real scheduler under a virtual clock.

Scheduler, policy and the workers' sessions are the product's. Simulated are time and the machine:
what each message costs the coordinator's thread and the other parts was measured on real points
(experiments/scaling.py), and they compete for the machine's cores, first come first served. Beyond
a hundred workers each is taken to be on a machine of its own, so that only the coordinator is
shared.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

from msgspec.structs import replace

from cluster.core.scheduler import Scheduler
from cluster.protocol.client_session import ClientSession, Options
from cluster.protocol.held_lease import HeldLease
from cluster.protocol.worker_session import WorkerSession
from cluster.spec import ClusterSpec, load_part
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from perfkit.bench.simulated.machine import Machine, Thread
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.progress import efficiencies

KIND = "sleep"
#: Virtual time that does not count, and tasks that a worker should run at least.
WARM_UP_S, TASKS_MIN = 0.1, 12
#: Of a thread or a core: a turn here and there is lost between two jobs.
FULL = 0.95


@dataclass(frozen=True)
class Cost:
    """Seconds of a thread each time that it is woken, and for each task."""

    wake_s: float = 0.0
    task_s: float = 0.0


@dataclass(frozen=True)
class Costs:
    """What was measured: of the coordinator's thread, of the stand-ins' thread, and of all others,
    which wake for each round in which every worker does a task; seconds of the coordinator per
    heartbeat; seconds by which a wait overshoots; and those between two tasks of a worker that gets
    none ahead.
    """

    coordinator: Cost = Cost()
    stand_ins: Cost = Cost()
    rest: Cost = Cost()
    heartbeat_s: float = 0.0
    overshoot_s: float = 0.0
    gap_s: float = 0.0

    @property
    def hop_s(self) -> float:
        """One way between a worker and the coordinator, without what both compute."""
        both = (self.coordinator, self.stand_ins)
        return max(0.0, self.gap_s - sum(cost.wake_s + cost.task_s for cost in both)) / 2

    def counters(self) -> dict[str, float | int | None]:
        """Each in µs, for a saved result."""
        found: dict[str, float | int | None] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            name = f"cost_{field.name.removesuffix('_s')}"
            if isinstance(value, Cost):
                found[f"{name}_wake_us"] = value.wake_s * 1e6
                found[f"{name}_task_us"] = value.task_s * 1e6
            else:
                found[f"{name}_us"] = value * 1e6
        return found


@dataclass(frozen=True)
class Predicted:
    """A simulated point. The other figures are cores that the coordinator's thread, which has one,
    would need for every task and every heartbeat of these workers.
    """

    efficiency: float
    tasks_cores: float
    heartbeats_cores: float
    bottleneck: str


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
        wakes_s = (costs.coordinator.wake_s, costs.stand_ins.wake_s, 0.0)
        self.threads = [Thread(machine, wake_s) for wake_s in wakes_s]
        self._rest_s = costs.rest.task_s + costs.rest.wake_s / len(speeds)
        self.coordinator, self.stand_ins, self.rest = self.threads
        self._inbox: deque[on.Event] = deque()
        credit = max(1, spec.credit)
        self._workers = {
            (name := f"w{n}"): WorkerSession(name, n + 1, 1, credit, [KIND])
            for n in range(len(speeds))
        }
        self._speeds = dict(zip(self._workers, speeds, strict=True))
        #: when each worker has begun its tasks
        self.starts: dict[str, list[float]] = {name: [] for name in self._workers}
        #: tasks that have ended, and when the last one did
        self.ended, self.ended_s = 0, 0.0
        #: whether the coordinator has a turn to take, and when its next timer wakes it
        self._is_due = False
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
            run = self._client.submit(KIND, part, Options(), None, 0.0)
            self._deliver(self._scheduler.handle(run, 0.0))
        self._wake()

    def _beat(self, worker: WorkerSession) -> None:
        self._send(*worker.heartbeat())
        self._machine.after(self._spec.limits.heartbeat_s, partial(self._beat, worker))

    def _send(self, *events: on.Event) -> None:
        """To the coordinator, which reads all that has arrived when it takes its next turn."""
        self._machine.after(self._costs.hop_s, partial(self._arrive, events))

    def _arrive(self, events: Sequence[on.Event]) -> None:
        self._inbox += events
        if not self._is_due:
            self._is_due = True
            self.coordinator.put(self._turn)

    def _turn(self) -> float:
        """Handle some messages, and what is due; returns how long that takes."""
        costs, now = self._costs, self._machine.now
        took_s, actions = 0.0, list[do.Action]()
        for _ in range(min(self._spec.drain, len(self._inbox))):
            event = self._inbox.popleft()
            is_beat = type(event) is on.WorkerHeartbeat
            took_s += costs.heartbeat_s if is_beat else costs.coordinator.task_s
            actions += self._scheduler.handle(event, now)
        deadline = self._scheduler.deadline()
        if deadline is not None and deadline <= now:
            actions += self._scheduler.handle_timer(now, behind=bool(self._inbox))
        self._is_due = bool(self._inbox)
        if self._is_due:
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
        self.starts[worker.name].append(self._machine.now)
        wait_s = float(payload) / self._speeds[worker.name] + self._costs.overshoot_s
        ended = partial(self.stand_ins.put, partial(self._finish, worker, lease, wait_s))
        self._machine.after(wait_s, ended)
        return took_s

    def _finish(self, worker: WorkerSession, lease: HeldLease, wait_s: float) -> float:
        """Report a task and begin the next."""
        now = self._machine.now
        self.ended, self.ended_s = self.ended + 1, now
        self._send(*worker.report(lease, [b""], [], now - wait_s, now))
        self.rest.put(lambda: self._rest_s)
        self._busy.discard(worker.name)
        return self._begin(worker, self._costs.stand_ins.task_s)


def makespan_s(
    spec: ClusterSpec, speeds: Sequence[float], payloads: Sequence[bytes], most_s: float
) -> float:
    """When the last task ends if messages and turns take no time; ExperimentError if not within
    `most_s`.
    """
    machine = Machine(None)
    simulated = Simulated(spec, speeds, Costs(), machine)
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
    """The efficiency of this many workers whose tasks wait, in a virtual window.

    They share this machine's cores with the coordinator, or have machines of their own, on which
    only the wait takes time.
    """
    machine = Machine(None if own_machines else len(os.sched_getaffinity(0)))
    if own_machines:
        costs = dataclasses.replace(costs, stand_ins=Cost(), rest=Cost())
    window_s = max(window_s, TASKS_MIN * service_s)
    simulated = Simulated(spec, [1.0] * workers, costs, machine)
    between_s = max(service_s / workers, costs.coordinator.task_s)
    tasks = round(1.2 * (WARM_UP_S + window_s) / between_s) + 4 * workers
    simulated.begin([b"%g" % service_s] * tasks)
    machine.run(WARM_UP_S)
    begun = sum(map(len, simulated.starts.values()))
    busy_s = [thread.busy_s for thread in simulated.threads]
    machine.run(WARM_UP_S + window_s)
    begun = sum(map(len, simulated.starts.values())) - begun
    shares = [
        (thread.busy_s - before_s) / window_s
        for thread, before_s in zip(simulated.threads, busy_s, strict=True)
    ]
    tasks_cores = workers / service_s * costs.coordinator.task_s
    heartbeats_cores = workers / spec.limits.heartbeat_s * costs.heartbeat_s
    # Without a time in which all have work, the coordinator is what limits the number of starts.
    (efficiency,) = efficiencies([*simulated.starts.values()], service_s, 1) or [
        begun * service_s / workers / window_s
    ]
    return Predicted(
        efficiency,
        tasks_cores,
        heartbeats_cores,
        _bottleneck(shares, tasks_cores, heartbeats_cores, machine.cores),
    )


def _bottleneck(
    shares: Sequence[float], tasks_cores: float, heartbeats_cores: float, cores: int | None
) -> str:
    """What is used up first, in words."""
    if tasks_cores + heartbeats_cores > FULL:
        by = "heartbeats" if heartbeats_cores > tasks_cores else "tasks"
        return f"the coordinator's thread, by {by}"
    if cores is not None and sum(shares) > FULL * cores:
        return "the machine's cores"
    return "the stand-ins' thread" if shares[1] > FULL else "nothing: all parts keep up"
