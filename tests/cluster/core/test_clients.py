"""How long submissions and results are retained for a client, and what it can request again."""

from cluster.core.clients import LOST, NEWER, STOPPED, STOPPING
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import Failure, Retry, State, TaskId
from tests.cluster.core.scheduling import Bench, T, delivered, ended, holding


def test_a_reminder_brings_back_the_acceptance_and_every_outcome_there_is() -> None:
    bench = holding(*T[:5])
    bench.finish("w", 1, 0, b"a", b"", failures=[Failure(1, "E", "m")])
    bench.finish("w", 1, 2, b"c")
    bench.cancel(4)
    assert bench.heard(0, waiting=[(0, 2)]) == [
        do.Accept("c", 0, 1),
        do.Deliver("c", 0, 0, [b"a", b"", b"c"], [Failure(1, "E", "m")]),
        ended(Failure(4, "Cancelled", "cancelled", State.CANCELLED)),
    ]
    assert bench.scheduler.counters["redelivered"] == 1


def test_a_reminder_of_a_slow_run_brings_the_acceptance_alone() -> None:
    bench = holding(*T[:2])
    assert bench.heard(0, waiting=[(0, 0)]) == [do.Accept("c", 0, 1)]
    bench.finish("w", 1, 0, b"a")
    assert bench.heard(0, waiting=[(0, 1)]) == [do.Accept("c", 0, 1)]
    assert bench.scheduler.counters["redelivered"] == 0


def test_a_reminder_of_an_unknown_submission_is_answered_with_a_refusal() -> None:
    bench = Bench()
    assert bench.heard(0, waiting=[(3, 0)]) == [do.Refuse("c", 3, LOST, "CoordinatorLost")]
    over = do.Refuse("c", 3, "it was refused, or is over")
    assert bench.heard(0, waiting=[(3, 0)]) == [over], "the refusal may have got lost"
    assert bench.offer(b"x", submission=3) == [over], "it was still on its way"


def test_a_reminder_of_a_finished_submission_is_refused_and_below_the_floor_ignored() -> None:
    bench = Bench()
    bench.join()
    for submission in range(2):
        bench.submit(b"x", submission=submission)
        bench.finish("w", submission + 1, 0, b"y")
    bench.heard(1, 1)
    over = do.Refuse("c", 1, "it was refused, or is over")
    assert bench.heard(1, waiting=[(0, 0), (1, 0)]) == [over]


def test_results_are_kept_until_the_client_says_it_has_them() -> None:
    bench = Bench()
    bench.join()
    for submission in range(3):
        bench.submit(b"x", submission=submission)
        bench.finish("w", submission + 1, 0, b"four")
    kept = [bench.scheduler.status(0.0).retained_bytes]
    for floor, received in ((0, [1]), (0, [1]), (1, []), (0, []), (3, [])):
        bench.heard(floor, *received)
        kept.append(bench.scheduler.status(0.0).retained_bytes)
    assert kept == [12, 8, 8, 4, 4, 0]
    assert bench.scheduler.status(0.0).runs == 0


def test_a_run_acknowledged_before_its_end_ends_silently() -> None:
    bench = Bench()
    bench.join("w", credit=2)
    bench.submit(*T[:4], retry=Retry(3, base_s=60.0))
    bench.fail("w", 1, 0)
    assert bench.heard(1) == [do.Cancel("w", 1, 1, [1]), do.Cancel("w", 1, 2, [2])]
    assert bench.finish("w", 1, 1, b"b") == []
    assert [e.cause for e in bench.scheduler.story(TaskId(1, 3))] == ["accepted", "cancelled"]


def test_a_client_that_leaves_takes_its_work_with_it() -> None:
    bench = Bench()
    bench.join()
    bench.submit(b"x", b"y")
    assert bench.tell(on.ClientLeft("c")) == [do.Cancel("w", 1, 1, [0])]
    assert bench.tell(on.ClientLeft("c")) == [], "it is gone already"
    status = bench.scheduler.status(0.0)
    assert (status.clients, status.runs, status.payload_bytes) == (0, 0, 0)
    assert bench.finish("w", 1, 0, b"late") == []


def test_a_silent_client_is_lost_with_its_submissions() -> None:
    bench = Bench(client_liveness_s=1.0)
    bench.submit(b"x")
    bench.wait(0.9)
    assert bench.heard() == []
    assert bench.wait(0.9) == [], "it was heard meanwhile"
    bench.wait(0.2)
    status = bench.scheduler.status(bench.now)
    assert (status.clients, status.runs) == (0, 0)
    bench.counted(clients_lost=1, cancelled=1)


def test_while_draining_only_what_workers_hold_ends_and_each_client_hears_of_the_rest() -> None:
    bench = holding(b"a", b"b")
    bench.submit(b"c", submission=1)
    bench.scheduler.drain()
    assert bench.offer(b"d", submission=2) == [do.Refuse("c", 2, STOPPING, "Busy")]
    assert bench.finish("w", 1, 0, b"A", b"B") == [do.Deliver("c", 0, 0, [b"A", b"B"])]
    assert bench.scheduler.dismiss() == [do.Refuse("c", 1, STOPPED, "CoordinatorLost")]


def test_a_late_repeat_of_a_refused_submission_is_refused_although_there_is_room() -> None:
    bench = Bench(submissions_per_client=1)
    bench.submit(b"x")
    reason = "this client has 1 open submission, as many as it may"
    assert bench.offer(b"x", submission=1) == [do.Refuse("c", 1, reason)]
    bench.cancel()
    bench.heard(0, 0)
    again = do.Refuse("c", 1, "it was refused, or is over")
    assert bench.offer(b"x", submission=1) == [again], "its first refusal may have got lost"
    assert bench.submit(b"x", submission=2) == []
    bench.counted(refused=1, duplicate_submissions=1, cancelled=1)


def test_refused_submissions_leave_no_gap_among_the_finished() -> None:
    bench = Bench(submissions_per_client=2, tasks=2)
    bench.submit(b"slow")
    for submission in range(1, 90, 3):
        bench.submit(b"x", submission=submission)
        for refused in (submission + 1, submission + 2):
            (refusal,) = bench.offer(b"x", submission=refused)
            assert isinstance(refusal, do.Refuse)
        bench.cancel(submission=submission)
        bench.heard(0, submission)
    assert [*bench.scheduler.clients.by_name["c"].over] == [(1, 91)]


def test_numbers_that_a_client_left_out_are_over_once_there_are_too_many() -> None:
    bench = Bench(submissions_per_client=3)
    bench.join()
    for submission in range(0, 100, 2):
        (lease,) = bench.submit(b"x", submission=submission)
        assert isinstance(lease, do.Assign)
        bench.finish("w", lease.lease, 0, b"y")
        bench.heard(0, submission)
    over = [(0, 93), (94, 95), (96, 97), (98, 99)]
    assert [*bench.scheduler.clients.by_name["c"].over] == over
    refusal = do.Refuse("c", 1, "it was refused, or is over")
    assert bench.offer(b"x", submission=1) == [refusal]
    assert bench.submit(b"x", submission=95) == [bench.assign("w", 51, 0, b"x")]


def test_a_client_reaches_only_its_own_submissions() -> None:
    bench = holding(b"x")
    bench.offer(b"x", client="d")
    assert bench.tell(on.TasksCancelled("d", 0)) == [
        do.Deliver("d", 0, 0, [b""], [Failure(0, "Cancelled", "cancelled", State.CANCELLED)])
    ]
    assert bench.finish("w", 1, 0, b"y") == [delivered(b"y")]


def test_acknowledging_unknown_submissions_takes_no_room() -> None:
    bench = Bench()
    bench.submit(b"x")
    for first in range(1, 1_000, 10):
        bench.heard(0, *range(first, first + 10))
    assert not bench.scheduler.clients.by_name["c"].over


def test_a_client_that_was_not_known_is_told_so_unless_it_is_new() -> None:
    bench = Bench()
    assert bench.offer(b"x", client="new") == [do.Accept("new", 0, 1)]
    assert bench.offer(b"x", client="old", submission=7)[0] == do.Meet("old")
    greeting = do.Greet("back", 0.2, [])
    assert bench.tell(on.ClientHeartbeat("back", 3)) == [do.Meet("back"), greeting]
    assert bench.tell(on.ClientHeartbeat("back", 3)) == [greeting]


def test_a_newer_incarnation_of_a_name_takes_the_place_of_the_older_which_is_told() -> None:
    bench = Bench()
    assert bench.offer(b"x", client="c#1")[0] == do.Accept("c#1", 0, 1)
    told = do.Refuse("c#1", 0, NEWER, "Superseded")
    assert bench.offer(b"y", client="c#2") == [told, do.Accept("c#2", 0, 2)]
    assert bench.tell(on.ClientHeartbeat("c#1", 0, waiting=[(0, 0)])) == [told]
    again = do.Refuse("c#1", 1, NEWER, "Superseded")
    assert bench.offer(b"z", client="c#1", submission=1) == [again]
    assert [*bench.scheduler.clients.by_name] == ["c#2"]
    bench.tell(on.ClientLeft("c#2"))
    assert bench.offer(b"z", client="c#1", submission=2)[-1] == do.Accept("c#1", 2, 3)


# Reminders


def test_a_reminder_is_answered_once_and_within_a_bound() -> None:
    bench = Bench(resent_bytes=400, message_bytes=400)
    bench.join(credit=8)
    bench.submit(*T[:8])
    bench.finish("w", 1, 0, *[b"r" * 36] * 8)
    first = bench.heard(0, waiting=[(0, 0)] * 1_000)
    accept, *pieces = first
    assert accept == do.Accept("c", 0, 1)
    sent = [len(piece.outcomes) for piece in pieces if isinstance(piece, do.Deliver)]
    assert sent == [1, 1, 1, 1], "400 bytes, at 64 around each"
    assert bench.heard(0, waiting=[(0, 0)]) == []
    bench.now = 0.25
    assert len(bench.heard(0, waiting=[(0, 0)])) == 5
    bench.now = 0.5
    assert bench.heard(0, waiting=[(0, 0)]) == [], "the wait doubles"
    bench.counted(redelivered=2, reminders_put_off=2)


def test_a_client_that_acknowledges_gets_the_rest_at_once() -> None:
    bench = Bench(resent_bytes=400, message_bytes=400)
    bench.join(credit=8)
    bench.submit(*T[:8])
    bench.finish("w", 1, 0, *[b"r" * 36] * 8)
    bench.heard(0, waiting=[(0, 0)])
    _, *pieces = bench.heard(0, waiting=[(0, 4)], partly=[(0, 0, 4)])
    assert [p.start for p in pieces if isinstance(p, do.Deliver)] == [4, 5, 6, 7]
    bench.counted(redelivered=2)
