"""How a worker's session handles messages and repeats."""

from collections import deque

from cluster.protocol.held_lease import HeldLease
from cluster.protocol.worker_session import WorkerSession
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import Failure, Gpu, Load

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
    hello.epoch = 3
    assert session.introduction(again=True) == [hello]
    session.handle(do.Disconnect("w", 3, "epoch 3 is over; join again"))
    assert session.introduction() == [hello], "no coordinator may give this epoch again"


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
    assert lease.claim(9) == [], "nothing more of it is started"


def test_a_disconnected_worker_drops_what_it_holds_and_joins_again() -> None:
    session = worker(2)
    lease = leased(session)
    assert lease.claim(1) == [b"0"]
    lease.store(0, LARGE)
    session.report(lease, [b""], [], 0.0, 1.0)
    session.handle(do.Disconnect("w", 1, "old"))
    assert session.leases == {1: lease}, "that was about an epoch before"
    session.handle(do.Disconnect("w", 2, "silent"))
    assert (session.epoch, session.leases, session.storing) == (None, {}, {})
    assert len(session.introduction()) == 1
    assert session.report(lease, [b"a"], [], 0.0, 1.0) == [], "nobody waits for it"
    assert session.give_back(lease) == []
    session.handle(do.Welcome("w", 5, 1, 0.2))
    assert leased(session, 1).next == 0, "another coordinator counts its leases from 1 again"


def test_what_it_offers_is_repeated_until_it_is_acknowledged() -> None:
    session = worker(3)
    offers = on.WorkerOffers("w", 3, ["echo", "n"], ["n"], "", 1)
    assert session.offer(["echo", "n"], ["n"]) == [offers]
    assert session.heartbeat() == [on.WorkerHeartbeat("w", 3, []), offers]
    session.handle(do.Acknowledge("w", 2, 1))
    assert offers in session.heartbeat(), "that was about an epoch before"
    newer = on.WorkerOffers("w", 3, ["echo"], [], "no room for 'n'", 2)
    assert session.offer(["echo"], [], "no room for 'n'") == [newer]
    session.handle(do.Acknowledge("w", 3, 1))
    assert newer in session.heartbeat(), "that was about the offers before"
    session.handle(do.Acknowledge("w", 3, 2))
    assert session.heartbeat() == [on.WorkerHeartbeat("w", 3, [])]


def test_a_worker_that_joins_again_introduces_itself_with_its_present_offers() -> None:
    session = worker(3)
    session.handle(do.Serve("w", 3, ["n", "o"], 1))
    session.offer(["n"], ["n"], "no model 'o'")
    session.handle(do.Disconnect("w", 3, "silent"))
    (hello,) = session.introduction()
    assert isinstance(hello, on.WorkerJoined)
    assert (hello.kinds, hello.models, hello.wanted) == (["n"], ["n"], ["n", "o"])
    news = session.handle(do.Welcome("w", 5, 4, 0.2))
    assert news == [on.WorkerOffers("w", 4, ["n"], ["n"], "no model 'o'", 2)]


def test_what_is_not_started_of_a_kind_that_is_withdrawn_is_given_back() -> None:
    session = worker(1)
    begun, waiting = leased(session, 1), leased(session, 2)
    assert session.take() is begun
    assert begun.claim(1) == [b"0"]
    told = session.offer(["other"], [])
    released = [on.TasksReleased("w", 1, 1, 1), on.TasksReleased("w", 1, 2, 0)]
    assert told == [on.WorkerOffers("w", 1, ["other"], [], "", 1), *released]
    assert waiting.id not in session.leases
    late = do.Assign("w", 1, 3, "echo", 0, [b"x"])
    assert session.handle(late) == [on.TasksReleased("w", 1, 3, 0)]
    assert session.take() is None
    finished = on.TasksFinished("w", 1, 1, 0, [b"a"], [], 0.0, 1.0)
    assert session.report(begun, [b"a"], [], 0.0, 1.0) == [finished]
    assert session.leases == {}


def test_orders_are_handed_out_once_and_only_under_the_present_epoch() -> None:
    session = worker(2)
    assert not session.has_orders
    heard = on.WorkerOffers("w", 2, ["echo"], ["m"], "", 1, 1)
    assert session.handle(do.Serve("w", 2, ["n"], 1)) == [heard]
    assert session.has_orders
    assert session.orders() == (["n"], False)
    assert session.orders() == (None, False)
    assert session.handle(do.Serve("w", 2, ["n"], 1)) == [], "a repeat"
    assert session.handle(do.Serve("w", 1, ["o"], 2)) == []
    assert session.handle(do.Drain("w", 1)) == []
    assert not session.has_orders
    session.handle(do.Drain("w", 2))
    assert session.orders() == (None, True)
    session.handle(do.Welcome("w", 5, 3, 0.2))
    session.handle(do.Serve("w", 3, ["p"], 1))
    assert session.orders() == (["p"], False), "another coordinator counts its orders from 1 again"


def test_a_worker_that_can_load_nothing_refuses_other_models_only() -> None:
    session = worker(2)
    (refusal,) = session.refuse(["m", "n"])
    assert isinstance(refusal, on.WorkerOffers)
    assert refusal.trouble == "it can't load or unload models while it runs: n"
    (content,) = session.refuse(["m"])
    assert isinstance(content, on.WorkerOffers)
    assert content.trouble == ""


def test_goodbye_is_said_once_and_only_after_a_welcome() -> None:
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
    assert first.claim(2) == [b"0", b"1"]
    failure = Failure(1, "E", "m")
    assert session.report(first, [b"a", b""], [failure], 1.0, 2.0) == [
        on.TasksFinished("w", 1, 1, 0, [b"a", b""], [failure], 1.0, 2.0)
    ]
    assert first.claim(2) == [b"2"]
    assert first.claim(2) == []
    assert session.report(first, [b"c"], [], 2.0, 3.0) == [
        on.TasksFinished("w", 1, 1, 2, [b"c"], [], 2.0, 3.0)
    ]
    assert session.leases == {2: second}
    assert second.claim(9) == [b"5"]


def test_a_lease_is_taken_in_once_however_often_it_comes() -> None:
    session = worker()
    lease = leased(session, 1, 1)
    lease.claim(1)
    session.report(lease, [b"a"], [], 0.0, 0.0)
    assert session.handle(do.Assign("w", 1, 1, "echo", 0, [b"0"])) == []
    assert session.leases == {}
    assert session.handle(do.Assign("w", 9, 2, "echo", 0, [b"0"])) == [], "another epoch"
    assert session.leases == {}


def test_a_recall_gives_back_what_is_not_started() -> None:
    session = worker()
    lease, untouched = leased(session), leased(session, 2)
    (session.take() or lease).claim(1)
    for _ in range(2):  # a repeated recall has not heard the first answer
        assert session.handle(do.Recall("w", 1, 1)) == [on.TasksReleased("w", 1, 1, 1)]
    assert lease.claim(9) == []
    session.report(lease, [b"a"], [], 0.0, 0.0)
    assert session.leases == {2: untouched}
    assert session.handle(do.Recall("w", 1, 1)) == [], "it is over"
    assert session.handle(do.Recall("w", 1, 2)) == [on.TasksReleased("w", 1, 2, 0)]
    assert (session.leases, session.take()) == ({}, None)


def test_a_cancel_marks_single_tasks_or_all_that_are_not_started() -> None:
    session = worker()
    lease = leased(session)
    lease.claim(1)
    session.handle(do.Cancel("w", 1, 1, [2]))
    assert lease.cancelled == {2}
    session.handle(do.Cancel("w", 1, 1))
    assert lease.cancelled == {1, 2, 3}
    assert session.handle(do.Cancel("w", 1, 9)) == []


def test_a_draining_worker_gives_back_what_is_not_started_and_takes_no_more() -> None:
    session = worker()
    begun = leased(session, 1, 2)
    leased(session, 2, 2)
    begun.claim(1)
    draining = on.WorkerDraining("w", 1)
    assert session.drain() == [
        draining,
        on.TasksReleased("w", 1, 1, 1),
        on.TasksReleased("w", 1, 2, 0),
    ]
    assert session.leases == {1: begun}
    late = session.handle(do.Assign("w", 1, 3, "echo", 4, [b"x"]))
    assert late == [draining, on.TasksReleased("w", 1, 3, 4)]
    assert session.leases == {1: begun}
    session.handle(do.Disconnect("w", 1, "silent"))
    assert session.handle(do.Welcome("w", 5, 2, 0.2)) == [on.WorkerDraining("w", 2)]
    assert worker(None).drain() == []


# Large results

LARGE = b"0123456789"


def news(position: int, lease: int = 1, size: int = 10, *times: float) -> on.ResultStored:
    return on.ResultStored("w", 1, lease, position, size, *(times or (0.0, 1.0)))


def test_a_large_result_is_announced_in_its_turn_read_in_chunks_and_let_go() -> None:
    session = worker()
    lease = leased(session)
    lease.claim(3)
    lease.store(1, LARGE)
    finished = on.TasksFinished("w", 1, 1, 0, [b"a"], [], 0.0, 1.0)
    told = session.report(lease, [b"a", b"", b"c"], [], 0.0, 3.0)
    assert told == [finished, news(1, 1, 10, 1.0, 2.0)]
    assert session.give_back(lease) == [on.TasksReleased("w", 1, 1, 3)]
    beat = session.heartbeat()
    assert beat == [on.WorkerHeartbeat("w", 1, [1]), news(1, 1, 10, 1.0, 2.0)]
    assert session.handle(do.Read("w", 1, 1, 1, 8, 2)) == [on.ChunkRead("w", 1, 1, 1, 8, [b"89"])]
    rest = on.TasksFinished("w", 1, 1, 1, [b"", b"c"], [], 1.0, 3.0)
    assert session.handle(do.Cancel("w", 1, 1, [1])) == [rest]
    assert (session.leases, session.storing) == ({}, {})


def test_outcomes_behind_a_large_result_wait_and_large_ones_are_announced_in_turn() -> None:
    session = worker()
    lease = leased(session)
    lease.claim(4)
    lease.store(0, LARGE)
    lease.store(2, LARGE + LARGE)
    lease.store(3, LARGE)
    assert session.report(lease, [b""], [], 0.0, 1.0) == [news(0)]
    assert session.report(lease, [b"b", b"", b""], [], 1.0, 4.0) == [news(0)]
    assert session.handle(do.Cancel("w", 1, 1, [0])) == [
        on.TasksFinished("w", 1, 1, 0, [b""], [], 0.0, 1.0),
        on.TasksFinished("w", 1, 1, 1, [b"b"], [], 1.0, 2.0),
        news(2, 1, 20, 2.0, 3.0),
    ]
    last = on.TasksFinished("w", 1, 1, 2, [b"", b""], [], 2.0, 4.0)
    assert session.handle(do.Cancel("w", 1, 1)) == [last], "an unwanted one is not announced"
    assert (session.leases, session.storing) == ({}, {})


def test_there_is_nothing_to_read_where_nothing_is_stored() -> None:
    session = worker()
    assert session.handle(do.Read("w", 1, 1, 0, 0, 1)) == []
    lease = leased(session)
    assert session.handle(do.Read("w", 1, 1, 0, 0, 1)) == []
    lease.store(0, LARGE)
    assert session.handle(do.Read("w", 2, 1, 0, 0, 1)) == [], "that is another epoch's lease"
    assert session.handle(do.Read("w", 1, 1, 0, 5, 6)) == []


def test_no_further_lease_is_taken_while_too_much_is_stored() -> None:
    session = WorkerSession("w", 5, 2, 6, ["echo"], stored_bytes_max=10)
    session.handle(do.Welcome("w", 5, 1, 0.2))
    first, second = leased(session, 1, count=1), leased(session, 2)
    assert session.take() is first
    first.claim(1)
    first.store(0, LARGE)
    session.report(first, [b""], [], 0.0, 1.0)
    assert session.take() is None
    session.handle(do.Cancel("w", 1, 1, [0]))
    assert session.take() is second


# Models, which run tasks of several leases together


def test_leases_of_one_kind_are_taken_together_and_others_keep_their_places() -> None:
    session = worker()
    session.offer(["echo", "other"], [])
    for lease, kind in enumerate(["echo", "other", "echo", "echo", "other"], 1):
        session.handle(do.Assign("w", 1, lease, kind, 0, [b"x", b"y"]))
    first = session.take()
    assert first is not None
    assert [lease.id for lease in session.take_like(first, 3)] == [3, 4], "two tasks each"
    assert [lease.id for lease in session.ready] == [2, 5]


def test_leases_that_are_put_back_come_first_unless_nothing_of_them_is_left() -> None:
    session = worker()
    first, empty, gone, last = (leased(session, lease) for lease in (1, 2, 3, 4))
    session.ready.clear()
    session.ready.append(last)
    empty.claim(9)
    session.handle(do.Recall("w", 1, 3))
    session.put_back([first, empty, gone])
    assert list(session.ready) == [first, last]


def test_a_cancelled_lease_that_is_not_begun_is_given_back_at_once() -> None:
    session = worker()
    whole, part, begun = leased(session, 1), leased(session, 2, 2), leased(session, 3)
    assert session.handle(do.Cancel("w", 1, 1)) == [on.TasksReleased("w", 1, 1, 0)]
    assert session.handle(do.Cancel("w", 1, 2, [1])) == []
    assert session.handle(do.Cancel("w", 1, 2, [0])) == [on.TasksReleased("w", 1, 2, 0)]
    session.ready.clear()
    assert session.handle(do.Cancel("w", 1, 3)) == [], "somebody works on it"
    assert session.leases == {3: begun}
    assert (whole.pending, part.pending) == (deque(), deque())


def test_a_deadline_is_on_the_workers_own_clock() -> None:
    session = worker()
    session.handle(do.Assign("w", 1, 1, "echo", 0, [b"x"], 3.0), 100.0)
    session.handle(do.Assign("w", 1, 2, "echo", 0, [b"x"]), 100.0)
    assert [session.leases[id].due_at for id in (1, 2)] == [103.0, None]


def test_a_cancellation_that_comes_before_its_lease_is_not_forgotten() -> None:
    session = worker()
    assert session.handle(do.Cancel("w", 1, 1, [0])) == []
    assert session.handle(do.Cancel("w", 1, 1, [1])) == []
    assert session.handle(do.Cancel("w", 1, 2)) == []
    assert session.handle(do.Cancel("w", 9, 3)) == [], "another epoch"
    part = session.handle(do.Assign("w", 1, 1, "echo", 0, [b"a", b"b", b"c"]))
    assert (part, session.leases[1].cancelled) == ([], {0, 1})
    whole = session.handle(do.Assign("w", 1, 2, "echo", 0, [b"a"]))
    assert whole == [on.TasksReleased("w", 1, 2, 0)]
    assert session.handle(do.Assign("w", 1, 3, "echo", 0, [b"a"])) == []
    assert sorted(session.leases) == [1, 3]
    assert session.handle(do.Cancel("w", 1, 2)) == [], "it is over, and no news"
