"""Who goes next: in turn, by priority, within bounds, and never too late without being told."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cluster.serve.admission import (
    BYPASSES,
    WINDOW_MIN,
    Admission,
    Refused,
    Ticket,
)

FOREVER = 1e9


def ticket(client="a", *, priority=2, due_s=FOREVER, kind="digits"):
    return Ticket(kind, b"", client, priority, due_s, 0.0)


def fill(admission, client="first", **how):
    """Fill the window, so that what comes next must wait."""
    sent = []
    for _ in range(WINDOW_MIN):
        admission.offer(ticket(client, **how), 0.0)
        sent += admission.take(0.0)[0]
    assert len(sent) == WINDOW_MIN
    return sent


def test_what_fits_into_the_window_goes_out_at_once_and_the_rest_waits():
    admission = Admission()
    for _ in range(WINDOW_MIN + 5):
        admission.offer(ticket(), 0.0)
    assert len(admission.take(0.0)[0]) == WINDOW_MIN
    assert (admission.in_flight, admission.queued) == (WINDOW_MIN, 5)
    assert admission.take(0.0) == ([], [])


def test_a_client_with_one_task_is_served_second_however_many_another_has():
    admission = Admission()
    sent = fill(admission, "greedy")
    for _ in range(100):
        admission.offer(ticket("greedy"), 0.0)
    lone = ticket("modest")
    admission.offer(lone, 0.0)
    for one in sent[:2]:
        admission.settle(one)
    assert lone in admission.take(0.0)[0]


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6))
def test_no_client_gets_more_than_one_turn_ahead_while_all_wait(counts):
    admission = Admission()
    for one in fill(admission, "before"):
        for name, count in enumerate(counts):
            if count > 0:
                admission.offer(ticket(str(name)), 0.0)
                counts[name] -= 1
        admission.settle(one)
    for name, count in enumerate(counts):
        for _ in range(count):
            admission.offer(ticket(str(name)), 0.0)
    sent, _ = admission.take(0.0)
    served = Counter()
    left = Counter(one.client for one in sent)
    for one in sent:
        served[one.client] += 1
        left[one.client] -= 1
        waiting = [client for client in left if left[client]]
        if waiting:
            assert max(served.values()) - min(served[client] for client in waiting) <= 1


def test_urgent_tasks_pass_but_only_so_often():
    admission = Admission()
    sent = fill(admission)
    admission.offer(ticket(priority=3), 0.0)
    for _ in range(2 * BYPASSES):
        admission.offer(ticket(priority=0), 0.0)
    for one in sent:
        admission.settle(one)
    order = [one.priority for one in admission.take(0.0)[0]]
    assert order.index(3) == BYPASSES


def test_a_task_whose_deadline_passed_in_the_queue_is_not_sent():
    admission = Admission()
    (first, *_) = fill(admission)
    late = ticket(due_s=1.0)
    admission.offer(late, 0.0)
    admission.settle(first)
    assert admission.take(2.0) == ([], [late])
    assert late.is_over


def test_what_waits_behind_a_full_window_expires_too():
    admission = Admission()
    fill(admission)
    late, early = ticket(due_s=1.0), ticket(due_s=9.0)
    admission.offer(late, 0.0)
    admission.offer(early, 0.0)
    assert admission.expire(2.0) == [late]
    assert admission.queued == 1


def test_what_cannot_be_made_by_the_measured_rate_is_refused_with_the_reason_and_when_to_return():
    admission = Admission()
    in_flight = fill(admission)
    now_s = 0.0
    for _ in range(200):  # 100 a second, while one always waits
        admission.offer(ticket(), now_s)
        admission.take(now_s)
        now_s += 0.01
        admission.settle(in_flight.pop(0))
        in_flight += admission.take(now_s)[0]
        admission.offer(ticket(), now_s)
    assert admission.lane("digits").rate_per_s == pytest.approx(100, rel=0.1)
    with pytest.raises(Refused, match=r"timeout is 0\.5 s") as refused:
        admission.offer(ticket(due_s=now_s + 0.5), now_s)
    assert not refused.value.is_own
    assert refused.value.retry_after_s > 0.5
    admission.offer(ticket(due_s=now_s + 60), now_s)


def test_nothing_is_refused_by_a_rate_that_was_never_measured():
    admission = Admission()
    sent = fill(admission)
    for one in sent:
        admission.settle(one)
    admission.offer(ticket(due_s=1e-6), 0.0)


def test_the_bounds_name_themselves_and_tell_whose_they_are():
    admission = Admission(queued_per_client=3, queued_per_kind=5)
    fill(admission)
    for _ in range(3):
        admission.offer(ticket("greedy"), 0.0)
    with pytest.raises(Refused, match="3 requests of yours") as own:
        admission.offer(ticket("greedy"), 0.0)
    assert own.value.is_own
    for client in "xy":
        admission.offer(ticket(client), 0.0)
    with pytest.raises(Refused, match="5 requests wait") as everybody:
        admission.offer(ticket("z"), 0.0)
    assert not everybody.value.is_own


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, every ticket ends once and every bound holds."""

    @initialize()
    def begin(self):
        self.admission = Admission(queued_per_client=40, queued_per_kind=90)
        self.now_s = 0.0
        self.tickets = []  # in order: an example must be the same each time it is drawn
        self.states = {}

    def those(self, *states):
        return [one for one in self.tickets if self.states[one] in states]

    def mark(self, tickets, state):
        self.states.update(dict.fromkeys(tickets, state))

    @rule(
        client=st.sampled_from("abc"),
        kind=st.sampled_from(["digits", "minilm"]),
        priority=st.integers(0, 3),
        count=st.integers(1, 60),
        left_s=st.floats(0.01, 5.0),
    )
    def offer(self, client, kind, priority, count, left_s):
        for _ in range(count):
            one = Ticket(kind, b"", client, priority, self.now_s + left_s, self.now_s)
            try:
                self.admission.offer(one, self.now_s)
            except Refused:
                continue
            self.tickets.append(one)
            self.mark([one], "waiting")

    @rule(passed_s=st.floats(0.0, 1.0))
    def take(self, passed_s):
        self.now_s += passed_s
        sent, late = self.admission.take(self.now_s)
        assert all(one.due_s > self.now_s for one in sent)
        assert all(one.due_s <= self.now_s for one in late)
        assert {self.states[one] for one in (*sent, *late)} <= {"waiting"}
        self.mark(sent, "flying")
        self.mark(late, "over")

    @rule()
    def expire(self):
        late = self.admission.expire(self.now_s)
        waiting = self.those("waiting")
        assert set(late) == {one for one in waiting if one.due_s <= self.now_s}
        self.mark(late, "over")

    @rule(count=st.integers(1, 200))
    def settle(self, count):
        for one in self.those("flying")[:count]:
            self.admission.settle(one)
            self.mark([one], "over")

    @rule(count=st.integers(1, 50))
    def put_back(self, count):
        for one in self.those("flying")[:count]:
            self.admission.put_back(one)
            self.mark([one], "waiting")

    @rule(pick=st.integers(0, 10_000))
    def drop(self, pick):
        for one in self.those("waiting", "flying")[pick % 7 :: 97]:
            self.admission.drop(one, self.now_s)
            self.mark([one], "over")

    @rule()
    def end_what_is_over(self):
        for one in self.those("over"):
            self.admission.settle(one)
            self.admission.put_back(one)
            self.admission.drop(one, self.now_s)

    @invariant()
    def counts_agree(self):
        waiting = self.those("waiting")
        assert self.admission.queued == len(waiting)
        assert self.admission.in_flight == len(self.those("flying"))
        assert self.admission.has_waiting == bool(waiting)
        assert all(one.is_over == (self.states[one] == "over") for one in self.tickets)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(stateful_step_count=30)
