"""The optimised policies choose as the plain ones would, up to a bucket's width, after any history;
their memory is bounded and forgotten in time.
"""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.policy import POLICIES as PLAIN
from cluster.core.policy import (
    AssignmentPolicy,
    GpuMatch,
    LatencyAware,
    LeastLoaded,
)
from cluster.core.run import Needs
from cluster.core.worker import WorkerState
from cluster.vocabulary import events as on
from cluster.vocabulary.task import NO_REQUIREMENTS, Gpu, GpuLoad, Load, Requirements
from perfkit.optimized import policy as optimised
from perfkit.optimized.index import MAX_INDEXES, MAX_NEEDS
from perfkit.optimized.policy import (
    CACHED,
    INDEXED,
    POLICIES,
    SIZED,
    IndexedAdaptive,
)
from perfkit.optimized.sizer import LEASE_S
from tests.cluster.core.scheduling import ECHO, PARTS, Bench, chosen, give, offer, staffed

GIB = 1 << 30
CARD: Needs = ("echo", Requirements(min_vram_bytes=4 * GIB))
#: every optimised policy, by the id of its tests
MAKERS = {name: make for name, make in PARTS.items() if "-" in name and name not in PLAIN}
each_policy = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
Maker = Callable[[], AssignmentPolicy]


# The same choice as the plain policy's


@pytest.mark.parametrize("make", [*CACHED.values(), *INDEXED.values()])
@given(held=st.lists(st.integers(0, 4), min_size=1, max_size=8), busy=st.lists(st.integers(0, 100)))
def test_without_a_sizer_the_choice_is_as_good_as_the_plain_one(
    make: Maker, held: list[int], busy: list[int]
) -> None:
    crew = [offer(f"w{number}", 2, 5, gpus=[Gpu("vega", 8)]) for number in range(len(held))]
    policy, plain = staffed(make(), *crew), LeastLoaded()
    staffed(plain, *crew)
    policy.choose(ECHO, False)
    for worker, count in zip(crew, held, strict=True):
        give(policy, worker, ECHO, count)
    for worker, pct in zip(crew, busy, strict=False):
        worker.load = Load(gpus=(GpuLoad(busy_pct=float(pct)),))
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
    assert optimised._by_card(2.0) < optimised._by_card(100.0) < optimised._by_card(200.0)


@pytest.mark.parametrize(
    "bucket",
    [optimised._by_load, optimised._by_card, optimised._by_time, optimised._by_memory],
)
@given(st.floats())
def test_any_score_has_a_bucket_and_nan_the_last(
    bucket: Callable[[float], int], anything: float
) -> None:
    assert 0 <= bucket(anything) <= bucket(math.nan) < 256


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
    for number in range(MAX_NEEDS):
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


def test_needs_of_different_cards_are_scored_apart() -> None:
    a, b = (offer(name, gpus=[Gpu("vega", 8), Gpu("polaris", 8)]) for name in "ab")
    policy = staffed(POLICIES["least-loaded"](), a, b)
    a.load, b.load = (
        Load(gpus=(GpuLoad(8, 100.0 * hot), GpuLoad(8, 100.0 - 100.0 * hot))) for hot in (0, 1)
    )
    for _ in range(3):
        assert chosen(policy, ("echo", Requirements(gpu_family="vega"))) == "a"
        assert chosen(policy, ("echo", Requirements(gpu_family="polaris"))) == "b"


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


def test_adaptive_computes_each_kinds_spread_again_when_kinds_alternate() -> None:
    a, b = offer("a"), offer("b")
    policy = staffed(IndexedAdaptive(), a, b)
    assert isinstance(policy, IndexedAdaptive)
    kinds: list[Needs] = [(f"k{number}", NO_REQUIREMENTS) for number in range(3)]
    for service_s in (0.01, 0.09):
        for _ in range(30):
            for needs in kinds:
                policy.part(needs)
                policy.observe(a, needs, 1, 0.01)
                policy.observe(b, needs, 1, service_s)
    assert all(isinstance(policy.part(needs), LatencyAware) for needs in kinds)


# In the scheduler


@pytest.mark.parametrize("first", [PLAIN["least-loaded"], POLICIES["least-loaded"]])
@pytest.mark.parametrize("then", POLICIES)
def test_a_policy_is_switched_while_work_is_held(first: Maker, then: str) -> None:
    bench = Bench(first, policies=POLICIES)
    bench.join("a", credit=50)
    bench.join("b", credit=50)
    bench.submit(*[b"%d" % number for number in range(40)])
    bench.tell(on.PolicyChanged("op", 0, then))
    assert bench.scheduler.policy.name == then
    sizer = bench.scheduler.policy.sizer  # type: ignore[attr-defined]
    assert any(worker.held for worker in bench.scheduler.workers.values())
    for worker in bench.scheduler.workers.values():
        assert sizer.ahead_s(worker) == pytest.approx(worker.held * LEASE_S)
    while leases := list(bench.scheduler.ledger.leases.values()):
        for lease in leases:
            results = [b"r"] * (lease.stop - lease.next)
            bench.finish(lease.worker.id, lease.id, lease.next, *results, ended_at=1e-4)
    assert bench.scheduler.counters["done"] == 40
    for worker in bench.scheduler.workers.values():
        assert sizer.ahead_s(worker) == 0.0
