"""Slots run what they take, and survive that its handler goes meanwhile."""

import threading

from cluster.protocol.worker_session import WorkerSession
from cluster.shells.slots import Slots
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.work.batch_run import BatchRuns
from cluster.work.handlers import Handlers
from tests.cluster.shells.test_worker import TIMEOUT_S, Slow


class Line:
    """Where a slot reports: it notes the events, and ends the slots at the first or, with a
    ``session``, when that holds no lease any more.
    """

    def __init__(self, slots, session=None):
        self.thread, self.lock = threading.get_ident(), threading.Lock()
        self.slots, self.session, self.events = slots, session, []

    def send(self, events):
        self.events += events
        if events and not (self.session and self.session.leases):
            self.slots.end()

    def tend(self):
        pass


def reported(withdraw):
    """What a slot reports of a lease of a model that is unloaded, if so, before it is run."""
    handlers, model = Handlers(), Slow()
    model.go_on.set()
    handlers.register_model("shout", model)
    session = WorkerSession("w", 1, 1, 8, ["shout"])
    session.handle(do.Welcome("w", 1, 1, 0.2))
    session.handle(do.Assign("w", 1, 7, "shout", 0, [b"a", b"b"]))
    if withdraw:
        handlers.withdraw("shout")
    slots = Slots(session, handlers, BatchRuns(handlers), Limits(), lambda: None)
    line = Line(slots)
    thread = threading.Thread(target=slots.work, args=(line,), daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    return line.events


def test_a_lease_that_does_not_fit_in_a_batch_stays_with_the_slot_that_began_it():
    handlers, model = Handlers(), Slow()
    model.go_on.set()
    handlers.register_model("shout", model)
    session = WorkerSession("w", 1, 1, 8, ["shout"])
    session.handle(do.Welcome("w", 1, 1, 0.2))
    for lease in range(6):
        session.handle(do.Assign("w", 1, lease, "shout", 0, [b"a"] * 80))
    slots = Slots(session, handlers, BatchRuns(handlers), Limits(), lambda: None)
    lines = [Line(slots, session) for _ in range(2)]
    threads = [threading.Thread(target=slots.work, args=(line,), daemon=True) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert not session.leases
    assert not {e.lease for e in lines[0].events} & {e.lease for e in lines[1].events}


def test_a_lease_whose_model_was_unloaded_when_it_was_taken_is_given_back():
    assert reported(withdraw=True) == [on.TasksReleased("w", 1, 7, 0)]


def test_a_lease_of_a_model_that_is_there_is_run():
    (finished,) = reported(withdraw=False)
    assert (finished.lease, finished.start, finished.outcomes) == (7, 0, [b"A"])
