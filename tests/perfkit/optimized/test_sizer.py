"""How large leases grow, which worker has room, and that no report spoils either for long."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.run import Needs
from cluster.core.worker import Lease, WorkerState
from cluster.vocabulary.task import NO_REQUIREMENTS
from perfkit.optimized.sizer import (
    FIRST_LEASE,
    GROWTH,
    LEASE_S,
    MAX_KINDS,
    MAX_LEASE,
    MAX_SERVICE_S,
    SHORT_S,
    Sizer,
)
from tests.cluster.core.scheduling import offer, run

ECHO: Needs = ("echo", NO_REQUIREMENTS)
SPIN: Needs = ("spin", NO_REQUIREMENTS)
PLENTY = 1_000_000
ONE = offer()


def measured(service_s: float, reports: int = 200, tasks: int = MAX_LEASE) -> Sizer:
    """A sizer that was told often how long a task of ECHO takes."""
    sizer = Sizer()
    for _ in range(reports):
        sizer.observe(ECHO, tasks, service_s * tasks)
    return sizer


def holding(sizer: Sizer, worker: WorkerState, needs: Needs, count: int) -> WorkerState:
    """The worker with ``count`` more tasks in hand, as one lease."""
    if count:
        id = len(worker.leases) + 1
        leased = run(id, count, kind=needs[0])
        worker.leases[id] = Lease(id, leased, worker, 0.0, 0, count)
    worker.held += count
    sizer.join(worker)
    return worker


# How large a lease is


def test_leases_of_a_quick_kind_grow_step_by_step_up_to_the_bound() -> None:
    sizer, sizes = Sizer(), [FIRST_LEASE]
    assert sizer.lease_tasks(ONE, ECHO, PLENTY) == FIRST_LEASE == 1
    while sizes[-1] < MAX_LEASE:
        sizer.observe(ECHO, sizes[-1], sizes[-1] * 1e-9)
        sizes.append(sizer.lease_tasks(ONE, ECHO, PLENTY))
        assert sizes[-1] == min(MAX_LEASE, GROWTH * sizes[-2])
    for tasks in (MAX_LEASE, 1):
        sizer.observe(ECHO, tasks, tasks * 1e-9)
        assert sizer.lease_tasks(ONE, ECHO, PLENTY) == MAX_LEASE, "a small lease undoes no growth"
    assert sizer.lease_tasks(ONE, SPIN, PLENTY) == FIRST_LEASE, "kinds are measured apart"


@pytest.mark.parametrize("service_s", [1e-5, 1e-4, 3e-4, LEASE_S, 0.1, 10.0])
def test_a_lease_holds_lease_s_of_work_and_at_least_one_task(service_s: float) -> None:
    size = measured(service_s).lease_tasks(ONE, ECHO, PLENTY)
    assert size == max(1, int(LEASE_S / min(service_s, MAX_SERVICE_S) * (1 + 1e-9)))


def test_queued_tasks_are_shared_among_the_slots_of_a_worker() -> None:
    assert [measured(1e-9).lease_tasks(ONE, ECHO, queued) for queued in (1, 7)] == [1, 7]
    sizer, four = measured(1e-9), offer(capacity=4)
    sizes = [sizer.lease_tasks(four, ECHO, queued) for queued in (1, 4, 5, 4_000, PLENTY)]
    assert sizes == [1, 1, 2, 1_000, MAX_LEASE]


# Odd reports


@pytest.mark.parametrize(
    ("tasks", "busy_s"),
    [(0, 1.0), (4, 0.0), (4, -1.0), (4, math.nan), (4, math.inf), (4, -math.inf)],
)
def test_an_impossible_time_is_ignored(tasks: int, busy_s: float) -> None:
    sizer = Sizer()
    sizer.observe(ECHO, tasks, busy_s)
    assert sizer.service_s == {}
    sizer.observe(ECHO, 1, 1e-4)
    sizer.observe(ECHO, tasks, busy_s)
    assert sizer.service_s == {"echo": 1e-4}


def test_one_report_of_years_is_outweighed_by_some_dozens() -> None:
    sizer = measured(1e-6)
    sizer.observe(ECHO, 1, 9e8)
    assert sizer.lease_tasks(ONE, ECHO, PLENTY) == 1
    for _ in range(60):
        sizer.observe(ECHO, 100, 1e-4)
    assert sizer.lease_tasks(ONE, ECHO, PLENTY) > 500


def test_kinds_are_bounded_and_the_oldest_is_dropped() -> None:
    sizer = measured(0.1)
    for number in range(MAX_KINDS):
        sizer.observe((f"k{number}", NO_REQUIREMENTS), 64, 1e-3)
    assert len(sizer.service_s) == MAX_KINDS
    assert sizer.lease_tasks(ONE, ECHO, PLENTY) == FIRST_LEASE


@given(
    st.lists(st.tuples(st.integers(0, MAX_LEASE), st.floats())),
    st.integers(1, 2 * MAX_LEASE),
)
def test_after_any_report_a_lease_has_a_size(reports: list[tuple[int, float]], queued: int) -> None:
    sizer, worker = Sizer(), offer(credit=100)
    holding(sizer, worker, ECHO, 3)
    for tasks, busy_s in reports:
        sizer.observe(ECHO, tasks, busy_s)
        assert 1 <= sizer.lease_tasks(ONE, ECHO, queued) <= min(queued, MAX_LEASE)
        assert 0.0 <= sizer.ahead_s(worker) <= 3 * MAX_SERVICE_S


# Room


def test_an_idle_slot_always_has_room() -> None:
    for sizer in (measured(10.0), Sizer()):  # an unmeasured kind counts as slow
        worker = holding(sizer, offer(capacity=2, credit=4), ECHO, 1)
        assert sizer.has_room(worker)
        holding(sizer, worker, ECHO, 1)
        assert not sizer.has_room(worker)


def test_a_busy_worker_has_room_only_with_less_than_lease_s_in_hand() -> None:
    sizer = measured(LEASE_S / 10)
    worker = holding(sizer, offer(credit=100), ECHO, 9)
    assert sizer.ahead_s(worker) == pytest.approx(0.9 * LEASE_S)
    assert sizer.has_room(worker)
    sizer.hold(worker, ECHO, 2)
    assert not sizer.has_room(worker)
    sizer.hold(worker, ECHO, -4)
    assert sizer.has_room(worker)


@pytest.mark.parametrize(("service_s", "is_worth_it"), [(0.005, True), (SHORT_S, False)])
def test_a_worker_gets_one_short_task_ahead(service_s: float, is_worth_it: bool) -> None:
    sizer = measured(service_s)
    worker = holding(sizer, offer(credit=100), ECHO, 1)
    assert sizer.has_room(worker) == is_worth_it
    holding(sizer, worker, ECHO, 1)
    assert not sizer.has_room(worker)


def test_several_slots_work_through_it_faster() -> None:
    sizer = measured(LEASE_S / 10)
    assert not sizer.has_room(holding(sizer, offer("one", 1, 100), ECHO, 12))
    four = offer("four", 4, 100)
    for _ in range(4):
        holding(sizer, four, ECHO, 3)
    assert sizer.has_room(four)


def test_a_worker_without_credit_or_draining_has_no_room() -> None:
    sizer = measured(1e-9)
    full = holding(sizer, offer(credit=4), ECHO, 4)
    assert sizer.ahead_s(full) < LEASE_S
    assert not sizer.has_room(full)
    draining = holding(sizer, offer(credit=4), ECHO, 0)
    draining.draining = True
    assert not sizer.has_room(draining)


# Counts


def test_tasks_a_worker_already_holds_count_from_the_start() -> None:
    sizer, worker = measured(LEASE_S), offer(credit=100)
    for id, needs in enumerate((ECHO, SPIN)):
        lease = Lease(id, run(id, 9, kind=needs[0]), worker, 0.0, 2, 9)
        lease.next = 4
        worker.leases[id] = lease
    worker.held = 10
    sizer.join(worker)
    assert sizer.ahead_s(worker) == pytest.approx(10 * LEASE_S)
    sizer.hold(worker, ECHO, -5)
    sizer.hold(worker, SPIN, -5)
    assert sizer.ahead_s(worker) == 0.0


def test_an_unknown_worker_and_one_that_left_hold_nothing() -> None:
    sizer, worker = Sizer(), offer()
    sizer.hold(worker, ECHO, 3)
    assert sizer.ahead_s(worker) == 0.0
    holding(sizer, worker, ECHO, 3)
    sizer.leave(worker)
    sizer.leave(worker)
    sizer.hold(worker, ECHO, -3)
    assert sizer.ahead_s(worker) == 0.0
    worker.leases.clear()
    sizer.join(worker)
    assert sizer.ahead_s(worker) == 0.0


# Models, which run tasks together


@pytest.mark.parametrize(("capacity", "batch"), [(1, 2), (1, 8), (3, 8)])
def test_a_model_has_two_batches_a_slot_in_hand_and_not_more(capacity: int, batch: int) -> None:
    sizer, worker = measured(1.0), offer(capacity=capacity, credit=1_000, batches={"echo": batch})
    for _ in range(2 * capacity * batch):
        assert sizer.has_room(worker)
        holding(sizer, worker, ECHO, 1)
    assert not sizer.has_room(worker)


def test_what_does_not_run_together_takes_the_room_of_no_batch() -> None:
    sizer, worker = measured(1.0), offer(credit=1_000, batches={"echo": 8})
    sizer.observe(SPIN, 1, 1.0)
    holding(sizer, worker, SPIN, 2)
    assert not sizer.has_room(worker)


def test_a_model_has_fewer_tasks_in_hand_if_fewer_make_a_batch() -> None:
    sizer, worker = measured(1.0), offer(credit=1_000, batches={"echo": 64})
    holding(sizer, worker, ECHO, 8)
    assert sizer.has_room(worker)
    worker.wants = {"echo": 4}
    assert not sizer.has_room(worker)
