"""A scheduler on a bench for the tests of the core: events and time by hand, answers whole.

The scheduler validates itself after every step, so a test that only looks at the actions still
notices a broken invariant.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.core.policy import POLICIES, AssignmentPolicy, LeastLoaded
from cluster.core.run import Needs, Run
from cluster.core.scheduler import Scheduler
from cluster.core.worker import WorkerState
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import NO_REQUIREMENTS, Failure, ProcessState
from perfkit.optimized import policy as optimised

ECHO: Needs = ("echo", NO_REQUIREMENTS)
T = [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9"]


class Slices(LeastLoaded):
    """Leases as large as the worker's credit allows."""

    name = "slices"

    def lease_tasks(self, worker: Any, needs: Any, queued: int) -> int:
        return queued


class Bench:
    """A scheduler, a clock at 0, and short forms of the usual events."""

    def __init__(
        self,
        policy: Callable[[], AssignmentPolicy] = Slices,
        chance: Callable[[], float] = lambda: 0.0,
        policies: Mapping[str, Callable[[], AssignmentPolicy]] = POLICIES,
        **limits: Any,
    ) -> None:
        self.limits = Limits(**limits)
        self.scheduler = Scheduler(policy(), self.limits, chance, policies)
        self.now = 0.0
        self.epochs: dict[str, int] = {}

    def tell(self, event: on.Event) -> list[do.Action]:
        """The scheduler's answer to an event."""
        return self._checked(self.scheduler.handle(event, self.now))

    def checked_timer(self, *, behind: bool = False) -> list[do.Action]:
        """The actions of the timers that are due now."""
        return self._checked(self.scheduler.handle_timer(self.now, behind=behind))

    def wait(self, seconds: float) -> list[do.Action]:
        """The actions of all timers that are due in the next ``seconds``."""
        end, actions = self.now + seconds, []
        while (due := self.scheduler.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            actions += self._checked(self.scheduler.handle_timer(self.now))
        self.now = end
        return actions

    def _checked(self, actions: list[do.Action]) -> list[do.Action]:
        self.scheduler.validate()
        for action in actions:
            if isinstance(action, do.Welcome):
                self.epochs[action.worker] = action.epoch
        return actions

    # Workers

    def join(
        self,
        worker: str = "w",
        credit: int = 1,
        kinds: Sequence[str] = ("echo",),
        incarnation: int = 1,
        capacity: int = 1,
        **offers: Any,
    ) -> list[do.Action]:
        """A worker joins; returns the actions after the welcome."""
        event = on.WorkerJoined(worker, incarnation, capacity, credit, list(kinds), **offers)
        first, *rest = self.tell(event)
        assert first == do.Welcome(worker, incarnation, self.epochs[worker], 0.2)
        return rest

    def beat(self, worker: str = "w", *held: int, **rest: Any) -> list[do.Action]:
        """A worker says that it holds these leases."""
        return self.tell(on.WorkerHeartbeat(worker, self.epochs[worker], list(held), **rest))

    def report(self, worker: str, state: str, pid: int = 0, host: str = "h") -> list[do.Action]:
        """A supervisor says what it sees of a worker's process."""
        return self.tell(on.HostReported(host, [(worker, pid, ProcessState(state))]))

    def die(self, worker: str) -> list[do.Action]:
        """A worker's process ends, and its supervisor says so."""
        return self.report(worker, "gone")

    def finish(
        self, worker: str, lease: int, start: int, *outcomes: bytes, **rest: Any
    ) -> list[do.Action]:
        """A worker reports results of a lease."""
        return self.tell(
            on.TasksFinished(worker, self.epochs[worker], lease, start, list(outcomes), **rest)
        )

    def fail(self, worker: str, lease: int, position: int) -> list[do.Action]:
        """A handler raised in one task."""
        failures = [Failure(position, "ValueError", "no")]
        return self.finish(worker, lease, position, b"", failures=failures)

    def release(self, worker: str, lease: int, start: int) -> list[do.Action]:
        """A worker gives the tail of a lease back."""
        return self.tell(on.TasksReleased(worker, self.epochs[worker], lease, start))

    def assign(
        self, worker: str, lease: int, start: int, *payloads: bytes, kind: str = "echo"
    ) -> do.Assign:
        """The action that leases tasks to a worker under its present epoch."""
        return do.Assign(worker, self.epochs[worker], lease, kind, start, list(payloads))

    # Clients

    def submit(
        self, *payloads: bytes, submission: int = 0, kind: str = "echo", **rest: Any
    ) -> list[do.Action]:
        """The client ``c`` submits a run; returns the actions after its acceptance."""
        first, *others = self.offer(*payloads, submission=submission, kind=kind, **rest)
        assert isinstance(first, do.Accept), first
        assert (first.client, first.submission) == (rest.get("client", "c"), submission)
        return others

    def offer(
        self,
        *payloads: bytes,
        submission: int = 0,
        kind: str = "echo",
        client: str = "c",
        **rest: Any,
    ) -> list[do.Action]:
        """A client submits a run; returns all actions."""
        return self.tell(on.TasksSubmitted(client, submission, kind, list(payloads), **rest))

    def cancel(self, *positions: int, submission: int = 0) -> list[do.Action]:
        """The client ``c`` cancels some positions, or all."""
        return self.tell(on.TasksCancelled("c", submission, list(positions)))

    def heard(self, floor: int = 0, *received: int, **rest: Any) -> list[do.Action]:
        """The client ``c`` sends a heartbeat; returns the actions after the greeting."""
        first, *others = self.tell(on.ClientHeartbeat("c", floor, list(received), **rest))
        if isinstance(first, do.Meet):
            first, *others = others
        assert first == do.Greet("c", 0.2, list(received))
        return others

    def counted(self, **counters: int) -> None:
        """Check every counter except the ordinary ones."""
        ordinary = {"accepted", "done", "workers_joined"}
        odd = {k: v for k, v in self.scheduler.counters.items() if v and k not in ordinary}
        assert odd == {name.replace("dead_", "dead-"): v for name, v in counters.items()}, odd


def holding(*payloads: bytes, **limits: Any) -> Bench:
    """A bench whose worker ``w`` holds these tasks, one run of the client ``c``, as lease 1."""
    bench = Bench(**limits)
    bench.join(credit=len(payloads))
    assert bench.submit(*payloads) == [bench.assign("w", 1, 0, *payloads)]
    return bench


def delivered(*results: bytes, start: int = 0, submission: int = 0, **rest: Any) -> do.Deliver:
    """A delivery of results to the client ``c``."""
    return do.Deliver("c", submission, start, list(results), **rest)


def ended(failure: Failure, count: int = 1, submission: int = 0) -> do.Deliver:
    """A delivery of the same failure of ``count`` tasks to the client ``c``."""
    start = failure.position
    failures = [
        Failure(p, failure.error, failure.message, failure.state)
        for p in range(start, start + count)
    ]
    return do.Deliver("c", submission, start, [b""] * count, failures)


#: the policies that every property is checked with; a new policy belongs here
PARTS: dict[str, Callable[[], AssignmentPolicy]] = {
    **POLICIES,
    Slices.name: Slices,
    **{f"optimised-{name}": make for name, make in optimised.POLICIES.items()},
    **{f"cached-{name}": make for name, make in optimised.CACHED.items()},
    **{f"indexed-{name}": make for name, make in optimised.INDEXED.items()},
    **{f"sized-{name}": make for name, make in optimised.SIZED.items()},
}


def offer(worker: str = "w", capacity: int = 1, credit: int = 4, **offers: Any) -> WorkerState:
    """A worker as a policy sees it."""
    offers = {"kinds": ["echo"], **offers}
    return WorkerState(on.WorkerJoined(worker, 1, capacity, credit, **offers), 1, 0.0)


def run(id: int, count: int = 1, **attributes: Any) -> Run:
    """A run at its acceptance."""
    payloads = [b"%d" % position for position in range(count)]
    attributes = {"kind": "echo", **attributes}
    event = on.TasksSubmitted("c", id, payloads=payloads, **attributes)
    return Run(id, event, 0.0)


def staffed(policy: AssignmentPolicy, *workers: WorkerState) -> AssignmentPolicy:
    """The policy, once these workers have joined."""
    for worker in workers:
        policy.join(worker)
    return policy


def chosen(policy: AssignmentPolicy, needs: Needs = ECHO, suspect: bool = False) -> str | None:
    """The name of the worker that a policy chooses."""
    worker = policy.choose(needs, suspect)
    return None if worker is None else worker.id


def give(policy: AssignmentPolicy, worker: WorkerState, needs: Needs, change: int) -> None:
    """Change what a worker has in its hands, and tell the policy as the scheduler does."""
    worker.held += change
    policy.hold(worker, needs, change)
    policy.touch(worker)
