"""A scheduler driven at random; its invariants and the witness are checked after every step.

The simulator plays a plausible world, Hypothesis a perverse one. In the end every accepted task
must still have come to exactly one end.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cluster.core.clients import ClientState
from cluster.core.inspection import queued
from cluster.core.ledger import Ledger
from cluster.core.policy import POLICIES, AssignmentPolicy
from cluster.core.scheduler import Scheduler
from cluster.core.worker import Lease
from cluster.simulation.witness import Witness
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.status import Tasks
from cluster.vocabulary.task import (
    Backoff,
    Failure,
    Gpu,
    GpuLoad,
    Load,
    Priority,
    ProcessState,
    Requirements,
    Retry,
    State,
    TaskId,
)
from tests.cluster.core.scheduling import PARTS

LIMITS = Limits(
    tasks=60,
    payload_bytes=2_000,
    retained_bytes=300,
    submissions_per_client=8,
    clients=2,
    workers=3,
    hosts=2,
    unserved_s=2.0,
    resent_bytes=200,
    history_runs=4,
    story_entries=12,
    bypasses=3,
    client_liveness_s=3.0,
)
WORKERS = st.sampled_from(["w0", "w1", "w2", "w3"])
CLIENTS = st.sampled_from(["c0", "c1", "c2"])
OPTIONS = st.fixed_dictionaries(
    {
        "priority": st.sampled_from(Priority),
        "requirements": st.sampled_from(
            [Requirements(), Requirements("m"), Requirements(gpu_family="vega", min_vram_bytes=4)]
        ),
        "timeout_s": st.sampled_from([None, None, 0.3, 2.0]),
        "retry": st.sampled_from([Retry(n, Backoff.LINEAR, base_s=0.1) for n in (1, 2, 3)]),
        "wait_for_worker": st.booleans(),
    }
)
#: no shrinking: it takes minutes, and forty steps can be read; a failure is kept and replays
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


class Held:
    """A lease as its worker has it."""

    def __init__(self, action: do.Assign) -> None:
        self.worker, self.epoch, self.id = action.worker, action.epoch, action.lease
        self.next, self.stop = action.start, action.start + len(action.payloads)


class Accepted:
    """The tasks whose results the scheduler has accepted, of whatever client: it has told each by
    then. None of them may be leased again.
    """

    def __init__(self) -> None:
        self.tasks: set[TaskId] = set()
        self._runs: dict[tuple[str, int], int] = {}

    def observe(self, actions: list[do.Action]) -> None:
        for action in actions:
            if isinstance(action, do.Accept):
                self._runs[action.client, action.submission] = action.run
            elif isinstance(action, do.Confirm):
                self.add(action, {action.position})
            elif isinstance(action, do.Deliver):
                told = range(action.start, action.start + len(action.outcomes))
                self.add(action, {*told} - {failure.position for failure in action.failures})
            elif isinstance(action, do.Assign):
                client, submission, _ = action.payloads[0].decode().split()
                run, stop = self._runs[client, int(submission)], action.start + len(action.payloads)
                again = self.tasks & {TaskId(run, p) for p in range(action.start, stop)}
                assert not again, f"leased again after their results were accepted: {again}"

    def add(self, action: do.Confirm | do.Deliver, positions: set[int]) -> None:
        run = self._runs[action.client, action.submission]
        self.tasks |= {TaskId(run, position) for position in positions}


class SchedulerMachine(RuleBasedStateMachine):
    """Peers that may send anything; they remember messages only to send plausible ones."""

    def __init__(self, policy: Callable[[], AssignmentPolicy]) -> None:
        super().__init__()
        policies = {**POLICIES, policy().name: policy}
        self.scheduler = Scheduler(policy(), LIMITS, lambda: 0.5, policies)
        self.witness = Witness(LIMITS)
        self.now = 0.0
        self.incarnations: dict[str, int] = {}
        self.epochs: dict[str, int] = {}
        self.leases: list[Held] = []
        self.results = Accepted()
        self.offers: list[do.Offer] = []
        self.accepted: dict[str, dict[int, on.TasksSubmitted]] = {}
        self.refused: list[tuple[on.TasksSubmitted, ClientState]] = []
        self.submission = 0

    def tell(self, event: on.Event) -> list[do.Action]:
        return self.take(event, self.scheduler.handle(event, self.now))

    def take(self, event: on.Event | None, actions: list[do.Action]) -> list[do.Action]:
        self.results.observe(actions)
        self.witness.observe(event, actions, self.now)
        for action in actions:
            if isinstance(action, do.Welcome):
                self.epochs[action.worker] = action.epoch
            elif isinstance(action, do.Assign):
                self.leases.append(Held(action))
            elif isinstance(action, do.Offer):
                self.offers.append(action)
        return actions

    @invariant()
    def holds(self) -> None:
        self.scheduler.validate()
        assert self.scheduler.counters["done"] == len(self.results.tasks), "each once, and told"
        assert len(self.scheduler.ledger.history) <= LIMITS.history_runs
        for run in self.scheduler.ledger.runs.values():
            assert len(run.story) <= LIMITS.story_entries
            assert self.scheduler.story(TaskId(run.id, 0))[0].cause == "accepted"

    # Workers

    @rule(
        worker=WORKERS,
        credit=st.integers(1, 6),
        gpu=st.booleans(),
        again=st.integers(-1, 1),
        batches=st.sampled_from([{}, {"echo": 4}]),
    )
    def join(
        self, worker: str, credit: int, gpu: bool, again: int, batches: dict[str, int]
    ) -> None:
        """A newcomer, a repeat, a restart, an older or another process of the same name."""
        incarnation = max(1, self.incarnations.get(worker, 1) + again)
        self.incarnations[worker] = max(incarnation, self.incarnations.get(worker, 1))
        gpus, models = ([Gpu("vega", 8)], ["m"]) if gpu else ([], [])
        offers, pid = (["echo"], models, gpus), incarnation
        place = "h", pid, 0
        self.tell(on.WorkerJoined(worker, incarnation, 1, credit, *offers, *place, batches))

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        skip=st.integers(0, 2),
        count=st.integers(0, 4),
        keep=st.booleans(),
        busy_s=st.sampled_from([1e-3, 1e-6, 5e-324, 0.0, 1e9, float("nan")]),
    )
    def finish(self, data: st.DataObject, skip: int, count: int, keep: bool, busy_s: float) -> None:
        """Results from a lease, perhaps after a gap, perhaps once more, perhaps of a dead lease."""
        lease = data.draw(st.sampled_from(self.leases))
        start = min(lease.next + skip, lease.stop)
        stop = min(start + count, lease.stop)
        failed = data.draw(st.sets(st.integers(start, stop)))
        outcomes = [b"" if p in failed else b"r%d" % lease.id for p in range(start, stop)]
        failures = [Failure(p, "Raised", f"by {lease.id}") for p in sorted(failed)]
        self.tell(
            on.TasksFinished(
                lease.worker, lease.epoch, lease.id, start, outcomes, failures, 0, busy_s
            )
        )
        if not keep:
            lease.next = stop
            self.leases = [held for held in self.leases if held.next < held.stop]

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), skip=st.integers(0, 1))
    def store(self, data: st.DataObject, skip: int) -> None:
        """A large result waits to be fetched, perhaps of a dead lease, or of a later task."""
        lease = data.draw(st.sampled_from(self.leases))
        position = min(lease.next + skip, lease.stop - 1)
        self.tell(on.ResultStored(lease.worker, lease.epoch, lease.id, position, 10))

    @precondition(lambda self: self.offers)
    @rule(data=st.data(), is_whole=st.booleans())
    def fetch(self, data: st.DataObject, is_whole: bool) -> None:
        """A client asks for a part of a large result or says that it has all, perhaps again."""
        offer = data.draw(st.sampled_from(self.offers))
        place = offer.client, offer.submission, offer.position, offer.lease
        self.tell(on.StreamReceived(*place) if is_whole else on.ChunkRequested(*place, 0, 5))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        start = data.draw(st.integers(lease.next, lease.stop))
        self.tell(on.TasksReleased(lease.worker, lease.epoch, lease.id, start))

    @precondition(lambda self: self.epochs)
    @rule(
        data=st.data(),
        stale=st.booleans(),
        load=st.integers(0, 100) | st.none(),
        trouble=st.sampled_from([None, None, "hot"]),
        wants=st.sampled_from([{}, {"echo": 1}]),
        credit=st.integers(0, 8),
    )
    def heartbeat(
        self,
        data: st.DataObject,
        stale: bool,
        load: int | None,
        trouble: str | None,
        wants: dict[str, int],
        credit: int,
    ) -> None:
        worker = data.draw(st.sampled_from(sorted(self.epochs)))
        ids = [lease.id for lease in self.leases if lease.worker == worker]
        held = data.draw(st.sets(st.sampled_from(ids))) if ids else set()
        epoch = self.epochs[worker] - stale
        gpus = (GpuLoad(busy_pct=load, trouble=trouble),)
        facts = sorted(held), Load(gpus=gpus), [], wants, credit
        self.tell(on.WorkerHeartbeat(worker, epoch, *facts))

    @rule(worker=WORKERS, how=st.sampled_from(["unreachable", "left", "draining"]))
    def go(self, worker: str, how: str) -> None:
        epoch = self.epochs.get(worker, 0)
        if how == "unreachable":
            ids = [lease.id for lease in self.leases if lease.worker == worker][-2:]
            self.tell(on.WorkerUnreachable(worker, ids))
        else:
            farewell = on.WorkerLeft if how == "left" else on.WorkerDraining
            self.tell(farewell(worker, epoch))

    @rule(
        worker=WORKERS,
        stale=st.booleans(),
        revision=st.integers(0, 4),
        kinds=st.sampled_from([["echo"], ["echo", "spin"], ["spin"], []]),
        models=st.sampled_from([[], ["m"], ["m", "n"]]),
        heard=st.integers(0, 3),
    )
    def offer(
        self,
        worker: str,
        stale: bool,
        revision: int,
        kinds: list[str],
        models: list[str],
        heard: int,
    ) -> None:
        """A worker offers something else, perhaps in a message that has been overtaken."""
        epoch = self.epochs.get(worker, 0) - (stale and worker in self.epochs)
        self.tell(on.WorkerOffers(worker, epoch, kinds, models, "", revision, heard))

    @rule(
        host=st.sampled_from(["h", "i", "j"]),
        worker=WORKERS,
        state=st.sampled_from(ProcessState),
        older=st.integers(0, 1),
    )
    def report(self, host: str, worker: str, state: ProcessState, older: int) -> None:
        """A supervisor says what it sees, perhaps of a worker that is another's."""
        pid = self.incarnations.get(worker, 1) - older
        self.tell(on.HostReported(host, [(worker, pid, state)]))

    @rule(host=st.sampled_from(["h", "i", "j"]))
    def host_leaves(self, host: str) -> None:
        self.tell(on.HostLeft(host))

    # Clients

    @rule(client=CLIENTS, count=st.integers(0, 12), options=OPTIONS, traced=st.booleans())
    def submit(self, client: str, count: int, options: dict[str, Any], traced: bool) -> None:
        payloads = [f"{client} {self.submission} {p}".encode() for p in range(count)]
        event = on.TasksSubmitted(client, self.submission, "echo", payloads, **options)
        event.sent_at = self.now if traced else None
        self.submission += 1
        first = next(action for action in self.tell(event) if not isinstance(action, do.Meet))
        if isinstance(first, do.Accept):
            self.accepted.setdefault(client, {})[event.submission] = event
        else:
            assert isinstance(first, do.Refuse), first
            assert first.reason
            if client in self.scheduler.clients.by_name:  # else the client is unknown
                self.refused.append((event, self.scheduler.clients.by_name[client]))

    @precondition(lambda self: self.refused)
    @rule(data=st.data())
    def refused_again(self, data: st.DataObject) -> None:
        """A refused submission is repeated when its client no longer waits."""
        event, state = data.draw(st.sampled_from(self.refused))
        if self.scheduler.clients.by_name.get(event.client) is state:
            assert not any(isinstance(action, do.Accept) for action in self.tell(event))

    @precondition(lambda self: any(self.accepted.values()))
    @rule(data=st.data(), what=st.sampled_from(["repeat", "cancel", "cancel all", "receive"]))
    def again(self, data: st.DataObject, what: str) -> None:
        """A client repeats, cancels or acknowledges a submission."""
        client = data.draw(st.sampled_from([c for c in sorted(self.accepted) if self.accepted[c]]))
        event = data.draw(st.sampled_from([*self.accepted[client].values()]))
        if client not in self.scheduler.clients.by_name:
            del self.accepted[client]  # it was silent for too long: all it had is forgotten
        elif what == "repeat":
            accept, *_ = self.tell(event)
            assert isinstance(accept, do.Accept)
        elif what == "receive":
            del self.accepted[client][event.submission]
            self.tell(on.ClientHeartbeat(client, 0, [event.submission]))
        else:
            some = st.sets(st.integers(0, len(event.payloads) - 1), min_size=1)
            positions = sorted(data.draw(some)) if what == "cancel" else []
            self.tell(on.TasksCancelled(client, event.submission, positions))

    @rule(client=CLIENTS, waiting=st.booleans())
    def remind(self, client: str, waiting: bool) -> None:
        known = self.accepted.get(client, {})
        floor = min(known, default=self.submission)
        asked = [(submission, 0) for submission in known] if waiting else []
        self.tell(on.ClientHeartbeat(client, floor, [], asked))

    # The rest of the world

    @rule(seconds=st.sampled_from([0.001, 0.006, 0.1, 0.7]))
    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.scheduler.deadline()) is not None and due <= end:
            assert due >= self.now or due == pytest.approx(self.now)
            self.now = max(self.now, due)
            self.take(None, self.scheduler.handle_timer(self.now))
            self.scheduler.validate()
        self.now = end

    @rule(policy=st.sampled_from(sorted(POLICIES)))
    def switch(self, policy: str) -> None:
        (report, *_) = self.tell(on.PolicyChanged("op", 0, policy))
        assert self.scheduler.policy.name == policy
        assert isinstance(report, do.Report)

    @rule(
        load=st.sets(st.sampled_from(["m", "n"])),
        unload=st.sets(st.sampled_from(["m", "n"])),
    )
    def want(self, load: set[str], unload: set[str]) -> None:
        actions = self.tell(on.ModelsRequested("op", 0, [*load], [*unload]))
        (report,) = [action for action in actions if isinstance(action, do.Report)]
        assert bool(report.error) == bool(load & unload)
        for order in [action for action in actions if isinstance(action, do.Serve)]:
            assert load <= {*order.models}
            assert not unload & {*order.models}

    @rule(worker=WORKERS, older=st.integers(0, 1), again=st.booleans())
    def dismiss(self, worker: str, older: int, again: bool) -> None:
        pid = self.incarnations.get(worker, 1) - older
        (report,) = [
            action
            for action in self.tell(on.LeaveRequested("op", 0, worker, pid, again))
            if isinstance(action, do.Report)
        ]
        here = self.scheduler.workers.get(worker)
        if here is not None and here.pid == pid:
            assert here.draining or (again and "no supervisor" in report.error)

    @rule(run=st.integers(1, 12), position=st.integers(0, 12))
    def cancel_by_operator(self, run: int, position: int) -> None:
        known = bool(self.scheduler.story(TaskId(run, position)))
        actions = self.tell(on.CancelRequested("op", 0, run, position))
        (report,) = [action for action in actions if isinstance(action, do.Report)]
        assert known == (report.answer is not None) == (not report.error)

    @rule(state=st.none() | st.sampled_from(State), limit=st.integers(1, 5))
    def list_tasks(self, state: State | None, limit: int) -> None:
        """The open tasks of a listing without a limit are those that are open."""
        (report,) = self.tell(on.TasksRequested("op", 0, state, limit))
        assert isinstance(report, do.Report)
        assert isinstance(report.answer, Tasks)
        assert len(report.answer.tasks) <= limit
        assert all(state in (None, task.state) for task in report.answer.tasks)
        (report,) = self.tell(on.TasksRequested("op", 0, None, 1_000))
        assert isinstance(report, do.Report)
        assert isinstance(report.answer, Tasks)
        ids = [(task.run, task.position) for task in report.answer.tasks]
        assert len({*ids}) == len(ids)
        states = Counter(task.state for task in report.answer.tasks)
        ledger = self.scheduler.ledger
        assert states[State.QUEUED] + states[State.ASSIGNED] == ledger.open_tasks
        assert states[State.QUEUED] == sum(queued(ledger)) + sum(ledger.delayed)

    @rule()
    def shrink(self) -> None:
        self.scheduler.shrink()

    def teardown(self) -> None:
        """Replace all workers by a good one: every task must come to an end."""
        for worker in [*self.scheduler.workers]:
            self.tell(on.WorkerLeft(worker, self.epochs[worker]))
        self.advance(0.7)  # until then their last reports may come
        offers = ["echo"], ["m"], [Gpu("vega", 8)]
        self.leases.clear()
        self.tell(on.WorkerJoined("healer", 1, 4, 4, *offers))
        for _ in range(200):
            if not self.scheduler.ledger.open_tasks and not self.scheduler.ledger.leases:
                break
            for lease in [held for held in self.leases if held.worker == "healer"]:
                self.leases.remove(lease)
                outcomes = [b"healed"] * (lease.stop - lease.next)
                self.tell(on.TasksFinished("healer", lease.epoch, lease.id, lease.next, outcomes))
            self.tell(on.WorkerHeartbeat("healer", self.epochs["healer"], self.healing()))
            self.advance(0.1)
        assert self.scheduler.ledger.open_tasks == 0, "a task never ended"
        assert self.scheduler.ledger.leases == {}, "a lease never ended"
        assert self.witness.open == {}, "a task ended and its client was not told"
        self.scheduler.validate()

    def healing(self) -> list[int]:
        return [lease.id for lease in self.leases if lease.worker == "healer"]


@pytest.mark.hypothesis
@pytest.mark.parametrize("policy", PARTS.values(), ids=PARTS)
def test_every_invariant_holds_under_any_events(policy: Callable[[], AssignmentPolicy]) -> None:
    run_state_machine_as_test(
        lambda: SchedulerMachine(policy),
        settings=settings(
            max_examples=settings().max_examples // 3, stateful_step_count=40, phases=PHASES
        ),
    )


@pytest.mark.parametrize("how", ["report", "stream", "batch"])
def test_a_task_that_is_leased_again_after_its_result_is_noticed(how: str) -> None:
    """The scheduler forgets what a lease has reported when its worker leaves."""
    machine = SchedulerMachine(POLICIES["round-robin"])
    tasks = 2 if how == "batch" else 1
    batches = {"echo": tasks} if how == "batch" else {}
    machine.tell(on.WorkerJoined("w0", 1, 1, 6, ["echo"], batches=batches))
    machine.tell(on.TasksSubmitted("c0", 0, "echo", [b"c0 0 0", b"c0 0 1", b"c0 0 2"]))
    for lease in machine.leases[:tasks]:
        place = lease.worker, lease.epoch, lease.id
        if how == "stream":
            machine.tell(on.ResultStored(*place, lease.next, 10))
            machine.tell(on.StreamReceived("c0", 0, lease.next, lease.id))
        else:
            machine.tell(on.TasksFinished(*place, lease.next, [b"r"]))
    assert len(machine.results.tasks) == machine.scheduler.counters["done"] == tasks
    requeue = Ledger.requeue

    def forgets(ledger: Ledger, lease: Lease, span: tuple[int, int], *rest: Any) -> None:
        lease.revoked = None
        requeue(ledger, lease, (0, span[1]), *rest)

    with (
        mock.patch.object(Ledger, "requeue", forgets),
        mock.patch.object(Scheduler, "validate"),
    ):
        machine.tell(on.WorkerLeft("w0", machine.epochs["w0"]))
        machine.advance(0.7)
    with pytest.raises(AssertionError, match="leased again after their results were accepted"):
        machine.tell(on.WorkerJoined("w1", 1, 1, 6, ["echo"]))
