"""The witness catches errors that the broken schedulers of the simulator do not make."""

import pytest

from cluster.simulation.witness import Witness
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import Failure, Priority, ProcessState, State

SUBMITTED = on.TasksSubmitted("c", 0, "echo", [b"a", b"b"])
ACCEPT = do.Accept("c", 0, 1)
JOINED = on.WorkerJoined("w", 1, 1, 1, ["echo"])
WELCOME = do.Welcome("w", 1, 1, 0.2)
IDLE = "'echo' waits although w has credit"


def assign(lease: int = 1, start: int = 0, *payloads: bytes, epoch: int = 1) -> do.Assign:
    return do.Assign("w", epoch, lease, "echo", start, list(payloads or (b"a",)))


@pytest.fixture
def witness() -> Witness:
    """A witness that saw a worker join under epoch 1, lose its route, and two tasks accepted."""
    one = Witness(Limits(bypasses=1))
    one.observe(JOINED, [WELCOME], 0.0)
    one.observe(on.WorkerUnreachable("w", []), [], 0.0)
    one.observe(SUBMITTED, [ACCEPT], 0.0)
    return one


@pytest.mark.parametrize(
    ("actions", "complaint"),
    [
        ([do.Accept("c", 5, 2)], "accepted without being submitted"),
        ([do.Accept("c", 0, 2)], "accepted twice"),
        ([assign(1), assign(1, 1, b"b")], "granted twice"),
        ([assign(epoch=2)], "under a past epoch"),
        ([assign(1, 1, b"a")], "names the wrong tasks"),
        ([assign(1, 0, b"a", b"a")], "names the wrong tasks"),
        ([do.Deliver("c", 0, 0, [b"x"]), assign()], "leased after its end"),
        ([do.Deliver("c", 0, 0, [b"x"])] * 2, "delivered twice"),
        ([do.Deliver("c", 0, 0, [b"x"]), do.Deliver("c", 0, 0, [b"y"])], "two outcomes"),
        (
            [do.Deliver("c", 0, 0, [b""], [Failure(0, "", "", State.DEAD_LETTERED)])],
            "was buried before it had lost its workers",
        ),
    ],
)
def test_an_action_that_breaks_a_promise_is_an_error(
    witness: Witness, actions: list[do.Action], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        witness.observe(None, actions, 0.0)


def test_a_submission_refused_and_then_accepted_is_an_error(witness: Witness) -> None:
    again = on.TasksSubmitted("c", 1, "echo", [b"n"])
    witness.observe(again, [do.Refuse("c", 1, "full")], 0.0)
    witness.observe(again, [do.Refuse("c", 1, "it is over")], 0.0)
    with pytest.raises(AssertionError, match="accepted after it had been refused"):
        witness.observe(again, [do.Accept("c", 1, 2)], 0.0)


def test_an_unanswered_message_under_a_past_epoch_is_an_error(witness: Witness) -> None:
    stale = on.WorkerHeartbeat("w", 0, [])
    witness.observe(stale, [do.Disconnect("w", 0, "over")], 0.0)
    with pytest.raises(AssertionError, match="past epoch"):
        witness.observe(stale, [], 0.0)


def test_a_cancel_without_effect_is_an_error(witness: Witness) -> None:
    with pytest.raises(AssertionError, match=r"goes on although it was cancelled at \{1\}"):
        witness.observe(on.TasksCancelled("c", 0, [1]), [], 0.0)


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ([], "task 1 of run 1 goes on although an operator cancelled it"),
        (
            [do.Deliver("c", 0, 1, [b"B"]), do.Report("op", 1, True)],
            "task 1 of run 1: the operator hears True of b'B'",
        ),
    ],
)
def test_an_operators_cancel_without_its_effect_is_an_error(
    witness: Witness, told: list[do.Action], complaint: str
) -> None:
    witness.observe(on.CancelRequested("op", 1, 9, 1), [], 0.0)
    witness.observe(on.CancelRequested("op", 1, 1, 2), [], 0.0)
    with pytest.raises(AssertionError, match=complaint):
        witness.observe(on.CancelRequested("op", 1, 1, 1), told, 0.0)


@pytest.mark.parametrize(
    ("event", "actions"),
    [
        (on.WorkerOffers("w", 1, ["other"], [], "", 1), []),
        (on.LeaveRequested("op", 1, "w", 0), [do.Drain("w", 1)]),
        (on.LeaveRequested("op", 1, "w", 0, True), [do.Restart("h", "w", 0)]),
    ],
)
def test_a_lease_of_what_a_worker_does_not_offer_or_when_it_is_to_leave_is_an_error(
    witness: Witness, event: on.Event, actions: list[do.Action]
) -> None:
    witness.observe(event, actions, 0.0)
    witness.observe(on.WorkerOffers("w", 1, ["echo"], [], "", 0), [], 0.0)  # it came late
    with pytest.raises(AssertionError, match="w was leased 'echo', which it does not take"):
        witness.observe(None, [assign()], 0.0)


def test_a_missed_deadline_is_an_error(witness: Witness) -> None:
    hasty = on.TasksSubmitted("c", 1, "echo", [b"h"], timeout_s=0.5)
    witness.observe(hasty, [do.Accept("c", 1, 2)], 0.0)
    witness.observe(None, [], 0.5)
    with pytest.raises(AssertionError, match="run 2 is overdue"):
        witness.observe(None, [], 0.6)


def submit(witness: Witness, submission: int, priority: Priority, kind: str = "echo") -> None:
    payloads = [b"%d %d" % (submission, position) for position in range(30)]
    event = on.TasksSubmitted("c", submission, kind, payloads, priority)
    witness.observe(event, [do.Accept("c", submission, submission + 1)], 0.0)


@pytest.fixture
def busy() -> Witness:
    """A witness that saw a worker with a credit of one take one of two tasks."""
    one = Witness(Limits())
    one.observe(JOINED, [WELCOME], 0.0)
    one.observe(SUBMITTED, [ACCEPT, assign(1)], 0.0)
    return one


@pytest.mark.parametrize(
    ("event", "actions"),
    [
        (on.TasksFinished("w", 1, 1, 0, [b"x"]), [do.Deliver("c", 0, 0, [b"x"])]),
        (on.TasksReleased("w", 1, 1, 0), []),
        (on.WorkerJoined("w", 2, 1, 1, ["echo"]), [do.Welcome("w", 2, 2, 0.2)]),
    ],
)
def test_work_that_waits_while_a_worker_has_credit_is_an_error(
    busy: Witness, event: on.Event, actions: list[do.Action]
) -> None:
    busy.observe(JOINED, [WELCOME], 0.1)
    busy.observe(on.TasksFinished("w", 1, 1, 0, []), [], 0.1)
    busy.observe(on.TasksReleased("w", 1, 1, 1), [], 0.1)  # the lease ends there
    with pytest.raises(AssertionError, match=IDLE):
        busy.observe(event, actions, 0.1)


@pytest.mark.parametrize("event", [on.WorkerDraining("w", 1), on.WorkerUnreachable("w", [])])
def test_a_worker_that_drains_or_has_no_route_need_not_take_work_but_is_not_given_up(
    busy: Witness, event: on.Event
) -> None:
    busy.observe(event, [], 0.1)
    done = on.TasksFinished("w", 1, 1, 0, [b"x"])
    busy.observe(done, [do.Deliver("c", 0, 0, [b"x"])], 0.1)
    with pytest.raises(AssertionError, match="given up although it spoke in time"):
        busy.observe(on.WorkerHeartbeat("w", 1, []), [do.Disconnect("w", 1, "over")], 0.2)


def test_a_pause_of_the_scheduler_is_not_the_silence_of_a_worker(busy: Witness) -> None:
    busy.arrived(on.WorkerHeartbeat("w", 1, []), 0.5)
    busy.stalled(2.0, 2.5)
    with pytest.raises(AssertionError, match="given up although it spoke in time"):
        busy.observe(on.WorkerHeartbeat("w", 1, []), [do.Disconnect("w", 1, "over")], 2.6)


def test_a_death_that_was_not_told_may_bury_nothing(busy: Witness) -> None:
    dead = [do.Deliver("c", 0, 0, [b""], [Failure(0, "DeadLettered", "", State.DEAD_LETTERED)])]
    one = Witness(Limits(deaths=1))
    one.observe(JOINED, [WELCOME], 0.0)
    one.observe(SUBMITTED, [ACCEPT, assign(1)], 0.0)
    one.observe(on.HostReported("h", [("w", 0, ProcessState.GONE)]), dead, 0.0)
    with pytest.raises(AssertionError, match="was buried before it had lost its workers"):
        busy.observe(None, dead, 0.7)


def test_a_worker_is_killed_only_for_an_overdue_task_of_its_own(busy: Witness) -> None:
    kill = do.Kill("h", "w", 0, "late")
    for name, pid, complaint in (("v", 0, "v is not here"), ("w", 7, "is not the process 7")):
        with pytest.raises(AssertionError, match=complaint):
            busy.observe(None, [do.Kill("h", name, pid, "late")], 0.0)
    with pytest.raises(AssertionError, match="no task of it is overdue"):
        busy.observe(None, [kill], 0.1)


@pytest.mark.parametrize("is_patient", [True, False])
def test_a_task_that_is_served_or_wants_to_wait_is_not_given_up(is_patient: bool) -> None:
    one = Witness(Limits(unserved_s=1.0))
    odd = on.TasksSubmitted("c", 0, "odd", [b"a"], wait_for_worker=is_patient)
    one.observe(odd, [ACCEPT], 0.0)
    given_up = [do.Deliver("c", 0, 0, [b""], [Failure(0, "NoWorker", "")])]
    with pytest.raises(AssertionError, match="was given up although it was served"):
        one.observe(None, given_up, 2.0 if is_patient else 0.9)


@pytest.mark.parametrize(
    ("again", "complaint"),
    [
        ([do.Deliver("c", 0, 0, [b"A"])] * 2, "was sent again twice"),
        ([do.Deliver("c", 0, 0, [b"A" * 90, b"B" * 90])], "154 bytes were sent again"),
    ],
)
def test_what_one_reminder_brings_has_a_bound(again: list[do.Action], complaint: str) -> None:
    one = Witness(Limits(resent_bytes=100))
    one.observe(SUBMITTED, [ACCEPT], 0.0)
    with pytest.raises(AssertionError, match=complaint):
        one.observe(on.ClientHeartbeat("c", 0, [], [(0, 0)]), again, 0.0)


def test_service_out_of_order_is_an_error(witness: Witness) -> None:
    submit(witness, 1, Priority.NORMAL)
    with pytest.raises(AssertionError, match="run 2 went before run 1 of the same priority"):
        witness.observe(None, [assign(1, 0, b"1 0")], 0.0)
    submit(witness, 2, Priority.URGENT)
    with pytest.raises(AssertionError, match="run 1 went before run 3, which is more urgent"):
        witness.observe(None, [assign(2, 0, b"a")], 0.0)


def test_a_starving_priority_is_an_error(witness: Witness) -> None:
    submit(witness, 1, Priority.URGENT)
    leases = [assign(position, position, b"1 %d" % position) for position in range(6)]
    witness.observe(None, leases[:5], 0.0)  # one bypass, and every other level may starve as well
    with pytest.raises(AssertionError, match="priority NORMAL starves"):
        witness.observe(None, leases[5:], 0.0)


KEPT = on.ResultStored("w", 1, 1, 0, 9)
OFFER = do.Offer("c", 0, 0, 1, 9)
CHUNK = do.DeliverChunk("c", 0, 0, 1, 0, [b"x"])
CONFIRM = do.Confirm("c", 0, 0, 1)
RECEIVED = on.StreamReceived("c", 0, 0, 1)


@pytest.mark.parametrize(
    ("event", "actions", "complaint"),
    [
        (KEPT, [CONFIRM], "confirmed at \\(0, 1\\) before it was received"),
        (RECEIVED, [do.Confirm("c", 0, 0, 2)], "confirmed at \\(0, 2\\) before it was received"),
        (KEPT, [do.Offer("c", 0, 0, 2, 9)], "streamed under lease 2, not 1"),
        (KEPT, [do.Deliver("c", 0, 0, [b"A"]), OFFER], "streamed after its end"),
        (RECEIVED, [CONFIRM, CHUNK], "streamed after its end"),
        (RECEIVED, [do.Deliver("c", 0, 0, [b"A"]), CONFIRM], "has two outcomes"),
    ],
)
def test_a_wrong_action_about_a_stream_is_an_error(
    witness: Witness, event: on.Event, actions: list[do.Action], complaint: str
) -> None:
    witness.observe(None, [assign()], 0.0)
    with pytest.raises(AssertionError, match=complaint):
        witness.observe(event, actions, 0.0)
