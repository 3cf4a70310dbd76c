"""The optimised policies choose as the plain ones would, up to a bucket's width, after any history;
their memory is bounded and forgotten in time.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cluster.core.policy import POLICIES as PLAIN
from cluster.core.policy import (
    AssignmentPolicy,
    GpuMatch,
    LatencyAware,
    LeastLoaded,
    MemoryAware,
    ScanPolicy,
)
from cluster.core.run import Needs
from cluster.core.worker import WorkerState
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import NO_REQUIREMENTS, Gpu, Load, Requirements
from perfkit.optimized import policy as optimised
from perfkit.optimized.index import MAX_INDEXES, MAX_NEEDS, Indexed
from perfkit.optimized.policy import (
    CACHED,
    INDEXED,
    POLICIES,
    SIZED,
    IndexedAdaptive,
)
from perfkit.optimized.sizer import FIRST_LEASE, LEASE_S, MAX_LEASE
from tests.cluster.core.scheduling import Bench, T, offer, untraced

GIB = 1 << 30
ECHO: Needs = ("echo", NO_REQUIREMENTS)
CARD: Needs = ("echo", Requirements(min_vram_bytes=4 * GIB))
ALL_NEEDS: list[Needs] = [
    ECHO,
    ("spin", NO_REQUIREMENTS),
    ("echo", Requirements(model="m")),
    CARD,
    ("echo", Requirements(gpu_family="vega")),
]
#: every optimised policy, by the id of its tests
MAKERS = {
    **{f"{name}": make for name, make in POLICIES.items()},
    **{f"cached {name}": make for name, make in CACHED.items()},
    **{f"indexed {name}": make for name, make in INDEXED.items()},
    **{f"sized {name}": make for name, make in SIZED.items()},
}
each_policy = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
Maker = Callable[[], AssignmentPolicy]


def staffed(policy: AssignmentPolicy, *workers: WorkerState) -> AssignmentPolicy:
    for worker in workers:
        policy.join(worker)
    return policy


def give(policy: AssignmentPolicy, worker: WorkerState, needs: Needs, change: int) -> None:
    """Change what a worker has in its hands, and tell the policy as the scheduler does."""
    worker.held += change
    policy.hold(worker, needs, change)
    policy.touch(worker)


def chosen(policy: AssignmentPolicy, needs: Needs = ECHO, suspect: bool = False) -> str | None:
    worker = policy.choose(needs, suspect)
    return None if worker is None else worker.id


# The same choice as the plain policy's


def has_room(policy: AssignmentPolicy, worker: WorkerState) -> bool:
    """By the policy's sizer if it has one, else by the worker's credit."""
    sizer = getattr(policy, "sizer", None) or getattr(policy, "_sizer", None)
    return worker.free > 0 if sizer is None else sizer.has_room(worker)


def score(policy: AssignmentPolicy, worker: WorkerState, needs: Needs) -> float:
    """The worker's bucket, or its score where the policy scans."""
    if isinstance(policy, IndexedAdaptive):
        return policy._indexes[policy.part(needs)].score(worker, needs)
    assert isinstance(policy, Indexed | ScanPolicy)
    return policy.score(worker, needs)


LOADS = st.builds(
    Load,
    memory_free_bytes=st.none() | st.integers(0, 64 * GIB),
    vram_free_bytes=st.none() | st.integers(0, 32 * GIB),
    gpu_busy_pct=st.none() | st.floats(0, 100) | st.sampled_from([math.nan, math.inf, -math.inf]),
)
NAMES = st.sampled_from(["w0", "w1", "w2", "w3", "w4", "w5"])
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

    @rule(
        name=NAMES,
        capacity=st.integers(1, 3),
        credit=st.integers(1, 40),
        kinds=st.sampled_from([["echo"], ["spin"], ["echo", "spin"]]),
        models=st.sampled_from([[], ["m"]]),
        gpus=st.lists(
            st.builds(Gpu, st.sampled_from(["vega", "polaris"]), st.integers(0, 9 * GIB))
        ),
        suspects=st.integers(0, 1),
    )
    def join(
        self,
        name: str,
        capacity: int,
        credit: int,
        kinds: list[str],
        models: list[str],
        gpus: list[Gpu],
        suspects: int,
    ) -> None:
        self.leave(name)
        worker = offer(name, capacity, credit, kinds=kinds, models=models, gpus=gpus)
        worker.suspects = suspects
        self.here[name] = worker
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
        if isinstance(self.policy, ScanPolicy) and math.isnan(load.gpu_busy_pct or 0.0):
            load = Load()  # a scan cannot order NaN
        worker.load = load
        self.policy.touch(worker)

    @rule(needs=NEEDS, suspect=st.booleans(), queued=st.integers(1, 100))
    def choose(self, needs: Needs, suspect: bool, queued: int) -> None:
        able = [
            worker
            for worker in self.plain.eligible(needs)
            if has_room(self.policy, worker) and not (suspect and worker.suspects)
        ]
        best = min((score(self.policy, worker, needs) for worker in able), default=None)
        choice = self.policy.choose(needs, suspect)
        if choice is None:
            assert able == []
            return
        assert any(choice is worker for worker in able)
        assert score(self.policy, choice, needs) == best
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


@each_policy
def test_a_worker_of_the_lowest_bucket_is_chosen_after_any_history(make: Maker) -> None:
    with untraced():
        run_state_machine_as_test(
            lambda: PolicyMachine(make), settings=settings(max_examples=40, stateful_step_count=40)
        )


@pytest.mark.parametrize("make", [*CACHED.values(), *INDEXED.values()])
@given(held=st.lists(st.integers(0, 4), min_size=1, max_size=8), busy=st.lists(st.integers(0, 100)))
def test_without_a_sizer_the_choice_is_as_good_as_the_plain_one(
    make: Maker, held: list[int], busy: list[int]
) -> None:
    crew = [offer(f"w{number}", 2, 5) for number in range(len(held))]
    policy, plain = staffed(make(), *crew), LeastLoaded()
    staffed(plain, *crew)
    policy.choose(ECHO, False)
    for worker, count in zip(crew, held, strict=True):
        give(policy, worker, ECHO, count)
    for worker, pct in zip(crew, busy, strict=False):
        worker.load = Load(gpu_busy_pct=float(pct))
        policy.touch(worker)
    ours, theirs = policy.choose(ECHO, False), plain.choose(ECHO, False)
    assert ours is not None
    assert theirs is not None
    assert plain.score(ours, ECHO) - plain.score(theirs, ECHO) < 1 / 32
    assert policy.lease_tasks(ours, ECHO, 100) == 1, "no idea beyond the one"


# Buckets order as scores do

FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e20, max_value=1e20)


@pytest.mark.parametrize(
    ("bucket", "lowest", "highest"),
    [
        (optimised._by_load, 0.0, 1e20),
        (optimised._by_time, -1.0, 1e20),
        (optimised._by_memory, -1e20, 1e20),
        (optimised._in_turn, -1e20, 1e20),
    ],
)
@given(scores=st.lists(FINITE, min_size=2), near=st.floats(-1, 3))
def test_a_bucket_orders_as_the_scores_do(
    bucket: Callable[[float], int],
    lowest: float,
    highest: float,
    scores: list[float],
    near: float,
) -> None:
    rising = sorted(min(highest, max(lowest, each)) for each in [*scores, near])
    buckets = [bucket(each) for each in rising]
    assert buckets == sorted(buckets)
    assert 0 <= buckets[0] <= buckets[-1] < 256


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 2)), min_size=2))
def test_a_card_to_spare_weighs_more_than_any_load(cards: list[tuple[int, float]]) -> None:
    rising = sorted(min(spare, 15) * 100.0 + load for spare, load in cards)
    buckets = [optimised._by_card(each) for each in rising]
    assert buckets == sorted(buckets)
    assert optimised._by_card(100.0) > optimised._by_card(2.0)


@pytest.mark.parametrize(
    "bucket",
    [optimised._by_load, optimised._by_card, optimised._by_time, optimised._by_memory],
)
@given(st.floats())
def test_any_score_has_a_bucket_and_nan_the_last(
    bucket: Callable[[float], int], anything: float
) -> None:
    assert 0 <= bucket(anything) <= bucket(math.nan) < 256


def test_a_worker_with_a_load_of_nan_comes_last() -> None:
    honest, odd = offer("honest"), offer("odd")
    policy = staffed(POLICIES["least-loaded"](), odd, honest)
    honest.load, odd.load = Load(gpu_busy_pct=10.0), Load(gpu_busy_pct=math.nan)
    assert [chosen(policy) for _ in range(3)] == ["honest"] * 3


def test_latency_tells_a_quarter_of_an_octave_apart() -> None:
    assert optimised._by_time(1e-3) < optimised._by_time(1.2e-3) < optimised._by_time(2e-3)
    assert optimised._by_time(-0.9) < optimised._by_time(-0.1) < optimised._by_time(1e-9)


# Turns


def test_workers_of_a_bucket_take_turns_while_others_come_and_go() -> None:
    a, b, c, d = (offer(name) for name in "abcd")
    policy = staffed(POLICIES["round-robin"](), a, b, c)
    assert [chosen(policy) for _ in range(2)] == ["a", "b"]
    policy.join(d)
    assert [chosen(policy) for _ in range(2)] == ["c", "a"]
    policy.leave(b)
    assert sorted([chosen(policy), chosen(policy)]) == ["c", "d"]


def test_touching_workers_does_not_change_their_turns() -> None:
    a, b = offer("a", credit=2), offer("b", credit=2)
    policy = staffed(POLICIES["round-robin"](), a, b)
    turns = []
    for _ in range(4):
        turns.append(chosen(policy))
        for _ in range(200):
            policy.touch(a)
    assert turns == ["a", "b", "a", "b"]


# What is remembered


@each_policy
def test_offers_are_looked_up_again_when_a_worker_joins_or_leaves(make: Maker) -> None:
    before, after = offer("w", credit=9, gpus=[Gpu("vega", 8 * GIB)]), offer("w", credit=1)
    policy = make()
    assert chosen(policy, CARD) is None
    policy.join(before)
    assert policy.choose(CARD, False) is before
    policy.leave(before)
    policy.join(after)
    assert policy.choose(ECHO, False) is after
    policy.touch(before)  # of the same name, but gone
    assert policy.choose(ECHO, False) is after
    assert chosen(policy, CARD) is None
    policy.leave(after)
    assert chosen(policy) is None


@each_policy
def test_offers_are_looked_up_once_until_a_worker_joins_or_leaves(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    offers = WorkerState.offers

    def counted(worker: WorkerState, kind: str, requirements: Requirements) -> bool:
        asked.append(worker.id)
        return offers(worker, kind, requirements)

    monkeypatch.setattr(WorkerState, "offers", counted)
    crew = [offer(f"w{number}", credit=100) for number in range(5)]
    policy = staffed(make(), *crew)
    for _ in range(20):
        worker = policy.choose(ECHO, False)
        assert worker is not None
        give(policy, worker, ECHO, 1)
        give(policy, worker, ECHO, -1)
    scans = make in SIZED.values()
    assert len(asked) == (100 if scans else 5)


@each_policy
def test_remembered_needs_are_bounded(make: Maker) -> None:
    policy = staffed(make(), offer())
    for number in range(3 * MAX_NEEDS):
        assert chosen(policy, ("echo", Requirements(model=f"m{number}"))) is None
        assert chosen(policy, (f"made up {number}", NO_REQUIREMENTS)) is None
    assert chosen(policy) == "w"
    kept = [
        len(memory)
        for part in (policy, *getattr(policy, "_indexes", {}).values())
        for name in ("_by_needs", "_eligible", "_spreads", "_reports_left")
        if (memory := getattr(part, name, None)) is not None
    ]
    assert max(kept, default=0) <= MAX_NEEDS


def test_indexes_are_bounded_and_the_oldest_is_built_again() -> None:
    crew = [offer(f"w{n}", models=[f"m{n}"], credit=3) for n in range(2 * MAX_INDEXES)]
    policy = staffed(POLICIES["least-loaded"](), *crew)
    for _ in range(2):
        for number, worker in enumerate(crew):
            needs = ("echo", Requirements(model=f"m{number}"))
            assert chosen(policy, needs) == worker.id
            assert len(policy._indexes) <= MAX_INDEXES


def test_needs_that_the_same_workers_offer_share_an_index_unless_scored_by_needs() -> None:
    crew = [offer(f"w{number}", kinds=["echo", "noop"], credit=3) for number in range(4)]
    for name, indexes in {"least-loaded": 1, "latency-aware": 2}.items():
        policy = staffed(POLICIES[name](), *crew)
        for needs in (ECHO, ("noop", NO_REQUIREMENTS)):
            assert chosen(policy, needs) is not None
        assert len(policy._indexes) == indexes


# Adaptive


def test_adaptive_follows_speed_where_it_differs_and_load_where_it_does_not() -> None:
    fast, slow = offer("fast", credit=50), offer("slow", credit=50)
    policy = staffed(IndexedAdaptive(), slow, fast)
    assert isinstance(policy, IndexedAdaptive)
    assert isinstance(policy.part(CARD), GpuMatch)
    assert isinstance(policy.part(ECHO), LeastLoaded)
    for _ in range(4):
        policy.observe(slow, ECHO, 10, 0.1)
        policy.observe(fast, ECHO, 10, 0.001)
    assert isinstance(policy.part(ECHO), LatencyAware)
    assert chosen(policy) == "fast"
    policy.leave(slow)
    assert isinstance(policy.part(ECHO), LeastLoaded), "a worker that left does not count"


@pytest.mark.parametrize("n_kinds", [1, 3])
def test_adaptive_computes_each_kinds_spread_again_when_kinds_alternate(n_kinds: int) -> None:
    a, b = offer("a"), offer("b")
    policy = staffed(IndexedAdaptive(), a, b)
    assert isinstance(policy, IndexedAdaptive)
    kinds: list[Needs] = [(f"k{number}", NO_REQUIREMENTS) for number in range(n_kinds)]
    for service_s in (0.01, 0.09):
        for _ in range(30):
            for needs in kinds:
                policy.part(needs)
                policy.observe(a, needs, 1, 0.01)
                policy.observe(b, needs, 1, service_s)
    assert all(isinstance(policy.part(needs), LatencyAware) for needs in kinds)


# In the scheduler


@pytest.mark.parametrize("first", [*POLICIES, "plain"])
@pytest.mark.parametrize("then", POLICIES)
def test_a_policy_is_switched_while_work_is_held(first: str, then: str) -> None:
    make = PLAIN["least-loaded"] if first == "plain" else POLICIES[first]
    bench = Bench(make, policies=POLICIES)
    bench.join("a", credit=50)
    bench.join("b", credit=50)
    bench.submit(*[b"%d" % number for number in range(40)])
    bench.tell(on.PolicyChanged("op", 0, then))
    assert bench.scheduler.policy.name == then
    held = {name: worker.held for name, worker in bench.scheduler.workers.items()}
    assert sum(held.values()) > 0
    sizer = bench.scheduler.policy.sizer  # type: ignore[attr-defined]
    for worker in bench.scheduler.workers.values():
        assert sizer.ahead_s(worker) == pytest.approx(worker.held * LEASE_S)
    while leases := list(bench.scheduler.ledger.leases.values()):
        for lease in leases:
            results = [b"r"] * (lease.stop - lease.next)
            bench.finish(
                lease.worker.id, lease.id, lease.next, *results, started_at=0.0, ended_at=1e-4
            )
    assert bench.scheduler.counters["done"] == 40
    for worker in bench.scheduler.workers.values():
        assert sizer.ahead_s(worker) == 0.0


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("service_s", [None, 1e-5, 4e-4, 1e-3, 0.1])
def test_every_slot_of_a_worker_has_a_lease_of_its_own(name: str, service_s: float | None) -> None:
    bench = Bench(POLICIES[name], policies=POLICIES)
    bench.join("w", capacity=4, credit=4_000)
    if service_s is not None:
        measured = bench.submit(*[b"x"] * 4)
        for lease in [action for action in measured if isinstance(action, do.Assign)]:
            bench.finish("w", lease.lease, lease.start, b"x", ended_at=service_s)
    bench.submit(*[b"x"] * 3_000, submission=1)
    assert len(bench.scheduler.workers["w"].leases) >= 4


@pytest.mark.parametrize("name", POLICIES)
def test_leases_grow_and_the_credit_is_kept(name: str) -> None:
    bench = Bench(POLICIES[name], policies=POLICIES)
    bench.join("w", credit=2_000)
    actions = bench.submit(*[b"x"] * 3_000)
    sizes = []
    while leases := [action for action in actions if isinstance(action, do.Assign)]:
        actions = []
        for lease in leases:
            sizes.append(len(lease.payloads))
            assert bench.scheduler.workers["w"].held <= 2_000
            took_s = len(lease.payloads) * 1e-5
            actions += bench.finish("w", lease.lease, lease.start, *lease.payloads, ended_at=took_s)
    assert sum(sizes) == 3_000
    assert sizes[0] == FIRST_LEASE
    assert max(sizes) == pytest.approx(LEASE_S / 1e-5, abs=1)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("ended_at", [math.nan, math.inf, -math.inf, 5e-324, -1.0, 1e300])
def test_no_time_a_worker_can_report_stops_the_scheduler(name: str, ended_at: float) -> None:
    bench = Bench(POLICIES[name], policies=POLICIES)
    bench.join("w", credit=4)
    actions = bench.submit(*T * 4)
    while leases := [action for action in actions if isinstance(action, do.Assign)]:
        actions = []
        for lease in leases:
            actions += bench.finish(
                "w", lease.lease, lease.start, *lease.payloads, ended_at=ended_at
            )
            bench.beat("w", *bench.scheduler.workers["w"].leases, load=Load(gpu_busy_pct=ended_at))
    assert bench.scheduler.counters["done"] == 40


def test_memory_and_cards_are_told_apart_in_buckets() -> None:
    a, b = (offer(name, gpus=[Gpu("vega", 8 * GIB)]) for name in "ab")
    a.load = Load(memory_free_bytes=64 * GIB, vram_free_bytes=GIB)
    b.load = Load(memory_free_bytes=GIB, vram_free_bytes=4 * GIB)
    policy = staffed(POLICIES[MemoryAware.name](), a, b)
    assert chosen(policy) == "a"
    assert chosen(policy, CARD) == "b"
    tall = offer("tall", gpus=[Gpu("vega", 16 * GIB)])
    assert chosen(staffed(POLICIES[GpuMatch.name](), tall, a), CARD) == "a"
    buckets = [optimised._by_card(100.0 * spare) for spare in range(4)]
    assert all(low < high for low, high in pairwise(buckets))
