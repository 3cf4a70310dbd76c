"""Churn without sockets: each kind of event happens, and nothing remains at rest."""

import pytest

from cluster.spec import BASELINE, ClusterSpec
from perfkit.bench.leaks.churn import KINDS, NOBODYS, Kind, release
from perfkit.bench.leaks.world import ECHO, HOLD, ClockedCoordinator, World
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.optimized.specs import OPTIMIZED

SPECS = (BASELINE, OPTIMIZED)


@pytest.fixture(params=SPECS, ids=lambda spec: spec.name)
def world(request: pytest.FixtureRequest) -> World:
    spec: ClusterSpec = request.param
    opened = World(spec, ClockedCoordinator)
    opened.open()
    return opened


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_happens_and_nothing_is_left(world: World, kind: str) -> None:
    KINDS[kind].run(world, 37)
    world.rest()
    status = world.coordinator.scheduler.status(world.now_s)
    assert (status.clients, status.runs, status.workers) == (0, 0, [])
    assert (status.payload_bytes, status.retained_bytes) == (0, 0)
    assert world.coordinator.scheduler.deadline() is None


def test_the_world_can_be_opened_again_and_again(world: World) -> None:
    for _ in range(3):
        KINDS["task"].run(world, 10)
        world.rest()
        world.open()
    assert world.counters["done"] == 30


def test_workers_are_lost_in_every_way(world: World) -> None:
    KINDS["worker restart"].run(world, 8)
    counts = world.counters
    # Of four ways one is a goodbye; whatever was in their hands was done by the next.
    assert (counts["workers_lost"], counts["workers_left"]) == (6, 2)
    assert counts["undelivered"] == 2
    assert (counts["lost"], counts["returned"]) == (4, 4)
    assert counts["done"] == 8


def test_cancelled_tasks_waited_or_were_in_hand_and_failures_were_retried(world: World) -> None:
    KINDS["cancel"].run(world, 6)
    assert world.counters["cancelled"] == 6
    # A worker reports its three late.
    assert world.counters["late_results"] == 3
    KINDS["failure"].run(world, 5)
    assert (world.counters["retried"], world.counters["failed"]) == (5, 5)


def test_a_newcomer_gets_its_result_while_addresses_are_forgotten(world: World) -> None:
    for _ in range(90):
        KINDS["lost client"].run(world, 1)
        newcomer = world.add_client()
        world.deliver(newcomer.submit(ECHO, [b"x"]))
        assert not newcomer.session.open, "the result went somewhere else"
        world.remove(newcomer, newcomer.leave())


def test_an_event_unseen_by_the_coordinator_is_an_error(world: World) -> None:
    idle = Kind(lambda world, count: None, ("done",))
    with pytest.raises(ExperimentError, match="of 3 events the coordinator counted 0 \\(done\\)"):
        idle.run(world, 3)


def test_a_mixed_up_result_is_an_error(world: World) -> None:
    world.deliver(world.client.submit(HOLD, [b"right"]))
    submission = next(iter(world.client.session.open.values()))
    submission.sink[0] = b"another"
    with pytest.raises(WrongResult, match="came back as another"):
        release(world)


def test_refused_work_is_an_error(world: World) -> None:
    with pytest.raises(ExperimentError, match="refused work: it holds no task"):
        world.deliver(world.client.submit(NOBODYS, []))
