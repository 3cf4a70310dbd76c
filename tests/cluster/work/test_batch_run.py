"""Tasks of several leases run together, and each lease gets its own outcomes, in order."""

from collections import Counter
from concurrent.futures import CancelledError
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.protocol.held_lease import HeldLease
from cluster.vocabulary import actions as do
from cluster.vocabulary.limits import Limits
from cluster.work.batch_curve import BatchCurves
from cluster.work.batch_run import BatchRuns
from cluster.work.handlers import Handlers


class Word(NamedTuple):
    """A text as this test's model reads it; words of like length run together."""

    text: bytes
    items: int = 1

    @property
    def bucket(self):
        return len(self.text)


class Shouts:
    """A model that gives words in capitals and notes what it ran together."""

    batch_items_max = 4

    def __init__(self):
        self.ran = []

    def prepare(self, payload):
        if payload == b"?":
            return b"a model that shouts"
        if payload.isdigit():
            return ValueError(f"{payload!r} is no word")
        return Word(bytes(payload), max(1, payload.count(b"*")))

    def run(self, questions):
        self.ran.append([question.text for question in questions])
        return [RuntimeError("too rude") if q.text == b"no" else q.text.upper() for q in questions]

    def handle_batch(self, payloads):
        raise AssertionError("a worker prepares and runs")


LIMITS = Limits()


def lease(id, *payloads, start=0, left_s=None):
    return HeldLease(do.Assign("w", 1, id, "shout", start, list(payloads), left_s), now=100.0)


class Bench:
    """A model with its learned curves."""

    def __init__(self):
        self.model = Shouts()
        self.handlers = Handlers()
        self.handlers.register_model("shout", self.model)
        self.runs = BatchRuns(self.handlers)
        self.clock = count(100.0, 1.0)
        for _ in range(30):  # so that it has learned that four pay
            self.batch(lease(1, *[b"aa"] * 4))
        self.model.ran.clear()
        self.runs.clear_counts()

    def batch(self, *leases, now=100.0):
        """Run a batch: what each lease reports, and which have work left."""
        batch = self.runs.begin("shout", self.model, LIMITS)
        left = batch.take(leases, now)
        batch.run(lambda: next(self.clock))
        return {held.id: finished for held, finished in batch.finished()}, left


@pytest.fixture
def bench():
    return Bench()


def test_leases_of_one_bucket_run_together_and_report_apart(bench):
    reports, left = bench.batch(lease(1, b"aa", start=7), lease(2, b"bb"), lease(3, b"cc"))
    assert bench.model.ran == [[b"aa", b"bb", b"cc"]]
    assert [reports[id].outcomes for id in (1, 2, 3)] == [[b"AA"], [b"BB"], [b"CC"]]
    assert left == []


def test_the_time_of_a_run_is_divided_among_its_leases(bench):
    reports, _ = bench.batch(lease(1, b"aa", b"bb", b"cc"), lease(2, b"dd"))
    spans = [reports[id].ended_at - reports[id].started_at for id in (1, 2)]
    assert spans == pytest.approx([0.75, 0.25])


def test_another_bucket_waits_and_the_oldest_lease_decides(bench):
    leases = lease(1, b"aa"), lease(2, b"longer"), lease(3, b"bb")
    reports, left = bench.batch(*leases)
    assert sorted(reports) == [1, 3]
    assert left == [leases[1]]


def test_a_lease_that_does_not_fit_is_begun_and_goes_on_later(bench):
    first, second = lease(1, b"aa", b"bb", b"cc"), lease(2, b"dd", b"ee", start=3)
    reports, left = bench.batch(first, second)
    assert reports[2].outcomes == [b"DD"]
    assert left == [second]
    reports, left = bench.batch(second)
    assert (reports[2].outcomes, second.next, left) == ([b"EE"], 5, [])


def test_what_needs_no_run_is_answered_beside_it(bench):
    odd = lease(1, b"?", b"12", b"aa", b"no")
    reports, _ = bench.batch(odd)
    assert reports[1].outcomes == [b"a model that shouts", b"", b"AA", b""]
    assert [(f.position, f.error, f.message) for f in reports[1].failures] == [
        (1, "ValueError", "b'12' is no word"),
        (3, "RuntimeError", "too rude"),
    ]


def test_one_that_fails_in_the_run_fails_alone(bench):
    reports, _ = bench.batch(lease(1, b"no"), lease(2, b"ok"))
    assert [f.error for f in reports[1].failures] == ["RuntimeError"]
    assert reports[2].outcomes == [b"OK"]


def test_a_cancelled_task_is_not_run(bench):
    held = lease(1, b"aa", b"bb")
    held.cancelled.add(0)
    reports, _ = bench.batch(held)
    assert bench.model.ran == [[b"bb"]]
    assert reports[1].failures[0].error == CancelledError.__name__


def test_a_task_that_would_miss_its_deadline_is_not_begun_and_says_why(bench):
    soon, later = lease(1, b"aa", left_s=0.2), lease(2, b"bb", left_s=60.0)
    reports, _ = bench.batch(soon, later)
    assert bench.model.ran == [[b"bb"]]
    (failure,) = reports[1].failures
    assert failure.error == "TimedOut"
    assert "200.0 ms left" in failure.message
    assert reports[2].outcomes == [b"BB"]


def test_a_stall_does_not_have_all_that_comes_after_it_refused_for_ever(bench):
    """What is refused teaches nothing, so a run is begun now and then, of a tenth of the time."""
    begun_at = []
    for tenth in range(350):
        bench.batch(lease(1, b"aa", left_s=tenth / 10 + 0.5), now=100.0 + tenth / 10)
        if bench.model.ran:
            begun_at.append(tenth)
            bench.model.ran.clear()
    assert len(begun_at) == 3, "a run takes 1 s"
    assert begun_at[0] >= 100


def test_payloads_read_ahead_are_not_read_again(bench):
    held = lease(1, b"aa", b"bb", start=5)
    unread = bench.runs.unread([held])
    assert [(position, payload) for _, position, payload in unread] == [(5, b"aa"), (6, b"bb")]
    bench.runs.read(unread)
    assert bench.runs.unread([held]) == []
    bench.model.prepare = None
    reports, _ = bench.batch(held)
    assert reports[1].outcomes == [b"AA", b"BB"]
    assert held.prepared == {}


def test_what_is_known_to_be_quick_runs_at_once_in_runs_as_large_as_pay(bench):
    def ask(*words, most_s=5.0):
        return bench.runs.run_quick("shout", words, most_s, lambda: next(bench.clock))

    outcomes = ask(b"aa", b"?", b"bb", b"1", b"cc", b"dd", b"no")
    assert [str(one) for one in outcomes] == [
        str(b"AA"), str(b"a model that shouts"), str(b"BB"), "b'1' is no word", str(b"CC"),
        str(b"DD"), "too rude",
    ]  # fmt: skip
    assert bench.model.ran == [[b"aa", b"bb", b"cc", b"dd"], [b"no"]]
    assert ask(b"aa", most_s=0.1) is None  # it takes a second
    assert ask(b"aa", b"a longer one") is None
    assert ask(b"never seen") is None
    assert len(bench.model.ran) == 2


def test_what_is_given_back_while_a_batch_forms_is_not_reported(bench):
    held = lease(1, b"aa", b"bb", b"cc")

    def prepare(payload):
        if payload == b"bb":
            held.give_back()
        return Word(payload)

    bench.model.prepare = prepare
    reports, left = bench.batch(held)
    assert reports[1].outcomes == [b"AA"]
    assert (held.stop, left) == (1, [])


def test_a_model_that_miscounts_fails_every_task_of_the_batch(bench):
    bench.model.run = lambda questions: [b"one"]
    reports, _ = bench.batch(lease(1, b"aa"), lease(2, b"bb"))
    assert {f.error for id in (1, 2) for f in reports[id].failures} == {"TypeError"}


@given(
    words=st.lists(
        st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=5), max_size=8
    )
)
def test_every_task_of_every_lease_has_its_own_outcome_once(words):
    bench = Bench()
    waiting = [lease(n, *[w.encode() for w in some]) for n, some in enumerate(words)]
    outcomes = {n: [] for n in range(len(words))}
    for _ in range(sum(map(len, words)) + 1):
        reports, _ = bench.batch(*[held for held in waiting if held.pending])
        for n, finished in reports.items():
            outcomes[n] += finished.outcomes
    assert [outcomes[n] for n in range(len(words))] == [
        [w.upper().encode() for w in some] for some in words
    ]
    assert all(len({len(w) for w in ran}) == 1 and len(ran) <= 4 for ran in bench.model.ran)
    for told in bench.runs.counts():
        assert sum(size.items for size in told.sizes) == sum(map(len, words))
        ran = Counter((len(ran) - 1).bit_length() for ran in bench.model.ran)
        assert {n: size.runs for n, size in enumerate(told.sizes) if size.runs} == ran


def test_it_wants_fewer_tasks_for_a_batch_the_more_items_they_have_and_says_so(bench):
    told = []
    bench.runs.on_news = lambda: told.append(bench.runs.wants())
    assert bench.runs.wants() == {"shout": 4}
    bench.batch(lease(1, *[b"aa"] * 4))
    assert told == []
    for number in range(30):
        bench.batch(lease(number, b"****"))
    assert told[-1] == {"shout": 1}
    assert len(told) <= 3
    for number in range(60):
        bench.batch(lease(number, *[b"aa"] * 4))
    assert told[-1] == {"shout": 3}, "not each time that it has changed a little"
    assert bench.runs.wants() == {"shout": 4}


def test_it_wants_a_batch_of_twice_the_items_that_pay_so_far():
    curves = BatchCurves(64)
    assert curves.tasks_wanted(64) == 2
    for _ in range(500):
        curve = curves["bucket"]
        curve.observe(curve.items, 0.001 if curve.items <= 8 else 1.0)
        curves.observe(curve.items, curve.items)
    assert curves.tasks_wanted(64) in (8, 16, 32)  # a neighbour of 8 may have its turn
    assert curves.tasks_wanted(4) == 4
