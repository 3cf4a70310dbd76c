"""How a client's session handles messages and repeats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.protocol import client_session
from cluster.protocol.client_session import ClientSession, Options, Refused, Settled
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import Failure, Priority, Requirements, Retry, State

PLAIN = Options()


def submitted(session: ClientSession, count: int = 1, now: float = 0.0) -> on.TasksSubmitted:
    return session.submit("echo", [b"x"] * count, PLAIN, None, now)


def beat(session: ClientSession, now: float) -> on.ClientHeartbeat:
    """The heartbeat itself, which must be all there is to say."""
    (event,) = session.heartbeat(now)
    assert isinstance(event, on.ClientHeartbeat)
    return event


# Clients, submitting


def test_a_submission_says_everything_about_its_run_and_a_traced_one_its_time() -> None:
    session = ClientSession("c")
    options = Options(Priority.HIGH, Requirements(model="m"), 2.0, Retry(3))
    event = session.submit("echo", [b"x", b"y"], options, "sink", 5.0)
    assert event == on.TasksSubmitted("c", 0, "echo", [b"x", b"y"], *options[:4])
    assert (session.open[0].sink, session.open[0].count, session.open[0].missing) == ("sink", 2, 2)
    traced = session.submit("echo", [b"x"], PLAIN, None, 5.0, traced=True)
    assert (traced.submission, traced.sent_at, session.open[1].sent_at) == (1, 5.0, 5.0)


def test_an_accepted_submission_knows_its_run_and_is_not_repeated() -> None:
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
    assert (news.submission.id, news.reason, news.error) == (0, "full", "Busy")
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
    part = do.Deliver("c", 0, 1, [b"b"])
    session.handle(part, 1.0)
    assert session.handle(part, 1.0) is None
    failures = [Failure(3, "E", "m"), Failure(5, "E", "m", State.CANCELLED)]
    whole = do.Deliver("c", 0, 0, [b"a", b"b", b"c", b"", b"e", b""], failures)
    submission = session.open[0]
    assert session.handle(whole, 1.0) == Settled(submission, 0, [b"a"], [], [])
    assert session.handle(whole, 1.0) == Settled(
        submission, 2, [b"c", b"", b"e", b""], failures, []
    )
    assert session.handle(whole, 1.0) is None
    assert session.owed == 1


def test_outcomes_of_what_nobody_submitted_are_no_news() -> None:
    session = ClientSession("c")
    submitted(session, 2)
    assert session.handle(do.Deliver("c", 1, 0, [b"a"]), 1.0) is None
    assert session.handle(do.Deliver("c", 0, 1, [b"a", b"b"]), 1.0) is None, "too many"
    assert session.open[0].missing == 2


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 8)), max_size=60))
def test_each_task_is_settled_once_in_any_order_of_repeats(spans: list[tuple[int, int]]) -> None:
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


# Clients, a coordinator that has lost or forgotten


def test_a_coordinator_that_did_not_know_this_client_is_asked_for_what_was_accepted() -> None:
    session = ClientSession("c")
    for _ in range(3):
        submitted(session, 2)
    for submission in (0, 1):
        session.handle(do.Accept("c", submission, 7), 0.1)
    session.handle(do.Deliver("c", 0, 0, [b"a"]), 0.1)
    assert session.handle(do.Meet("c"), 0.2) is None
    assert session.is_hurried
    assert beat(session, 0.2).waiting == [(0, 1), (1, 0)]
    assert not session.is_hurried


def test_a_lost_submission_is_handed_in_again_without_what_has_its_outcome() -> None:
    session = ClientSession("c")
    event = session.submit("echo", [b"x", b"y"], PLAIN, "sink", 0.0)
    session.handle(do.Deliver("c", 0, 0, [b"X"]), 1.0)
    news = session.handle(do.Refuse("c", 0, "gone", "CoordinatorLost"), 2.0)
    assert isinstance(news, Refused)
    again = replace(event, submission=1)
    assert session.resubmit(news.submission, 2.0) == [again, on.TasksCancelled("c", 1, [0])]
    news = session.handle(do.Deliver("c", 1, 0, [b"", b"Y"]), 3.0)
    assert news == Settled(news.submission, 1, [b"Y"], [], [])
    assert news.submission.work.payloads == [], "it is over"


def test_a_submission_is_dropped_a_while_after_its_time_limit() -> None:
    session = ClientSession("c")
    timed = Options(timeout_s=1.0)
    submissions = [session.submit("echo", [b"x"], options, None, 0.0) for options in (timed, PLAIN)]
    assert session.expired(1.0 + client_session.EXPIRY_MARGIN_S - 0.01) == []
    (expired,) = session.expired(1.0 + client_session.EXPIRY_MARGIN_S)
    assert expired.work == submissions[0]
    assert [*session.open] == [1]
    assert beat(session, 0.5) == on.ClientHeartbeat("c", 1, [0]), "the coordinator hears of it"
    assert session.expired(1e9) == []


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
    assert beat(session, 1.9) == on.ClientHeartbeat("c", 0), "the patience starts again"
    assert session.heartbeat(2.0) == [on.ClientHeartbeat("c", 0), event]


def test_an_accepted_submission_without_news_is_asked_for_after_longer() -> None:
    session = ClientSession("c")
    submitted(session, 3)
    session.handle(do.Accept("c", 0, 1), 1.0)
    session.handle(do.Deliver("c", 0, 0, [b"a"]), 2.0)
    assert beat(session, 6.9) == on.ClientHeartbeat("c", 0, partly=[(0, 0, 1)])
    assert beat(session, 7.0) == on.ClientHeartbeat("c", 0, [], [(0, 1)])
    assert beat(session, 7.1) == on.ClientHeartbeat("c", 0, partly=[(0, 0, 1)]), "said again"
    assert beat(session, 7.2) == on.ClientHeartbeat("c", 0)


def test_no_more_is_sent_again_at_once_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_session, "MAX_RESENT", 2)
    session = ClientSession("c")
    events = [submitted(session) for _ in range(3)]
    assert session.heartbeat(1.0)[1:] == events[:2]
    assert session.heartbeat(1.1)[1:] == events[2:]


def test_more_than_fits_in_one_heartbeat_is_told_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_session, "MAX_RECENT", 2)
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


# Large results

OFFER = do.Offer("c", 0, 1, 5, 3)
ALL = do.DeliverChunk("c", 0, 1, 5, 0, [b"abc"])
CONFIRM = do.Confirm("c", 0, 1, 5, [1.0, 2.0, 3.0, 4.0, 5.0])


def test_a_large_result_is_asked_for_and_settles_its_task_when_it_is_confirmed() -> None:
    session = ClientSession("c")
    submitted(session, 2)
    assert session.handle(OFFER, 1.0) is None
    assert session.answers() == [on.ChunkRequested("c", 0, 1, 5, 0, 3)]
    assert session.open[0].event is None, "an offer says that it was accepted, too"
    assert session.handle(ALL, 1.0) is None
    assert session.answers() == [on.StreamReceived("c", 0, 1, 5)]
    news = session.handle(CONFIRM, 2.0)
    assert news == Settled(session.open[0], 1, [b"abc"], [], CONFIRM.stamps)
    assert session.handle(CONFIRM, 2.0) is None
    assert session.handle(OFFER, 2.0) is None
    assert session.handle(do.Deliver("c", 0, 0, [b"a", b"b"]), 3.0) is not None
    assert (session.answers(), session.open, len(session.streams.open)) == ([], {}, 0)


def test_another_outcome_or_a_withdrawal_ends_the_fetching() -> None:
    session = ClientSession("c")
    submitted(session, 2)
    for lease, end in (
        (5, do.Withdraw("c", 0, 1, 5)),
        (6, do.Deliver("c", 0, 1, [b""], [Failure(1, "Cancelled", "", State.CANCELLED)])),
    ):
        session.handle(do.Offer("c", 0, 1, lease, 3), 1.0)
        assert session.answers() == [on.ChunkRequested("c", 0, 1, lease, 0, 3)]
        session.handle(end, 1.0)
        session.handle(ALL, 1.0)
        assert (session.answers(), session.streams.open) == ([], {})
    assert session.streams.late_chunks == 2


@pytest.mark.parametrize("offer", [do.Offer("c", 9, 0, 5, 3), do.Offer("c", 0, 2, 5, 3)])
def test_an_offer_of_what_is_not_open_is_ignored(offer: do.Offer) -> None:
    session = ClientSession("c")
    submitted(session, 2)
    session.handle(offer, 1.0)
    assert session.answers() == []


def test_requests_without_an_answer_are_repeated_with_a_heartbeat() -> None:
    session = ClientSession("c")
    submitted(session, 2)
    session.handle(OFFER, 1.0)
    request = session.answers()
    assert len(session.heartbeat(1.5)) == 1
    assert session.heartbeat(2.0)[1:] == request


def test_a_task_cancelled_for_lack_of_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise MemoryError

    monkeypatch.setattr("cluster.protocol.reassembly.BytesIO", refuse)
    session = ClientSession("c")
    submitted(session, 2)
    session.handle(OFFER, 1.0)
    assert session.answers() == [on.TasksCancelled("c", 0, [1])]
    cancelled = Failure(1, "Cancelled", "cancelled", State.CANCELLED)
    news = session.handle(do.Deliver("c", 0, 1, [b""], [cancelled]), 2.0)
    assert isinstance(news, Settled)
    assert news.failures == [Failure(1, "MemoryError", "no memory for a result of 3 bytes")]
