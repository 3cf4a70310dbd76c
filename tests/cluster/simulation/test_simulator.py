"""Hundreds of small worlds in which everything goes wrong; no broken scheduler may survive them.

A seed that fails prints how to replay it. The broken schedulers say what the simulator is worth:
each has one guarantee less, and each must be caught, also where it lies about itself to validate.
"""

import sys
from collections import Counter
from collections.abc import Callable
from functools import cache

import pytest

from cluster.core.policy import POLICIES, AssignmentPolicy, LeastLoaded
from cluster.core.scheduler import Scheduler
from cluster.simulation import simulator
from cluster.simulation.simulator import LIMITS, Faults, Outcome, Simulation
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import State
from perfkit.optimized import policy as optimised
from perfkit.optimized.sizer import FIRST_LEASE, GROWTH
from tests.cluster.core.scheduling import untraced
from tests.cluster.simulation.broken import BROKEN, Broken, DeliversTwice, NeverRedelivers

SEEDS_PER_TEST = 10
SEEDS = range(200)
OPTIMISED_SEEDS = range(1_000, 1_100)
#: a healthy world needs about half of this at most
STEPS = 8_000

NO_FAULTS = Faults(0.001, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.0, 0.0)


@cache
def outcome(seed: int) -> Outcome:
    if seed < SEEDS_PER_TEST:
        return Simulation(seed).run(STEPS)
    with untraced():
        return Simulation(seed).run(STEPS)


def complaint(seed: int, scheduler: type[Scheduler]) -> str:
    """What the simulator says of a scheduler in one world; empty when it finds nothing."""
    try:
        with untraced():
            Simulation(seed, scheduler=scheduler).run(STEPS)
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("first", SEEDS[::SEEDS_PER_TEST])
def test_every_accepted_task_comes_to_one_end_in_every_world(first: int) -> None:
    for seed in SEEDS[first : first + SEEDS_PER_TEST]:
        seen = outcome(seed)
        assert seen.seed == seed
        assert 0 < seen.tasks == sum(seen.ends.values()) == seen.counters["accepted"]


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated tasks take milliseconds, so here a lease of many tasks holds more work than in
    life, and a worker may have that many in hand.
    """
    monkeypatch.setattr("perfkit.optimized.sizer.LEASE_S", 0.05)
    monkeypatch.setattr("perfkit.optimized.policy.LEASE_S", 0.05)
    monkeypatch.setattr("cluster.simulation.peers.CREDIT", 40)


class Leases(Scheduler):
    """Notes how large the leases are that it grants."""

    largest = 0

    def handle(self, event: on.Event, now: float) -> list[do.Action]:
        actions = super().handle(event, now)
        granted = [len(action.payloads) for action in actions if isinstance(action, do.Assign)]
        Leases.largest = max(Leases.largest, *granted, 0)
        return actions


@pytest.mark.usefixtures("sized")
@pytest.mark.parametrize("first", OPTIMISED_SEEDS[::SEEDS_PER_TEST])
def test_every_accepted_task_comes_to_one_end_under_the_optimised_policies(first: int) -> None:
    Leases.largest = 0
    for seed in range(first, first + SEEDS_PER_TEST):
        policies = [*optimised.POLICIES.values()]
        with untraced():
            seen = Simulation(seed, scheduler=Leases, policies=policies).run(STEPS)
        assert 0 < seen.tasks == sum(seen.ends.values()) == seen.counters["accepted"]
    assert Leases.largest > GROWTH * FIRST_LEASE


@pytest.mark.usefixtures("sized")
@pytest.mark.parametrize("policy", optimised.POLICIES.values(), ids=optimised.POLICIES)
def test_a_kind_world_loses_nothing_under_any_optimised_policy(
    policy: Callable[[], AssignmentPolicy],
) -> None:
    # The first lease may overtake the welcome that its worker waits for: it is given once more.
    loses_nothing(policy, {"mislaid_leases"})


def test_the_worlds_are_as_bad_as_they_are_meant_to_be() -> None:
    counters, ends = Counter[str](), Counter[str]()
    for seed in SEEDS[:30]:
        counters += outcome(seed).counters
        ends += outcome(seed).ends
    assert ends.keys() == {State.DONE, State.FAILED, State.CANCELLED, State.DEAD_LETTERED}
    happened = set(
        "duplicate_submissions late_cancels late_results lost mislaid_leases recalls redelivered "
        "retried returned stale_messages streams late_chunks late_requests workers_left "
        "workers_lost".split()
    )
    assert happened <= counters.keys()


def test_whatever_clients_leave_behind_is_dropped_by_everybody_who_has_it() -> None:
    left_behind = lost = 0
    for seed in range(2_000, 2_000 + SEEDS_PER_TEST):
        world = Simulation(seed, Faults(large=0.5, vanish=0.03))
        with untraced():
            world.run(STEPS)
            left_behind += len(world.witness.open)
            while world.now < 3.0 + LIMITS.client_liveness_s + 2.0:
                world.step()
        lost += world.scheduler.counters["clients_lost"]
        assert not world.witness.open
        assert not any(world.scheduler.ledger.runs.values())
        assert not any(w.session.leases or w.session.storing for w in world.workers.values())
    assert left_behind
    assert lost


def test_a_seed_gives_the_same_world_twice() -> None:
    assert Simulation(7).run() == Simulation(7).run()
    assert Simulation(7).run() != Simulation(8).run()


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_kind_world_loses_nothing_under_any_policy(policy: type[LeastLoaded]) -> None:
    loses_nothing(policy)


def loses_nothing(
    policy: Callable[[], AssignmentPolicy], harmless: frozenset[str] | set[str] = frozenset()
) -> None:
    seen = Simulation(3, NO_FAULTS, policies=[policy]).run()
    bad = {"lost", "mislaid_leases", "stale_messages", "duplicate_submissions", "redelivered"}
    assert bad.isdisjoint(seen.counters.keys() - harmless)
    assert seen.ends.keys() <= {State.DONE, State.FAILED}
    assert seen.ends[State.DONE] == seen.counters["done"] > 0


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_scheduler_is_caught(broken: type[Broken]) -> None:
    seed, found = next((s, c) for s in SEEDS if (c := complaint(s, broken)))
    assert f"seed {seed} at " in found
    assert found.endswith(f"(python -m cluster.simulation.simulator --seed {seed})")
    assert complaint(seed, broken) == found, "a failing seed fails the same way again"
    assert outcome(seed).seed == seed, "a healthy scheduler passes there"


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_scheduler_that_knows_of_no_invariant_is_caught_from_outside(
    broken: type[Broken],
) -> None:
    liar = type(f"Silent{broken.__name__}", (broken,), {"validate": lambda _: None})
    assert any(complaint(seed, liar) for seed in SEEDS[:60])


def test_at_least_eight_guarantees_are_taken_out() -> None:
    assert len(BROKEN) >= 8
    assert all(broken.__doc__ for broken in BROKEN)


def test_a_complaint_says_what_happened_or_who_waits_for_what() -> None:
    assert "was delivered twice" in complaint(0, DeliversTwice)
    assert "not over after 8000 steps: {'c0':" in complaint(0, NeverRedelivers)


def test_the_command_replays_seeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulator", "--seed", "4", "--count", "2"])
    simulator.main()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"seed 4: {outcome(4).tasks} tasks, {outcome(4).steps} steps")
    assert second.startswith("seed 5: ")
