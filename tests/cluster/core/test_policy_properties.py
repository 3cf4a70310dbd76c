"""Every policy, driven at random: it chooses an eligible worker whenever there is one, and the best
by its own measure.
"""

from collections.abc import Callable

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cluster.core.policy import Adaptive, AssignmentPolicy, LeastLoaded, ScanPolicy
from cluster.core.run import Needs
from cluster.core.worker import WorkerState
from cluster.vocabulary.task import NO_REQUIREMENTS, Gpu, GpuLoad, Load, Requirements
from perfkit.optimized.index import Indexed
from perfkit.optimized.sizer import MAX_LEASE
from tests.cluster.core.scheduling import PARTS, give, offer

GIB = 1 << 30
Maker = Callable[[], AssignmentPolicy]
ALL_NEEDS: list[Needs] = [
    ("echo", NO_REQUIREMENTS),
    ("spin", NO_REQUIREMENTS),
    ("echo", Requirements(model="m")),
    ("echo", Requirements(min_vram_bytes=4 * GIB)),
    ("echo", Requirements(gpu_family="vega")),
]


def has_room(policy: AssignmentPolicy, worker: WorkerState) -> bool:
    """By the policy's sizer if it has one, else by the worker's credit."""
    sizer = getattr(policy, "sizer", None) or getattr(policy, "_sizer", None)
    return worker.free > 0 if sizer is None else sizer.has_room(worker)


def score(policy: AssignmentPolicy, worker: WorkerState, needs: Needs) -> float:
    """The worker's bucket, or its score where the policy scans."""
    if isinstance(policy, Adaptive):
        part = policy.part(needs)
        policy = getattr(policy, "_indexes", {}).get(part, part)
    assert isinstance(policy, Indexed | ScanPolicy)
    return policy.score(worker, needs)


LOADS = st.builds(
    Load,
    memory_free_bytes=st.none() | st.integers(0, 64 * GIB),
    gpus=st.lists(
        st.builds(
            GpuLoad,
            st.none() | st.integers(0, 32 * GIB),
            st.none() | st.floats(0, 100),
            asleep=st.booleans(),
            trouble=st.sampled_from([None, None, "it is too hot"]),
        ),
        max_size=3,
    ).map(tuple),
)
#: no shrinking: it takes minutes
BRIEFLY = settings(
    max_examples=settings().max_examples // 3,
    stateful_step_count=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
NAMES = st.sampled_from(["w0", "w1", "w2", "w3", "w4", "w5"])
NEWCOMERS = st.builds(
    offer,
    NAMES,
    st.integers(1, 3),
    st.integers(1, 3) | st.just(40),
    kinds=st.sampled_from([["echo", "spin"], ["echo"], ["spin"]]),
    models=st.sampled_from([[], ["m"]]),
    gpus=st.lists(
        st.builds(
            Gpu,
            st.sampled_from([None, "vega", "polaris"]),
            st.none() | st.integers(0, 9 * GIB),
            st.booleans(),
        ),
        max_size=3,
    ),
)
NEEDS = st.sampled_from(ALL_NEEDS)


class PolicyMachine(RuleBasedStateMachine):
    """Workers join, leave, report loads and get work; each choice is compared with the eligible
    workers of the plain policy, and with the scores of all of them.
    """

    def __init__(self, make: Maker) -> None:
        super().__init__()
        self.make = make
        self.policy = make()
        #: tells the eligible workers
        self.plain = LeastLoaded()
        self.here: dict[str, WorkerState] = {}
        self.gone: list[WorkerState] = []
        self.held: list[tuple[WorkerState, Needs, int]] = []

    @initialize(crew=st.lists(NEWCOMERS, min_size=2, max_size=5))
    def start(self, crew: list[WorkerState]) -> None:
        for number, worker in enumerate(crew):
            self.join(worker, number % 2)

    @rule(worker=NEWCOMERS, suspects=st.integers(0, 1))
    def join(self, worker: WorkerState, suspects: int) -> None:
        self.leave(worker.id)
        worker.suspects = suspects
        self.here[worker.id] = worker
        self.policy.join(worker)
        self.plain.join(worker)
        self.policy.touch(worker)

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        worker = self.here.pop(name, None)
        if worker is not None:
            self.policy.leave(worker)
            self.plain.leave(worker)
            self.gone.append(worker)
            for needs in ALL_NEEDS:
                self.choice(needs, False)

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), again=st.booleans())
    def hear_of_the_gone(self, data: st.DataObject, again: bool) -> None:
        """A worker that has left is touched, and perhaps leaves twice."""
        worker = data.draw(st.sampled_from(self.gone))
        if again and self.here.get(worker.id) is None:
            self.policy.leave(worker)
        self.policy.touch(worker)

    @precondition(lambda self: self.here)
    @rule(data=st.data(), load=LOADS)
    def say(self, data: st.DataObject, load: Load) -> None:
        worker = data.draw(st.sampled_from(list(self.here.values())))
        before = worker.cards
        worker.load = load
        if [card.gpu for card in before] != [card.gpu for card in worker.cards]:
            self.policy.offers_changed(worker)
        self.policy.touch(worker)

    @precondition(lambda self: self.here)
    @rule(
        data=st.data(),
        kinds=st.sets(st.sampled_from(["echo", "spin"])),
        models=st.sets(st.sampled_from(["m", "n"])),
    )
    def offer_else(self, data: st.DataObject, kinds: set[str], models: set[str]) -> None:
        worker = data.draw(st.sampled_from(list(self.here.values())))
        worker.kinds, worker.models = frozenset(kinds), frozenset(models)
        self.policy.offers_changed(worker)
        self.policy.touch(worker)

    def choice(self, needs: Needs, suspect: bool) -> WorkerState | None:
        """The policy's choice, which is an able worker of the lowest score, if there is one."""
        able = [
            worker
            for worker in self.plain.eligible(needs)
            if has_room(self.policy, worker) and not (suspect and worker.suspects)
        ]
        scores = {worker.id: score(self.policy, worker, needs) for worker in able}
        choice = self.policy.choose(needs, suspect)
        if choice is None:
            assert able == []
            return None
        assert any(choice is worker for worker in able)
        assert scores[choice.id] == min(scores.values())
        return choice

    @rule(needs=NEEDS, suspect=st.booleans(), queued=st.integers(1, 100), leases=st.integers(1, 8))
    def choose(self, needs: Needs, suspect: bool, queued: int, leases: int) -> None:
        for _ in range(leases):
            choice = self.choice(needs, suspect)
            if choice is None:
                return
            count = min(self.policy.lease_tasks(choice, needs, queued), choice.free)
            assert 1 <= count <= min(queued, MAX_LEASE)
            give(self.policy, choice, needs, count)
            self.held.append((choice, needs, count))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), service_s=st.sampled_from([0.0, 5e-324, 1e-6, 1e-4, 1e-2, 1e9]))
    def finish(self, data: st.DataObject, service_s: float) -> None:
        """A worker finishes a lease, unless it is gone. Its speed concerns the others too: all are
        touched at once.
        """
        at = data.draw(st.integers(0, len(self.held) - 1))
        worker, needs, count = self.held.pop(at)
        if self.here.get(worker.id) is worker:
            give(self.policy, worker, needs, -count)
            self.policy.observe(worker, needs, count, service_s * count)
            for other in self.here.values():
                self.policy.touch(other)

    @rule()
    def switch(self) -> None:
        """A policy of the same kind takes over; the workers keep their tasks."""
        self.policy = self.make()
        for worker in self.here.values():
            self.policy.join(worker)
            for holder, needs, count in self.held:
                if holder is worker:
                    self.policy.hold(worker, needs, count)

    @invariant()
    def bits_are_set_for_buckets_that_are_not_empty(self) -> None:
        indexes = [self.policy, *getattr(self.policy, "_indexes", {}).values()]
        for buckets in [b for i in indexes for b in getattr(i, "_by_needs", {}).values()]:
            filled = [number for number, members in buckets._members.items() if members]
            assert buckets._full == sum(1 << number for number in filled)
            assert {w for n in filled for w in buckets._members[n]} <= buckets.eligible.keys()

    def teardown(self) -> None:
        """With nothing in hand, every worker has room."""
        for worker, needs, count in self.held:
            if self.here.get(worker.id) is worker:
                give(self.policy, worker, needs, -count)
        for worker in self.here.values():
            assert worker.held == 0
            assert has_room(self.policy, worker)
        for needs in ALL_NEEDS:
            assert (self.policy.choose(needs, False) is None) == (not self.plain.eligible(needs))


@pytest.mark.hypothesis
@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_an_eligible_worker_of_the_lowest_score_is_chosen_after_any_history(make: Maker) -> None:
    run_state_machine_as_test(lambda: PolicyMachine(make), settings=BRIEFLY)
