"""Small worlds full of faults, in which every broken scheduler must be caught; hundreds if slow.

A seed that fails prints how to replay it. Each broken scheduler lacks one guarantee, and must also
be caught when it checks none of its invariants.
"""

import sys
from collections import Counter
from dataclasses import asdict
from functools import cache

import pytest
from _pytest.mark import ParameterSet

from cluster.core.policy import POLICIES
from cluster.core.scheduler import Scheduler
from cluster.simulation import simulator
from cluster.simulation.peers import Faults
from cluster.simulation.simulator import LIMITS, Outcome, Simulation
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import State
from perfkit.optimized import policy as optimised
from perfkit.optimized.sizer import FIRST_LEASE, GROWTH
from tests.cluster.simulation.broken import BROKEN
from tests.tracing import untraced

SEEDS_PER_TEST = 10
QUICK_TENS = 3
SEEDS = range(200)
OPTIMISED_SEEDS = range(1_000, 1_100)
#: Where a broken scheduler is caught, if it takes more than a few worlds. Tried first; if it is no
#: longer so, all worlds are.
CAUGHT_IN = {
    "takes_older_offers_for_newer": 56,
    "takes_silence_for_death": 30,
    "redelivers_without_a_bound": 19,
    "lets_suspects_block": 10,
    "leaves_the_unserved_waiting": 9,
    "lets_overrun_tasks_run": 8,
    "takes_busy_workers_for_absent": 8,
    "last_come_first_served": 6,
    "forgets_to_close_leases": 5,
    "forgives_no_pause": 5,
    "ignores_gaps_in_results": 5,
    "ignores_operators_who_cancel": 5,
    "lets_one_client_take_all": 5,
    "never_resumes": 5,
    "gives_up_workers_that_cannot_be_reached": 4,
    "ignores_new_offers": 4,
    "drops_the_epoch_check": 3,
    "forgets_patience": 3,
    "offers_finished_results": 3,
    "ignores_duplicate_submissions": 3,
    "restarts_finished_submissions": 3,
    "hears_no_supervisor": 2,
    "never_buries": 2,
    "never_redelivers": 2,
    "trusts_that_nothing_is_mislaid": 2,
    "forgets_retries": 1,
    "retries_for_ever": 1,
}
#: a healthy world needs about half of this at most
STEPS = 8_000

NO_FAULTS = Faults(**dict.fromkeys(asdict(Faults()), 0.0) | {"delay_s": 0.001, "large": 0.2})


@cache
def outcome(seed: int) -> Outcome:
    with untraced():  # the worlds that the command replays cover the same lines
        return Simulation(seed).run(STEPS)


def tens(seeds: range, quick: int) -> list[ParameterSet]:
    """The first seed of each ten; those after the first ``quick`` tens are slow."""
    firsts = enumerate(seeds[::SEEDS_PER_TEST])
    return [pytest.param(it, marks=[pytest.mark.slow] * (at >= quick)) for at, it in firsts]


class Silent(Scheduler):
    """A scheduler that checks no invariants."""

    def validate(self) -> None:
        pass


def complaint(seed: int, broken: str, scheduler: type[Scheduler] = Scheduler) -> str:
    """What the simulator says of a broken scheduler in one world; empty if it finds nothing."""
    try:
        with BROKEN[broken]():
            Simulation(seed, scheduler=scheduler).run(STEPS)
    except AssertionError as error:
        return str(error)
    return ""


def worlds(broken: str, seeds: range = SEEDS) -> list[int]:
    """The seeds in which to look for a complaint about a broken scheduler, in order."""
    return [CAUGHT_IN.get(broken, seeds[0]), *seeds]


@pytest.mark.parametrize("first", tens(SEEDS, QUICK_TENS))
def test_every_accepted_task_comes_to_one_end_in_every_world(first: int) -> None:
    for seed in SEEDS[first : first + SEEDS_PER_TEST]:
        seen = outcome(seed)
        assert seen.seed == seed
        assert 0 < seen.tasks == sum(seen.ends.values()) == seen.counters["accepted"]


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leases hold many tasks: simulated tasks take milliseconds, longer than real ones."""
    monkeypatch.setattr("perfkit.optimized.sizer.LEASE_S", 0.05)
    monkeypatch.setattr("perfkit.optimized.policy.LEASE_S", 0.05)
    monkeypatch.setattr("cluster.simulation.peers.CREDIT", 40)


class Leases(Scheduler):
    """Notes the size of its largest lease."""

    largest = 0

    def handle(self, event: on.Event, now: float) -> list[do.Action]:
        actions = super().handle(event, now)
        granted = [len(action.payloads) for action in actions if isinstance(action, do.Assign)]
        Leases.largest = max(Leases.largest, *granted, 0)
        return actions


@pytest.mark.usefixtures("sized")
@pytest.mark.parametrize("first", tens(OPTIMISED_SEEDS, 2))
def test_every_accepted_task_comes_to_one_end_under_the_optimised_policies(first: int) -> None:
    Leases.largest = 0
    for seed in range(first, first + SEEDS_PER_TEST):
        policies = [*optimised.POLICIES.values()]
        seen = Simulation(seed, scheduler=Leases, policies=policies).run(STEPS)
        assert 0 < seen.tasks == sum(seen.ends.values()) == seen.counters["accepted"]
    assert Leases.largest > GROWTH * FIRST_LEASE


def test_the_worlds_contain_every_fault() -> None:
    counters, ends = Counter[str](), Counter[str]()
    for seed in SEEDS[:30]:
        counters += outcome(seed).counters
        ends += outcome(seed).ends
    assert ends.keys() == {State.DONE, State.FAILED, State.CANCELLED, State.DEAD_LETTERED}
    happened = set(
        "duplicate_submissions early_reports late_cancels late_results lost mislaid_leases recalls "
        "redelivered retried returned stale_messages streams late_chunks late_requests "
        "workers_left workers_lost worker_deaths kills pauses stale_joins".split()
    )
    assert happened <= counters.keys()


def test_tasks_and_results_of_clients_that_vanish_are_dropped_by_all_peers() -> None:
    left_behind = lost = 0
    for seed in range(2_002, 2_006):
        world = Simulation(seed, Faults(large=0.5, vanish=0.03))
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


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_world_without_faults_loses_nothing_under_any_policy(
    policy: str, plain: bool, request: pytest.FixtureRequest
) -> None:
    bad = {"lost", "stale_messages", "duplicate_submissions", "redelivered"}
    if plain:
        bad |= {"mislaid_leases"}
    else:  # a first lease of many tasks may overtake the welcome, and is granted once more
        request.getfixturevalue("sized")
    policies = [(POLICIES if plain else optimised.POLICIES)[policy]]
    seen = Simulation(4, NO_FAULTS, policies=policies).run()
    assert bad.isdisjoint(seen.counters)
    assert seen.ends.keys() <= {State.DONE, State.FAILED}
    assert seen.ends[State.DONE] == seen.counters["done"] > 0


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_scheduler_is_caught(broken: str) -> None:
    seed, found = next((s, c) for s in worlds(broken) if (c := complaint(s, broken)))
    assert f"seed {seed} at " in found
    assert found.endswith(f"(python -m cluster.simulation.simulator --seed {seed})")
    assert outcome(seed).seed == seed, "a healthy scheduler passes there"


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_scheduler_that_checks_no_invariant_is_caught_from_outside(broken: str) -> None:
    assert any(complaint(seed, broken, Silent) for seed in worlds(broken, SEEDS[:60]))


def test_a_complaint_names_the_error_or_the_waiting_clients() -> None:
    assert "was delivered twice" in (first := complaint(0, "delivers_twice"))
    assert complaint(0, "delivers_twice") == first, "a failing seed fails the same way again"
    stuck = next(c for s in SEEDS if "not over" in (c := complaint(s, "never_redelivers")))
    assert "not over after 8000 steps: {'c" in stuck


def test_the_command_replays_seeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulator", "--seed", "4", "--count", "2"])
    simulator.main()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"seed 4: {outcome(4).tasks} tasks, {outcome(4).steps} steps")
    assert second.startswith("seed 5: ")
