"""Each policy's choice by its own measure."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cluster.core.policy import (
    POLICIES,
    Adaptive,
    AssignmentPolicy,
    GpuMatch,
    LatencyAware,
    LeastLoaded,
    MemoryAware,
    RoundRobin,
)
from cluster.core.run import Needs
from cluster.vocabulary.task import NO_REQUIREMENTS, Gpu, GpuLoad, Load, Requirements
from perfkit.optimized import policy as optimised
from tests.cluster.core.scheduling import ECHO, chosen, offer, staffed

GIB = 1 << 30
Table = Mapping[str, Callable[[], AssignmentPolicy]]
each_table = pytest.mark.parametrize(
    "policies", [POLICIES, optimised.POLICIES], ids=["plain", "optimised"]
)


def card(min_vram_gib: int = 0, family: str | None = None) -> Needs:
    return ("echo", Requirements(min_vram_bytes=min_vram_gib * GIB, gpu_family=family))


def test_the_registry_names_every_policy_by_its_own_name() -> None:
    names = "round-robin least-loaded gpu-match latency-aware memory-aware adaptive"
    assert {*POLICIES} == {*names.split()}
    assert all(make().name == name for name, make in POLICIES.items())
    assert {make().lease_tasks(offer(), ECHO, 9) for make in POLICIES.values()} == {1}


# Round-robin


def test_round_robin_takes_turns_regardless_of_load() -> None:
    a, b, c = offer("a"), offer("b"), offer("c")
    policy = staffed(RoundRobin(), a, b, c)
    b.held = 3
    assert [chosen(policy) for _ in range(5)] == ["a", "b", "c", "a", "b"]
    c.held = c.credit
    assert [chosen(policy) for _ in range(3)] == ["a", "b", "a"]


def test_round_robin_lets_a_newcomer_go_first_and_forgets_workers_that_left() -> None:
    a, b = offer("a"), offer("b")
    policy = staffed(RoundRobin(), a, b)
    assert [chosen(policy) for _ in range(2)] == ["a", "b"]
    policy.join(offer("c"))
    assert chosen(policy) == "c"
    policy.leave(b)
    policy.join(b)
    assert chosen(policy) == "b"


# Least-loaded


@pytest.mark.parametrize(
    ("held", "busy_pct", "vram_free_gib", "score"),
    [
        (0, 0.0, 8, 0.0),
        (2, 0.0, 8, 0.7),
        (0, 100.0, 8, 0.2),
        (0, 0.0, 0, 0.1),
        (1, 50.0, 4, 0.35 + 0.1 + 0.05),
        (0, None, 8, 0.1),
        (0, 0.0, None, 0.05),
    ],
)
def test_the_load_is_weighted_as_documented(
    held: int, busy_pct: float | None, vram_free_gib: int | None, score: float
) -> None:
    worker = offer(capacity=2, gpus=[Gpu("vega", 8 * GIB)])
    worker.held = held
    free = None if vram_free_gib is None else vram_free_gib * GIB
    worker.load = Load(gpus=(GpuLoad(free, busy_pct),))
    assert LeastLoaded().score(worker, ECHO) == pytest.approx(score)


def busy(free_gib: float, busy_pct: float, **more: Any) -> GpuLoad:
    return GpuLoad(int(free_gib * GIB), busy_pct, **more)


def test_two_idle_cards_are_empty_and_a_sleeping_one_is_idle() -> None:
    two = offer(gpus=[Gpu("polaris", 8 * GIB)] * 2)
    two.load = Load(gpus=(busy(8, 0), busy(8, 0)))
    assert LeastLoaded().score(two, ECHO) == 0.0
    two.load = Load(gpus=(GpuLoad(8 * GIB, asleep=True), busy(0, 100)))
    assert LeastLoaded().score(two, ECHO) == 0.0


#: a card of 24 GiB that is full and busy, beside the idle graphics of the processor
BESIDE = {"gpus": [Gpu("navi3", 24 * GIB), Gpu("navi2", 10 * GIB, is_apu=True)]}
FULL = Load(gpus=(busy(1, 100), busy(10, 0)))


@each_table
def test_the_graphics_of_a_processor_do_not_stand_for_the_card_beside_them(policies: Table) -> None:
    beside, idle = offer("beside", **BESIDE), offer("idle", gpus=[Gpu("navi3", 24 * GIB)])
    beside.load, idle.load = FULL, Load(gpus=(busy(20, 30),))
    for name in ("least-loaded", "memory-aware", "gpu-match"):
        policy = staffed(policies[name](), beside, idle)
        assert chosen(policy, card(16)) == chosen(policy, card(0, "navi3")) == "idle"
        assert chosen(policy, card(0, "navi2")) == "beside"
    assert chosen(staffed(policies["least-loaded"](), beside, idle)) == "idle"


@each_table
@pytest.mark.parametrize("name", ["least-loaded", "memory-aware", "gpu-match", "round-robin"])
def test_a_card_in_trouble_is_not_offered_and_does_not_keep_the_other_one_back(
    policies: Table, name: str
) -> None:
    worker = offer(gpus=[Gpu("polaris", 8 * GIB), Gpu("vega", 16 * GIB)])
    policy = staffed(policies[name](), worker)
    assert chosen(policy, card(9)) == "w"
    for trouble, told in (("it is too hot", None), (None, "w")):
        worker.load = Load(gpus=(busy(8, 0), busy(16, 0, trouble=trouble)))
        policy.offers_changed(worker)
        policy.touch(worker)
        assert chosen(policy, card(8)) == chosen(policy) == "w"
        assert chosen(policy, card(9)) == chosen(policy, card(0, "vega")) == told


def test_equals_are_taken_in_the_order_in_which_they_joined() -> None:
    assert chosen(staffed(LeastLoaded(), offer("b"), offer("a"))) == "b"


# Gpu-match


@each_table
def test_the_smallest_card_that_fits_is_taken(policies: Table) -> None:
    large = offer("large", gpus=[Gpu("polaris", 16 * GIB)])
    both = offer("both", gpus=[Gpu("polaris", 2 * GIB), Gpu("polaris", 8 * GIB)])
    policy = staffed(policies["gpu-match"](), large, both)
    assert chosen(policy, card(4)) == "both"
    assert chosen(policy, card(9)) == "large"
    assert chosen(policy, card(2)) == "both"


def test_the_family_decides_which_card_counts() -> None:
    mixed = offer("mixed", gpus=[Gpu("vega", 16 * GIB), Gpu("polaris", 4 * GIB)])
    vega = offer("vega", gpus=[Gpu("vega", 8 * GIB)])
    policy = staffed(GpuMatch(), mixed, vega)
    assert chosen(policy, card(4, "vega")) == "vega"
    assert chosen(policy, card(4, "polaris")) == "mixed"


def test_a_task_without_need_of_a_card_prefers_a_worker_without_one() -> None:
    gpu, plain = offer("gpu", gpus=[Gpu("vega", 8 * GIB)]), offer("plain")
    policy = staffed(GpuMatch(), gpu, plain)
    plain.held = 3
    assert chosen(policy) == "plain"
    plain.held = plain.credit
    assert chosen(policy) == "gpu"


def test_among_cards_of_one_size_the_load_decides() -> None:
    a, b = (offer(name, gpus=[Gpu("vega", 8 * GIB)]) for name in "ab")
    a.held = 1
    assert chosen(staffed(GpuMatch(), a, b), card(8)) == "b"


# Latency-aware


def test_the_worker_that_will_be_through_first_is_taken() -> None:
    fast, slow = offer("fast"), offer("slow")
    policy = staffed(LatencyAware(), slow, fast)
    policy.observe(fast, ECHO, 10, 0.1)
    policy.observe(slow, ECHO, 1, 0.025)
    assert chosen(policy) == "fast"
    fast.held = 2
    assert chosen(policy) == "slow", "the third in a row would be later"


def test_unmeasured_workers_are_tried_first_and_the_idlest_of_them() -> None:
    known, one, two = offer("known"), offer("one"), offer("two")
    policy = staffed(LatencyAware(), known, one, two)
    policy.observe(known, ECHO, 1, 1e-9)
    one.held = 1
    assert chosen(policy) == "two"


def test_a_measured_time_moves_the_mean_by_a_fifth() -> None:
    policy, worker = LatencyAware(), offer()
    policy.join(worker)
    policy.observe(worker, ECHO, 1, 1.0)
    policy.observe(worker, ECHO, 2, 4.0)
    assert policy.score(worker, ECHO) == pytest.approx(1.2)
    policy.observe(worker, ECHO, 0, 1.2)
    assert policy.score(worker, ECHO) == pytest.approx(1.2), "an empty message divides by nothing"


def test_kinds_are_measured_apart_and_forgotten_with_their_worker() -> None:
    policy, a, b = LatencyAware(), offer("a"), offer("b")
    staffed(policy, a, b)
    policy.observe(a, ECHO, 1, 1.0)
    policy.observe(b, ECHO, 1, 3.0)
    policy.observe(b, ("spin", NO_REQUIREMENTS), 1, 9.0)
    assert policy.spread_s("echo") == (1.0, 3.0)
    assert policy.spread_s("none") == (0.0, 0.0)
    policy.leave(b)
    assert policy.spread_s("echo") == (1.0, 1.0)
    assert policy.spread_s("spin") == (0.0, 0.0)


# Memory-aware


def test_the_most_free_memory_per_task_in_hand_wins() -> None:
    a, b = offer("a"), offer("b")
    a.load, b.load = Load(memory_free_bytes=8 * GIB), Load(memory_free_bytes=6 * GIB)
    policy = staffed(MemoryAware(), b, a)
    assert chosen(policy) == "a"
    a.held = 1
    assert chosen(policy) == "b"


@each_table
def test_a_task_for_a_card_looks_at_the_memory_of_the_card(policies: Table) -> None:
    a, b = (offer(name, gpus=[Gpu("vega", 8 * GIB)]) for name in "ab")
    a.load = Load(memory_free_bytes=64 * GIB, gpus=(busy(1, 0),))
    b.load = Load(memory_free_bytes=GIB, gpus=(busy(4, 0),))
    policy = staffed(policies["memory-aware"](), a, b)
    assert chosen(policy) == "a"
    assert chosen(policy, card(1)) == chosen(policy, card(0, "vega")) == "b"


def test_a_task_for_a_card_looks_at_one_card_and_not_at_their_sum() -> None:
    vega = Gpu("vega", 8 * GIB)
    one, many = offer("one", gpus=[vega]), offer("many", gpus=[vega] * 3)
    one.load, many.load = Load(gpus=(busy(5, 0),)), Load(gpus=(busy(4, 0),) * 3)
    assert chosen(staffed(MemoryAware(), many, one), card(4)) == "one"


def test_a_worker_with_unknown_memory_comes_last() -> None:
    silent, small = offer("silent"), offer("small")
    small.held, small.load = 3, Load(memory_free_bytes=1)
    assert chosen(staffed(MemoryAware(), silent, small)) == "small"


# Adaptive


def test_adaptive_matches_cards_follows_speed_where_it_differs_and_load_where_not() -> None:
    card_, fast, slow = offer("card", gpus=[Gpu("vega", 8 * GIB)]), offer("fast"), offer("slow")
    policy = staffed(Adaptive(), card_, slow, fast)
    assert chosen(policy, card(4)) == chosen(policy, card(0, "vega")) == "card"
    for worker, service_s in ((card_, 1.2), (slow, 1.4), (fast, 1.0)):
        policy.observe(worker, ECHO, 1, service_s)
        worker.held = 0 if worker is slow else 1
    assert chosen(policy) == "slow", "alike in speed, so the idle one"
    for _ in range(20):
        policy.observe(slow, ECHO, 1, 9.0)
    assert chosen(policy) == "fast"
    policy.leave(slow)
    assert chosen(policy) == "card", "without it the others are alike again"
