"""The peers' side of the protocol: what clients and workers make of messages and repeats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import actions as do
from cluster import events as on
from cluster import sessions
from cluster.sessions import ClientSession, HeldLease, Options, Refused, Settled, WorkerSession
from cluster.task import Failure, Gpu, Load, Priority, Requirements, Retry, State

PLAIN = Options()


def submitted(session: ClientSession, count: int = 1, now: float = 0.0) -> on.TasksSubmitted:
    return session.submit("echo", [b"x"] * count, PLAIN, None, now)


def beat(session: ClientSession, now: float) -> on.ClientHeartbeat:
    """The heartbeat itself, which must be all there is to say."""
    (event,) = session.heartbeat(now)
    assert isinstance(event, on.ClientHeartbeat)
    return event


# Clients, submitting


def test_a_submission_says_everything_about_its_run() -> None:
    session = ClientSession("c")
    options = Options(Priority.HIGH, Requirements(model="m"), 2.0, Retry(3))
    event = session.submit("echo", [b"x", b"y"], options, "sink", 5.0)
    assert event == on.TasksSubmitted(
        "c", 0, "echo", [b"x", b"y"], Priority.HIGH, Requirements(model="m"), 2.0, Retry(3)
    )
    assert session.open[0].sink == "sink"
    assert (session.open[0].count, session.open[0].missing) == (2, 2)


def test_submissions_are_numbered_and_a_traced_one_carries_its_time() -> None:
    session = ClientSession("c")
    assert [submitted(session).submission for _ in range(3)] == [0, 1, 2]
    traced = session.submit("echo", [b"x"], PLAIN, None, 5.0, traced=True)
    assert (traced.submission, traced.sent_at) == (3, 5.0)
    assert session.open[3].sent_at == 5.0


def test_an_accepted_submission_knows_its_run_and_lets_its_payloads_go() -> None:
    session = ClientSession("c")
    event = submitted(session)
    assert session.open[0].event is event
    assert session.handle(do.Accept("c", 0, 7), 1.0) is None
    assert (session.open[0].run, session.open[0].event) == (7, None)
    assert session.handle(do.Accept("c", 9, 8), 1.0) is None
    assert session.heard_at == 1.0


def test_a_refused_submission_is_over_and_says_why() -> None:
    session = ClientSession("c")
    submitted(session)
    news = session.handle(do.Refuse("c", 0, "full"), 1.0)
    assert isinstance(news, Refused)
    assert (news.submission.id, news.reason) == (0, "full")
    assert session.handle(do.Refuse("c", 0, "full"), 1.0) is None, "once"
    assert session.handle(do.Deliver("c", 0, 0, [b"y"]), 1.0) is None
    assert beat(session, 1.0) == on.ClientHeartbeat("c", 1)


def test_a_cancel_names_the_positions() -> None:
    session = ClientSession("c")
    submitted(session, 3)
    assert session.cancel(session.open[0], (1, 2)) == on.TasksCancelled("c", 0, [1, 2])


# Clients, results


def test_outcomes_settle_their_tasks_and_the_last_one_closes_the_submission() -> None:
    session = ClientSession("c")
    submitted(session, 3)
    submission = session.open[0]
    failure = Failure(2, "E", "m")
    first = session.handle(do.Deliver("c", 0, 1, [b"b", b""], [failure], [1.0]), 1.0)
    assert first == Settled(submission, 1, [b"b", b""], [failure], [1.0])
    assert (submission.missing, submission.event) == (1, None)
    assert session.handle(do.Deliver("c", 0, 0, [b"a"]), 1.0) == Settled(
        submission, 0, [b"a"], [], []
    )
    assert session.open == {}
    assert session.owed == 1


def test_a_repeat_settles_nothing_and_part_of_one_only_what_is_new() -> None:
    session = ClientSession("c")
    submitted(session, 6)
    session.handle(do.Deliver("c", 0, 1, [b"b"]), 1.0)
    failures = [Failure(3, "E", "m"), Failure(5, "E", "m")]
    everything = do.Deliver("c", 0, 0, [b"a", b"b", b"c", b"", b"e", b""], failures)
    submission = session.open[0]
    assert session.handle(everything, 1.0) == Settled(submission, 0, [b"a"], [], [])
    assert session.handle(everything, 1.0) == Settled(
        submission, 2, [b"c", b"", b"e", b""], failures, []
    )
    assert session.handle(everything, 1.0) is None
    assert session.owed == 1


def test_a_repeat_of_what_is_partly_there_is_no_news() -> None:
    session = ClientSession("c")
    submitted(session, 2)
    session.handle(do.Deliver("c", 0, 0, [b"a"]), 1.0)
    assert session.handle(do.Deliver("c", 0, 0, [b"a"]), 1.0) is None


def test_outcomes_of_what_nobody_submitted_are_no_news() -> None:
    session = ClientSession("c")
    submitted(session, 2)
    assert session.handle(do.Deliver("c", 1, 0, [b"a"]), 1.0) is None
    assert session.handle(do.Deliver("c", 0, 1, [b"a", b"b"]), 1.0) is None, "too many"
    assert session.open[0].missing == 2


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 8)), max_size=60))
def test_each_task_is_settled_once_whatever_is_delivered(spans: list[tuple[int, int]]) -> None:
    session, count = ClientSession("c"), 8
    submitted(session, count)
    results = [b"%d" % position for position in range(count)]
    settled: list[int] = []
    everything = [(0, count)] * count
    for start, length in spans + everything:
        outcomes = results[start : start + length]
        news = session.handle(do.Deliver("c", 0, start, outcomes), 1.0)
        if isinstance(news, Settled):
            stop = news.start + len(news.results)
            assert news.results == results[news.start : stop]
            settled += range(news.start, stop)
    assert sorted(settled) == [*range(count)]
    assert session.open == {}


# Clients, heartbeats


def test_what_was_received_is_told_until_it_is_answered() -> None:
    session = ClientSession("c")
    for _ in range(3):
        submitted(session)
    session.handle(do.Deliver("c", 1, 0, [b"y"]), 0.0)
    assert beat(session, 0.1) == on.ClientHeartbeat("c", 0, [1])
    assert beat(session, 0.2) == on.ClientHeartbeat("c", 0, [1])
    assert session.handle(do.Greet("c", 0.2, []), 0.3) is None
    assert beat(session, 0.3) == on.ClientHeartbeat("c", 0, [1]), "that answered an earlier one"
    assert session.handle(do.Greet("c", 0.2, [1]), 0.3) is None
    assert beat(session, 0.4) == on.ClientHeartbeat("c", 0, [])
    session.handle(do.Deliver("c", 0, 0, [b"y"]), 0.5)
    assert beat(session, 0.6) == on.ClientHeartbeat("c", 2, [0]), "the floor is the oldest open"


def test_an_unanswered_submission_is_sent_again_after_a_while() -> None:
    session = ClientSession("c")
    event = submitted(session)
    assert beat(session, 0.9) == on.ClientHeartbeat("c", 0)
    assert session.heartbeat(1.0) == [on.ClientHeartbeat("c", 0), event]
    assert beat(session, 1.9) == on.ClientHeartbeat("c", 0), "the patience starts anew"
    assert session.heartbeat(2.0) == [on.ClientHeartbeat("c", 0), event]


def test_an_accepted_submission_without_news_is_asked_for_after_longer() -> None:
    session = ClientSession("c")
    submitted(session, 3)
    session.handle(do.Accept("c", 0, 1), 1.0)
    session.handle(do.Deliver("c", 0, 0, [b"a"]), 2.0)
    assert beat(session, 6.9) == on.ClientHeartbeat("c", 0)
    assert beat(session, 7.0) == on.ClientHeartbeat("c", 0, [], [(0, 1)])
    assert beat(session, 7.1) == on.ClientHeartbeat("c", 0)


def test_no_more_is_sent_again_at_once_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_RESENT", 2)
    session = ClientSession("c")
    events = [submitted(session) for _ in range(3)]
    assert session.heartbeat(1.0)[1:] == events[:2]
    assert session.heartbeat(1.1)[1:] == events[2:]


def test_a_report_is_no_news_of_tasks() -> None:
    session = ClientSession("c")
    assert session.handle(do.Report("c", 1), 2.0) is None
    assert session.heard_at == 2.0


# Workers, hello and goodbye

GPU = Gpu("vega", 8)


def worker(epoch: int | None = 1) -> WorkerSession:
    session = WorkerSession("w", 5, 2, 6, ["echo"], ["m"], [GPU], "host", 77)
    if epoch is not None:
        assert session.handle(do.Welcome("w", 5, epoch, 0.2)) == []
    return session


def leased(session: WorkerSession, lease: int = 1, count: int = 4, start: int = 0) -> HeldLease:
    payloads = [b"%d" % position for position in range(start, start + count)]
    assert session.epoch is not None
    assert session.handle(do.Assign("w", session.epoch, lease, "echo", start, payloads)) == []
    return session.leases[lease]


def test_a_worker_introduces_itself_until_it_is_welcome() -> None:
    session = worker(None)
    hello = on.WorkerJoined("w", 5, 2, 6, ["echo"], ["m"], [GPU], "host", 77)
    assert session.introduction() == [hello]
    assert session.heartbeat() == []
    session.handle(do.Welcome("w", 4, 1, 0.2))
    assert session.epoch is None, "that was for the process before"
    session.handle(do.Welcome("w", 5, 3, 0.2))
    assert (session.epoch, session.heartbeat_s) == (3, 0.2)
    assert session.introduction() == []


def test_a_heartbeat_names_the_leases_and_the_load() -> None:
    session = worker(3)
    leased(session, 7)
    load = Load(rss_bytes=1)
    assert session.heartbeat(load) == [on.WorkerHeartbeat("w", 3, [7], load)]


def test_a_repeated_welcome_changes_nothing_and_a_new_epoch_drops_everything() -> None:
    session = worker(1)
    lease = leased(session)
    session.handle(do.Welcome("w", 5, 1, 0.2))
    assert session.leases == {1: lease}
    session.handle(do.Welcome("w", 5, 2, 0.2))
    assert (session.epoch, session.leases, session.take()) == (2, {}, None)
    assert session.claim(lease, 9) == [], "nothing more of it is started"


def test_a_disconnected_worker_drops_what_it_holds_and_joins_again() -> None:
    session = worker(2)
    lease = leased(session)
    session.handle(do.Disconnect("w", 1, "old"))
    assert session.leases == {1: lease}, "that was about an epoch before"
    session.handle(do.Disconnect("w", 2, "silent"))
    assert (session.epoch, session.leases) == (None, {})
    assert len(session.introduction()) == 1
    assert session.report(lease, [b"a"], [], 0.0, 1.0) == [], "nobody waits for it"


def test_goodbye_is_said_once_and_only_to_who_said_welcome() -> None:
    session = worker(2)
    leased(session)
    assert session.leave("done") == [on.WorkerLeft("w", 2, "done")]
    assert session.leave("done") == []
    assert (session.leases, session.take()) == ({}, None)
    assert worker(None).leave() == []


# Workers, work


def test_leases_are_taken_in_order_claimed_in_parts_and_reported_as_they_end() -> None:
    session = worker()
    first, second = leased(session, 1, 3), leased(session, 2, 1, start=5)
    assert [session.take(), session.take(), session.take()] == [first, second, None]
    assert session.claim(first, 2) == [b"0", b"1"]
    failure = Failure(1, "E", "m")
    assert session.report(first, [b"a", b""], [failure], 1.0, 2.0) == [
        on.TasksFinished("w", 1, 1, 0, [b"a", b""], [failure], 1.0, 2.0)
    ]
    assert session.claim(first, 2) == [b"2"]
    assert session.claim(first, 2) == []
    assert session.report(first, [b"c"], [], 2.0, 3.0) == [
        on.TasksFinished("w", 1, 1, 2, [b"c"], [], 2.0, 3.0)
    ]
    assert session.leases == {2: second}
    assert session.claim(second, 9) == [b"5"]


def test_a_lease_is_taken_in_once_however_often_it_comes() -> None:
    session = worker()
    lease = leased(session, 1, 1)
    session.claim(lease, 1)
    session.report(lease, [b"a"], [], 0.0, 0.0)
    assert session.handle(do.Assign("w", 1, 1, "echo", 0, [b"0"])) == []
    assert session.leases == {}
    assert session.handle(do.Assign("w", 9, 2, "echo", 0, [b"0"])) == [], "another epoch"
    assert session.leases == {}


def test_a_recall_gives_back_what_is_not_started() -> None:
    session = worker()
    lease = leased(session)
    session.claim(session.take() or lease, 1)
    assert session.handle(do.Recall("w", 1, 1)) == [on.TasksReleased("w", 1, 1, 1)]
    assert session.handle(do.Recall("w", 1, 1)) == [], "nothing is left to give back"
    assert session.claim(lease, 9) == []
    session.report(lease, [b"a"], [], 0.0, 0.0)
    assert session.leases == {}
    assert session.handle(do.Recall("w", 1, 1)) == [], "it is over"


def test_a_recalled_lease_that_was_not_begun_is_over_at_once() -> None:
    session = worker()
    leased(session)
    assert session.handle(do.Recall("w", 1, 1)) == [on.TasksReleased("w", 1, 1, 0)]
    assert session.leases == {}
    assert session.take() is None, "it is passed over"


def test_a_cancel_marks_single_tasks_or_all_that_are_not_started() -> None:
    session = worker()
    lease = leased(session)
    session.claim(lease, 1)
    session.handle(do.Cancel("w", 1, 1, [2]))
    assert lease.cancelled == {2}
    session.handle(do.Cancel("w", 1, 1))
    assert lease.cancelled == {1, 2, 3}
    assert session.handle(do.Cancel("w", 1, 9)) == []


def test_a_draining_worker_gives_back_what_is_not_started_and_takes_no_more() -> None:
    session = worker()
    begun, waiting = leased(session, 1, 2), leased(session, 2, 2)
    session.claim(begun, 1)
    assert session.drain() == [
        on.WorkerDraining("w", 1),
        on.TasksReleased("w", 1, 1, 1),
        on.TasksReleased("w", 1, 2, 0),
    ]
    assert session.leases == {1: begun}
    assert waiting.id not in session.leases
    answer = session.handle(do.Assign("w", 1, 3, "echo", 4, [b"x"]))
    assert on.TasksReleased("w", 1, 3, 4) in answer
    assert session.leases == {1: begun}
    assert worker(None).drain() == []


def test_a_session_has_no_answer_to_what_is_meant_for_clients() -> None:
    assert worker().handle(do.Greet("c", 0.2)) == []


def test_an_end_without_a_result_keeps_its_state_on_the_way_to_the_user() -> None:
    session = ClientSession("c")
    submitted(session)
    failure = Failure(0, "Cancelled", "cancelled", State.CANCELLED)
    news = session.handle(do.Deliver("c", 0, 0, [b""], [failure]), 0.0)
    assert isinstance(news, Settled)
    assert news.failures == [failure]


# What the other side has not heard


def test_more_than_fits_in_one_heartbeat_is_told_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "MAX_RECENT", 2)
    session = ClientSession("c")
    for _ in range(5):
        submitted(session)
    for submission in (1, 2, 3):
        session.handle(do.Deliver("c", submission, 0, [b"y"]), 0.0)
    told = []
    for _ in range(3):
        event = beat(session, 0.1)
        told.append(event.received)
        session.handle(do.Greet("c", 0.2, event.received), 0.1)
    assert told == [[1, 2], [3], []]


def test_another_coordinator_counts_its_leases_from_one_again() -> None:
    session = worker(1)
    leased(session, 1)
    session.handle(do.Disconnect("w", 1, "epoch 1 is over; join again"))
    session.handle(do.Welcome("w", 5, 1, 0.2))
    assert leased(session, 1).next == 0


def test_who_still_sends_work_is_told_again_that_this_worker_drains() -> None:
    session = worker(1)
    session.drain()
    draining, released = on.WorkerDraining("w", 1), on.TasksReleased("w", 1, 3, 4)
    assert session.handle(do.Assign("w", 1, 3, "echo", 4, [b"x"])) == [draining, released]
    session.handle(do.Disconnect("w", 1, "silent"))
    assert session.handle(do.Welcome("w", 5, 2, 0.2)) == [on.WorkerDraining("w", 2)]
