"""The scheduler step by step: each test ends knowing that nothing else was sent.

Events go in one at a time and the answer is compared whole. What happens on a bad network in the
long run is the simulator's business, not this file's.
"""

from collections.abc import Callable
from typing import Any

import pytest

from cluster.core.policy import POLICIES, AssignmentPolicy
from cluster.core.worker import Lease
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.status import KindStatus, Status, WorkerStatus
from cluster.vocabulary.task import (
    Backoff,
    Failure,
    Gpu,
    GpuLoad,
    Load,
    Priority,
    Requirements,
    Retry,
    State,
    TaskId,
)
from tests.cluster.core.scheduling import PARTS, Bench, T, delivered, ended, holding


def late(position: int, waited: str) -> Failure:
    return Failure(position, "TimedOut", f"no result within {waited} s", State.FAILED)


def cancelled(position: int) -> Failure:
    return Failure(position, "Cancelled", "cancelled", State.CANCELLED)


# The straight way


def test_a_task_is_accepted_leased_and_delivered() -> None:
    bench = Bench()
    assert bench.join() == []
    assert bench.offer(b"x") == [do.Accept("c", 0, 1), bench.assign("w", 1, 0, b"x")]
    assert bench.finish("w", 1, 0, b"y") == [delivered(b"y")]
    assert bench.heard(1) == []
    bench.counted()


# Repeats and refusals


def test_a_late_repeat_of_a_finished_submission_starts_nothing() -> None:
    bench = Bench()
    bench.join()
    for submission in (0, 1):
        bench.submit(b"x", submission=submission)
        bench.finish("w", submission + 1, 0, b"y")
    bench.heard(1)
    assert bench.offer(b"x", submission=0) == [], "it is below the floor"
    bench.heard(1, 1)
    over = do.Refuse("c", 1, "it was refused, or is over")
    assert bench.offer(b"x", submission=1) == [over], "it was received"
    bench.counted(duplicate_submissions=2)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"tasks": 3}, "open: 2 tasks, of at most 3"),
        ({"payload_bytes": 5}, "payloads hold 4 bytes, of at most 5"),
        ({"submissions_per_client": 1}, "this client has 1 open submission, as many as it may"),
    ],
)
def test_a_submission_over_a_bound_is_refused_with_the_bound(
    limits: dict[str, Any], reason: str
) -> None:
    bench = Bench(**limits)
    bench.submit(b"xx", b"xx")
    assert bench.offer(b"xx", b"xx", submission=1) == [do.Refuse("c", 1, reason)]
    bench.counted(refused=2)
    bench.cancel()
    bench.heard(1)
    assert bench.submit(b"xx", b"xx", submission=2) == [], "there is room again"


def test_unacknowledged_results_stop_further_submissions() -> None:
    bench = holding(b"x", retained_bytes=3)
    bench.finish("w", 1, 0, b"four")
    reason = "4 bytes of results wait to be received, of at most 3"
    assert bench.offer(b"x", submission=1) == [do.Refuse("c", 1, reason)]
    bench.heard(1)
    assert bench.submit(b"x", submission=2) == [bench.assign("w", 2, 0, b"x")]


def test_one_client_too_many_is_refused_and_its_heartbeat_not_answered() -> None:
    bench = Bench(clients=1)
    bench.submit(b"x")
    reason = "there is room for 1 client only"
    assert bench.offer(b"x", client="d") == [do.Refuse("d", 0, reason)]
    assert bench.tell(on.ClientHeartbeat("d", 0)) == []
    bench.tell(on.ClientLeft("c"))
    assert bench.submit(b"x", client="d") == []


def test_an_empty_submission_is_refused() -> None:
    assert Bench().offer() == [do.Refuse("c", 0, "it holds no task")]


def test_one_worker_too_many_is_sent_away() -> None:
    bench = Bench(workers=1)
    bench.join("a")
    actions = bench.tell(on.WorkerJoined("b", 1, 1, 1, ["echo"]))
    assert actions == [do.Disconnect("b", 0, "there is room for 1 worker only")]
    assert bench.join("a", incarnation=2) == [], "one that restarts is not one more"


# Failures and retries


def test_a_task_fails_for_good_at_its_last_attempt() -> None:
    bench = Bench()
    bench.join()
    bench.submit(b"x", retry=Retry(2, Backoff.FIXED, base_s=0.1, jitter=0.0))
    assert bench.fail("w", 1, 0) == []
    assert bench.wait(0.0999) == []
    assert bench.wait(0.0002) == [bench.assign("w", 2, 0, b"x")]
    assert bench.fail("w", 2, 0) == [ended(Failure(0, "ValueError", "no"))]
    bench.counted(retried=1, failed=1)


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (Backoff.FIXED, [0.1, 0.1, 0.1, 0.1, 0.1]),
        (Backoff.LINEAR, [0.1, 0.2, 0.3, 0.4, 0.5]),
        (Backoff.EXPONENTIAL, [0.1, 0.2, 0.4, 0.8, 1.0]),
    ],
)
@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_the_wait_before_a_retry_grows_as_asked(
    backoff: Backoff, waits: list[float], chance: float
) -> None:
    bench = Bench(chance=lambda: chance, liveness_s=100.0, client_liveness_s=100.0)
    bench.join()
    bench.submit(b"x", retry=Retry(6, backoff, base_s=0.1, max_s=1.0, jitter=0.4))
    for lease, wait in enumerate(waits, 1):
        assert bench.fail("w", lease, 0) == []
        due = bench.scheduler.deadline()
        assert due is not None
        assert due - bench.now == pytest.approx(wait * (1 - 0.4 * chance))
        assert bench.wait(wait) == [bench.assign("w", lease + 1, 0, b"x")]


def test_failures_among_results_split_the_run() -> None:
    bench = Bench()
    bench.join("w", credit=5)
    bench.submit(*T[:5], retry=Retry(2, base_s=0.1))
    failures = [Failure(1, "E", "m"), Failure(3, "E", "m")]
    actions = bench.finish("w", 1, 0, b"a", b"", b"c", b"", b"e", failures=failures)
    assert actions == [
        delivered(b"a"),
        delivered(b"c", start=2),
        delivered(b"e", start=4),
    ]
    bench.beat("w")
    assert bench.wait(0.2) == [bench.assign("w", 2, 1, T[1]), bench.assign("w", 3, 3, T[3])]


def test_a_failure_of_a_place_outside_the_message_is_ignored() -> None:
    bench = holding(*T[:2])
    failures = [Failure(1, "E", "not yet"), Failure(7, "E", "nowhere")]
    assert bench.finish("w", 1, 0, b"a", failures=failures) == [delivered(b"a")]


# Time-outs


def test_queued_and_leased_tasks_time_out_together() -> None:
    bench = Bench()
    bench.join("w", credit=2)
    bench.submit(*T[:3], timeout_s=0.4)
    assert bench.wait(0.4) == [
        ended(late(2, "0.400")),
        do.Cancel("w", 1, 1, [0, 1]),
        ended(late(0, "0.400"), count=2),
    ]
    assert bench.finish("w", 1, 0, b"a", b"b") == []
    bench.counted(failed=3, late_results=2)


# Cancels


def test_a_whole_run_is_cancelled_wherever_its_tasks_are() -> None:
    bench = Bench()
    bench.join("w", credit=3)
    bench.submit(*T[:5], retry=Retry(3, base_s=60.0))
    bench.fail("w", 1, 0)
    # 0 is delayed; 1, 2 and, on the credit it left, 3 are leased; 4 is queued.
    assert bench.cancel() == [
        ended(cancelled(4)),
        ended(cancelled(0)),
        do.Cancel("w", 1, 1, [1, 2]),
        ended(cancelled(1), count=2),
        do.Cancel("w", 1, 2, [3]),
        ended(cancelled(3)),
    ]
    bench.counted(cancelled=5, retried=1)
    assert bench.wait(0.1) == []


def test_single_positions_are_cancelled_out_of_ranges() -> None:
    bench = Bench()
    bench.submit(*T[:6])
    assert bench.cancel(4, 1, 1, 99) == [ended(cancelled(1)), ended(cancelled(4))]
    assert bench.join("w", credit=9) == [
        bench.assign("w", 1, 0, T[0]),
        bench.assign("w", 2, 2, *T[2:4]),
        bench.assign("w", 3, 5, T[5]),
    ]


def test_revoked_tasks_fill_the_credit_until_the_worker_is_through_with_them() -> None:
    bench = Bench()
    bench.join("w", credit=3)
    bench.submit(*T[:4])
    assert bench.cancel(1) == [do.Cancel("w", 1, 1, [1]), ended(cancelled(1))]
    assert bench.finish("w", 1, 0, b"a", b"late", b"c") == [
        delivered(b"a"),
        delivered(b"c", start=2),
        bench.assign("w", 2, 3, T[3]),
    ]
    bench.counted(cancelled=1, late_results=1)


def test_a_cancel_looks_at_the_leases_of_its_own_run_only() -> None:
    bench = Bench()
    bench.join("w", credit=50)
    for submission in range(50):
        bench.submit(b"x", submission=submission)

    class Leases(dict[int, Lease]):
        def values(self) -> Any:
            raise AssertionError("the leases of all runs were looked through")

    ledger = bench.scheduler.ledger
    leases, ledger.leases = ledger.leases, Leases(ledger.leases)
    actions = bench.scheduler.handle(on.TasksCancelled("c", 7), 0.0)
    ledger.leases = leases
    assert actions == [do.Cancel("w", 1, 8, [0]), ended(cancelled(0), submission=7)]
    bench.scheduler.validate()


def test_a_cancel_that_comes_too_late_changes_nothing() -> None:
    bench = Bench()
    bench.join()
    assert bench.cancel() == []
    bench.submit(b"x")
    assert bench.cancel(submission=1) == []
    bench.finish("w", 1, 0, b"y")
    assert bench.cancel() == []
    bench.counted(late_cancels=2)


# Requirements, priorities, turns


def test_a_run_that_no_worker_can_serve_blocks_no_other() -> None:
    bench = Bench()
    bench.submit(b"x", priority=Priority.URGENT, requirements=Requirements(model="m"))
    bench.submit(b"x", priority=Priority.URGENT, submission=1, kind="other")
    assert bench.join() == []
    assert bench.submit(b"y", submission=2, priority=Priority.LOW) == [
        bench.assign("w", 1, 0, b"y")
    ]
    assert bench.join("m", models=["m"]) == [bench.assign("m", 2, 0, b"x")]


# Workers come and go


def test_a_worker_that_says_hello_again_keeps_its_epoch() -> None:
    bench = holding(b"x")
    assert bench.join() == []
    assert bench.epochs == {"w": 1}
    assert bench.finish("w", 1, 0, b"y") == [delivered(b"y")]


def test_a_restarted_worker_has_lost_its_tasks() -> None:
    bench = holding(b"x")
    actions = bench.tell(on.WorkerJoined("w", 2, 1, 1, ["echo"]))
    assert actions == [do.Welcome("w", 2, 2, 0.2), bench.assign("w", 2, 0, b"x")]
    bench.counted(workers_lost=1, worker_deaths=1, lost=1)


def test_an_older_process_of_the_same_name_is_sent_away() -> None:
    bench = Bench()
    bench.join(incarnation=5)
    actions = bench.tell(on.WorkerJoined("w", 4, 1, 1, ["echo"]))
    assert actions == [do.Disconnect("w", 0, "a newer worker has this name")]
    bench.counted(stale_joins=1)


def test_a_silent_worker_is_lost_after_its_liveness() -> None:
    bench = Bench()
    bench.join("a")
    bench.submit(b"x")
    bench.wait(0.4)
    bench.join("b")
    assert bench.wait(0.1999) == []
    assert bench.wait(0.001) == [bench.assign("b", 2, 0, b"x")]
    assert [w.worker for w in bench.scheduler.status(bench.now).workers] == ["b"]
    bench.counted(workers_lost=1, lost=1)


def test_a_draining_worker_gets_no_more_and_finishes_its_tasks() -> None:
    bench = Bench()
    bench.join("w", credit=2)
    bench.submit(*T[:3])
    assert bench.tell(on.WorkerDraining("w", 1)) == []
    assert bench.tell(on.WorkerDraining("w", 1)) == [], "saying it twice is once"
    assert bench.finish("w", 1, 0, b"a", b"b") == [delivered(b"a", b"b")]
    assert bench.scheduler.status(bench.now).workers[0].draining
    assert bench.tell(on.WorkerLeft("w", 1)) == []
    bench.counted(workers_left=1)


@pytest.mark.parametrize(
    "event",
    [
        on.WorkerHeartbeat("w", 1, []),
        on.TasksFinished("w", 1, 1, 0, [b"y"]),
        on.TasksReleased("w", 1, 1, 0),
        on.WorkerDraining("w", 1),
        on.WorkerLeft("w", 1),
    ],
    ids=lambda event: type(event).__name__,
)
@pytest.mark.parametrize("rejoined", [False, True])
def test_a_worker_under_a_past_epoch_is_told_to_join_again(event: on.Event, rejoined: bool) -> None:
    bench = holding(b"x")
    bench.die("w")
    if rejoined:
        assert bench.join() == [bench.assign("w", 2, 0, b"x")]
    assert bench.tell(event) == [do.Disconnect("w", 1, "epoch 1 is over; join again")]
    results = {"late_results": 1} if isinstance(event, on.TasksFinished) else {}
    bench.counted(stale_messages=1, workers_lost=1, worker_deaths=1, lost=1, **results)


# Leases


def test_late_results_are_dropped_and_counted() -> None:
    bench = holding(*T[:3])
    bench.finish("w", 1, 0, b"a", b"b")
    assert bench.finish("w", 1, 0, b"z", b"z") == [], "settled already"
    assert bench.finish("w", 1, 2, b"z", b"z") == [], "more than was leased"
    assert bench.finish("w", 9, 0, b"z") == [], "never leased"
    assert bench.finish("w", 1, 2) == [], "no results"
    bench.counted(late_results=5)
    assert bench.finish("w", 1, 2, b"c") == [delivered(b"c", start=2)]


def test_a_lease_that_stays_missing_is_requeued_after_liveness_and_not_before() -> None:
    bench = holding(b"x")
    assert bench.beat() == []
    for _ in range(3):
        bench.wait(0.199)
        assert bench.beat() == []
    bench.wait(0.01)
    assert bench.beat() == [bench.assign("w", 2, 0, b"x")]
    bench.counted(mislaid_leases=1, returned=1)


def test_a_lease_that_was_only_on_its_way_is_not_missing() -> None:
    bench = holding(b"x")
    for held in ([], [1], [], [1], []):
        bench.wait(0.5)
        assert bench.beat("w", *held) == []
    bench.counted()


def test_a_lease_the_scheduler_does_not_know_is_cancelled() -> None:
    bench = holding(b"x")
    assert bench.beat("w", 1, 7) == [do.Cancel("w", 1, 7)]


def test_the_unstarted_tail_of_a_lease_is_recalled_for_an_idle_worker() -> None:
    bench = Bench()
    bench.join("a", credit=4)
    bench.submit(*T[:4])
    assert bench.join("b", credit=4) == []
    assert bench.wait(0.005) == [do.Recall("a", 1, 1)]
    assert bench.release("a", 1, 1) == [bench.assign("b", 2, 1, *T[1:4])]
    assert bench.finish("a", 1, 0, b"a") == [delivered(b"a")]
    assert bench.wait(0.005) == [do.Recall("b", 2, 2)], "now the other one is idle"
    assert bench.release("b", 2, 2) == [bench.assign("a", 3, 2, *T[2:4])]
    bench.counted(recalls=2, returned=5)


def test_nothing_is_recalled_for_a_worker_that_could_not_do_it() -> None:
    bench = Bench()
    bench.join("a", credit=4)
    bench.submit(*T[:4])
    bench.join("b", credit=4, kinds=["other"])
    assert bench.wait(0.5) == []


def recalled(**limits: float) -> Bench:
    """Two workers; the first one's lease was just recalled for the second."""
    bench = Bench(**limits)
    bench.join("a", credit=4)
    bench.submit(*T[:4])
    bench.join("b", credit=4)
    assert bench.wait(0.005) == [do.Recall("a", 1, 1)]
    return bench


def wait_and_beat(bench: Bench, seconds: float) -> list[do.Action]:
    actions = bench.wait(seconds)
    for worker, held in (("a", [1]), ("b", [])):
        actions += bench.beat(worker, *held)
    return actions + bench.wait(0.005)


def test_a_recall_without_an_answer_is_repeated_after_liveness_and_not_before() -> None:
    bench = recalled()
    for wait_s in (0.2, 0.2, 0.15):
        assert wait_and_beat(bench, wait_s) == []
    assert wait_and_beat(bench, 0.05) == [do.Recall("a", 1, 1)]
    assert wait_and_beat(bench, 0.2) == []
    assert bench.release("a", 1, 1) == [bench.assign("b", 2, 1, *T[1:4])]
    bench.counted(recalls=2, returned=3)


def test_a_recall_is_not_repeated_when_no_worker_is_idle() -> None:
    bench = recalled()
    assert bench.submit(b"x", submission=1) == [bench.assign("b", 2, 0, b"x")]
    for _ in range(4):
        bench.wait(0.2)
        assert [*bench.beat("a", 1), *bench.beat("b", 2)] == []
    bench.counted(recalls=1)


def test_a_young_lease_is_not_recalled_yet() -> None:
    bench = Bench()
    bench.join("a", credit=4)
    bench.join("b", credit=4)
    assert bench.submit(*T[:2]) == [bench.assign("a", 1, 0, *T[:2])]
    bench.wait(0.002)
    bench.finish("a", 1, 0, b"a", b"b")
    assert bench.submit(*T[2:4], submission=1) == [bench.assign("a", 2, 0, *T[2:4])]
    assert bench.wait(0.0045) == [], "the look at the first lease finds the second"
    assert bench.wait(0.004) == [do.Recall("a", 1, 2)]


def test_a_release_that_makes_no_sense_is_ignored() -> None:
    bench = holding(*T[:4])
    bench.finish("w", 1, 0, b"a", b"b")
    assert bench.release("w", 1, 1) == [], "that is settled"
    assert bench.release("w", 1, 4) == [], "there is nothing from there on"
    assert bench.release("w", 8, 0) == []
    bench.counted()


# Deaths


def test_a_task_that_saw_three_workers_die_is_buried_with_its_story() -> None:
    bench = Bench()
    bench.submit(b"x")
    answers = []
    for n in range(3):
        assert bench.join(f"w{n}") == [bench.assign(f"w{n}", n + 1, 0, b"x")]
        bench.now += 0.25
        answers.append(bench.die(f"w{n}"))
    first, second, (deliver,) = answers
    assert first == second == []
    assert isinstance(deliver, do.Deliver)
    (failure,) = deliver.failures
    assert (failure.position, failure.error, failure.state) == (
        0,
        "DeadLettered",
        State.DEAD_LETTERED,
    )
    assert failure.message.splitlines() == [
        "0.000 accepted → queued: from c",
        "0.000 assigned → assigned: w0",
        "0.250 lost → queued: w0: its process ended",
        "0.250 assigned → assigned: w1",
        "0.500 lost → queued: w1: its process ended",
        "0.500 assigned → assigned: w2",
        "0.750 lost → queued: w2: its process ended",
        "0.750 death 3, the last: w2: its process ended",
    ]
    assert deliver == do.Deliver("c", 0, 0, [b""], [failure])
    bench.counted(workers_lost=3, worker_deaths=3, lost=3, dead_lettered=1)


def test_suspects_that_must_wait_block_no_healthy_task() -> None:
    bench = Bench()
    bench.join("w", credit=2)
    bench.submit(*T[:3])
    bench.die("w")  # 0 and 1 are suspects now, 2 is healthy
    assert bench.join("a", credit=4) == [
        bench.assign("a", 2, 0, T[0]),
        bench.assign("a", 3, 2, T[2]),
    ]
    assert bench.submit(b"x", submission=1) == [bench.assign("a", 4, 0, b"x")]
    assert bench.finish("a", 4, 0, b"y") == [delivered(b"y", submission=1)]
    assert bench.finish("a", 2, 0, b"a") == [delivered(b"a"), bench.assign("a", 5, 1, T[1])]


def test_a_worker_that_leaves_gives_its_work_back_and_does_not_count_as_dead() -> None:
    bench = Bench()
    bench.submit(*T[:2])
    for n in range(5):
        assert bench.join(f"w{n}", credit=2) == [bench.assign(f"w{n}", n + 1, 0, *T[:2])]
        assert bench.tell(on.WorkerLeft(f"w{n}", bench.epochs[f"w{n}"], "bye")) == []
        assert bench.wait(0.2) == []
    bench.counted(workers_left=5, returned=10)


# A worker's connections are in no order


def test_reports_that_overtake_an_earlier_one_wait_for_it() -> None:
    bench = holding(*T[:5])
    assert bench.finish("w", 1, 3, b"d", b"e") == []
    assert bench.finish("w", 1, 1, b"b") == []
    assert bench.finish("w", 1, 1, b"b") == [], "a repeated one is one"
    deliveries = bench.finish("w", 1, 0, b"a")
    assert deliveries == [delivered(b"a"), delivered(b"b", start=1)]
    bench.wait(0.1)
    deliveries = bench.finish("w", 1, 2, b"c")
    assert deliveries == [delivered(b"c", start=2), delivered(b"d", b"e", start=3)]
    bench.wait(1.0)
    bench.counted(workers_lost=1, early_reports=3)


def test_what_is_missing_before_a_report_is_lost_after_a_heartbeat_unless_messages_wait() -> None:
    bench = holding(*T[:4])
    assert bench.finish("w", 1, 3, b"d") == []
    assert bench.finish("w", 1, 1, b"b") == []
    assert bench.scheduler.handle_timer(bench.now + 0.2, behind=True) == []
    lease = bench.assign("w", 2, 0, T[0])
    assert bench.wait(0.3) == [delivered(b"b", start=1), lease]
    assert bench.wait(0.2) == [delivered(b"d", start=3), bench.assign("w", 3, 2, T[2])]
    assert bench.finish("w", 1, 0, b"a") == [], "it comes too late"
    bench.counted(returned=2, late_results=1, early_reports=2)


def test_an_early_report_of_tasks_that_were_given_back_is_late() -> None:
    bench = holding(*T[:3])
    assert bench.finish("w", 1, 1, b"b", b"c") == []
    assert bench.release("w", 1, 2) == [bench.assign("w", 2, 2, T[2])]
    assert bench.finish("w", 1, 0, b"a") == [delivered(b"a")]
    bench.counted(returned=1, late_results=2, early_reports=1)


def test_a_goodbye_that_overtakes_the_last_reports_waits_for_them() -> None:
    bench = holding(b"x", b"y")
    bench.join("v", credit=2)
    assert bench.tell(on.WorkerLeft("w", 1)) == []
    assert bench.submit(b"z", submission=1) == [bench.assign("v", 2, 0, b"z")]
    assert bench.finish("w", 1, 0, b"X") == [delivered(b"X")]
    assert bench.wait(0.2) == [bench.assign("v", 3, 1, b"y")]
    bench.counted(workers_left=1, returned=1)


def test_a_new_process_may_take_the_name_of_one_that_has_said_goodbye_and_none_has_died() -> None:
    bench = holding(b"x")
    bench.tell(on.WorkerLeft("w", 1))
    assert bench.join("w", incarnation=2, pid=7) == [bench.assign("w", 2, 0, b"x")]
    bench.counted(workers_left=1, returned=1)


# Operators


def test_the_policy_is_switched_while_work_goes_on() -> None:
    bench = Bench()
    bench.join("a")
    bench.join("b")
    bench.tell(on.WorkerDraining("b", 2))
    bench.submit(b"x", b"y")
    (report,) = bench.tell(on.PolicyChanged("op", 7, "round-robin"))
    assert report == do.Report("op", 7, bench.scheduler.status(0.0))
    assert bench.scheduler.policy.name == "round-robin"
    assert bench.finish("a", 1, 0, b"x") == [delivered(b"x"), bench.assign("a", 2, 1, b"y")]


def test_an_unknown_policy_is_answered_with_the_known_ones() -> None:
    bench = Bench()
    (report,) = bench.tell(on.PolicyChanged("op", 7, "fastest"))
    known = ", ".join(sorted(POLICIES))
    assert report == do.Report("op", 7, None, f"no policy 'fastest'; there are {known}")
    assert bench.scheduler.policy.name == "slices"


def test_status_is_the_whole_state_as_plain_data() -> None:
    bench = Bench()
    gpus, load = [Gpu("vega", 8)], Load(rss_bytes=5)
    bench.join("w", credit=2, host="h", pid=3, models=["m"], gpus=gpus, capacity=2)
    bench.submit(*T[:3], priority=Priority.HIGH)
    bench.submit(b"x", submission=1, kind="other")
    bench.beat("w", 1, load=load)
    bench.now = 0.25
    facts = "w", 1, "h", 3, 2, 2, 2, 1, 0, False, 0.25, ["echo"], ["m"], gpus, load
    worker = WorkerStatus(*facts, wanted=["m"])
    queued = {"urgent": 0, "high": 1, "normal": 1, "low": 0}
    counters = {"workers_joined": 1, "accepted": 4}
    kinds = [KindStatus("echo", 1, 2, 1), KindStatus("other", 1, 0, 0)]
    status = Status("slices", 1, 2, queued, 2, 0, 4, 0, counters, [worker], kinds=kinds)
    assert bench.tell(on.StatusRequested("c", 3)) == [do.Report("c", 3, status)]


# Stories and traces


def test_the_story_of_a_task_has_its_moves_in_order() -> None:
    bench = Bench()
    bench.join("w", credit=4)
    bench.submit(*T[:3], retry=Retry(3, base_s=0.1))
    bench.now = 0.1
    bench.finish("w", 1, 0, b"a", b"", failures=[Failure(1, "E", "m")])
    bench.now = 0.2
    bench.cancel()
    told = [
        (e.at_s, e.cause, e.state, e.start, e.stop, e.detail)
        for e in bench.scheduler.story(TaskId(1, 1))
    ]
    assert told == [
        (0.0, "accepted", "queued", 0, 3, "from c"),
        (0.0, "assigned", "assigned", 0, 3, "w"),
        (0.1, "retried", "queued", 1, 2, "E on w"),
        (0.2, "cancelled", "cancelled", 1, 2, "Cancelled"),
    ]
    causes = [e.cause for e in bench.scheduler.story(TaskId(1, 0))]
    assert causes == ["accepted", "assigned", "finished"]


def test_a_story_outlives_its_run_until_newer_ones_take_its_place() -> None:
    bench = Bench(history_runs=2)
    bench.join()
    for submission in range(3):
        bench.submit(b"x", submission=submission)
        bench.finish("w", submission + 1, 0, b"y")
        bench.heard(submission + 1)
    assert bench.scheduler.story(TaskId(1, 0)) == []
    assert [e.cause for e in bench.scheduler.story(TaskId(3, 0))][-1] == "finished"
    assert bench.scheduler.story(TaskId(3, 1)) == []
    assert bench.scheduler.story(TaskId(3, -1)) == []
    assert bench.scheduler.story(TaskId(9, 0)) == []


def test_tables_shrink_only_when_no_task_is_left_and_the_next_one_is_served() -> None:
    bench = holding(b"x")
    assert not bench.scheduler.shrink()
    bench.finish("w", 1, 0, b"y")
    bench.heard(1)
    assert bench.scheduler.shrink()
    bench.submit(b"x", submission=1)
    bench.finish("w", 2, 0, b"y")
    assert [e.cause for e in bench.scheduler.story(TaskId(2, 0))][-1] == "finished"


def test_tables_stay_while_a_worker_holds_a_task_whose_client_has_left() -> None:
    bench = holding(b"x")
    bench.tell(on.ClientLeft("c"))
    assert not bench.scheduler.shrink()
    bench.finish("w", 1, 0, b"y")
    assert bench.scheduler.shrink()
    bench.scheduler.validate()


def test_a_trace_follows_the_first_results_of_a_run() -> None:
    bench = Bench()
    bench.submit(b"x", b"y", b"z", sent_at=99.0)
    assert bench.cancel(2) == [ended(cancelled(2))], "no stamps before any results"
    bench.now = 0.5
    bench.join()
    bench.now = 0.75
    actions = bench.finish("w", 1, 0, b"X", started_at=7.0, ended_at=8.0)
    stamps = [0.0, 0.5, 7.0, 8.0, 0.75]
    assert actions == [delivered(b"X", stamps=stamps), bench.assign("w", 2, 1, b"y")]
    bench.now = 1.0
    actions = bench.finish("w", 2, 1, b"Y", started_at=9.0, ended_at=10.0)
    assert actions == [delivered(b"Y", start=1, stamps=stamps)]


# What a peer may not do


@pytest.mark.parametrize("state", [State.QUEUED, State.DONE, State.DEAD_LETTERED])
def test_the_state_a_failure_ends_in_is_not_the_workers_to_say(state: State) -> None:
    bench = holding(b"x")
    failures = [Failure(0, "E", "m", state)]
    actions = bench.finish("w", 1, 0, b"", failures=failures)
    assert actions == [ended(Failure(0, "E", "m", State.FAILED))]
    bench.counted(failed=1)


def test_a_task_behind_a_slow_one_in_a_lease_is_recalled_for_an_idle_slot_of_the_same_worker() -> (
    None
):
    bench = Bench(recall_after_s=0.005)
    bench.join("w", credit=8, capacity=4)
    bench.submit(b"slow", b"quick")
    recalls = [action for action in bench.wait(0.02) if isinstance(action, do.Recall)]
    assert [recall.worker for recall in recalls] == ["w"]


def test_a_worker_with_a_card_in_trouble_gets_no_more_until_it_recovers() -> None:
    bench = Bench()
    bench.join("w", credit=2)
    assert bench.submit(b"a") == [bench.assign("w", 1, 0, b"a")]
    assert bench.beat("w", 1, load=Load(gpu_trouble="0000:0a:00.0 is gone")) == []
    assert bench.submit(b"b", submission=1) == []
    assert bench.finish("w", 1, 0, b"A") == [delivered(b"A")]
    assert bench.beat("w", load=Load()) == [bench.assign("w", 2, 0, b"b")]


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_a_card_in_trouble_holds_back_only_what_needs_it(
    make: Callable[[], AssignmentPolicy],
) -> None:
    bench = Bench(make)
    bench.join("w", credit=4, gpus=[Gpu("vega", 8), Gpu("polaris", 4)])
    large = Requirements(min_vram_bytes=8)
    assert bench.submit(b"a", requirements=large) == [bench.assign("w", 1, 0, b"a")]
    bench.finish("w", 1, 0, b"A")
    assert bench.beat("w", load=Load(gpus=(GpuLoad(trouble="hot"), GpuLoad()))) == []
    assert bench.submit(b"b", submission=1, requirements=large) == []
    assert bench.submit(b"c", submission=2) == [bench.assign("w", 2, 0, b"c")]
    bench.finish("w", 2, 0, b"C")
    assert bench.beat("w", load=Load(gpus=(GpuLoad(), GpuLoad()))) == [
        bench.assign("w", 3, 0, b"b")
    ]
