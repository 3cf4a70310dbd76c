"""A lease is worked through in order, and what is done can be had while a handler still runs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.protocol.held_lease import HeldLease
from cluster.vocabulary import actions as do
from cluster.vocabulary.limits import Limits
from cluster.work.handlers import Handlers
from cluster.work.lease_runner import MAX_STEP, LeaseRunner

TIMEOUT_S = 10


def runner(handler, payloads, step=1, single=True, views=False, **limits):
    """A runner on a lease of these payloads, from position 5 on."""
    handlers = Handlers()
    register = handlers.register if single else handlers.register_batch
    register("kind", views=views)(handler)
    lease = HeldLease(do.Assign("w", 1, 1, "kind", 5, payloads))
    return LeaseRunner(lease, handlers, step, Limits(**limits))


def test_single_tasks_are_claimed_one_by_one_so_that_all_behind_a_slow_one_can_be_given_back():
    seen = []

    def handler(payload):
        seen.append(payload)
        if payload == b"b":
            work.lease.give_back()
        return payload

    work = runner(handler, [b"a", b"b", b"c", b"d"], step=8)
    assert not work.go_on()
    assert seen == [b"a", b"b"]
    assert work.collect().outcomes == [b"a", b"b"]
    assert (work.lease.next, work.lease.stop) == (7, 7)


def test_a_batch_handler_is_given_a_step_at_once_and_steps_grow_while_tasks_are_quick():
    seen = []

    def handler(payloads):
        seen.append(len(payloads))
        return payloads

    payloads = [b"%d" % n for n in range(5000)]
    work = runner(handler, payloads, step=2, single=False)
    while work.go_on():
        assert 1 <= work.step <= MAX_STEP
    assert seen[0] == 2
    assert max(seen) > 2
    assert work.collect().outcomes == payloads


def test_what_is_done_can_be_collected_while_a_handler_runs():
    begun, go_on = threading.Event(), threading.Event()

    def handler(payload):
        if payload == b"slow":
            begun.set()
            assert go_on.wait(TIMEOUT_S)
        if payload == b"bad":
            raise ValueError("bad")
        return payload

    work = runner(handler, [b"a", b"bad", b"slow", b"d"], step=8)
    thread = threading.Thread(target=work.go_on)
    thread.start()
    assert begun.wait(TIMEOUT_S)
    first = work.collect()
    assert first.outcomes == [b"a", b""]
    assert [failure.position for failure in first.failures] == [6]
    work.lease.reported += len(first.outcomes)
    assert work.collect().outcomes == []
    go_on.set()
    thread.join(TIMEOUT_S)
    rest = work.collect()
    assert (rest.outcomes, rest.failures) == ([b"slow", b"d"], [])
    assert first.ended_at <= rest.started_at <= rest.ended_at


def test_every_task_is_either_run_or_given_back_however_threads_race():
    with ThreadPoolExecutor(1) as pool:
        for _ in range(50):
            payloads = [b"%d" % n for n in range(400)]
            work = runner(lambda payload: payload, payloads)
            giving = pool.submit(work.lease.give_back)
            while work.go_on():
                pass
            giving.result(TIMEOUT_S)
            outcomes = work.collect().outcomes
            assert work.lease.next == work.lease.stop == 5 + len(outcomes)
            assert outcomes == payloads[: len(outcomes)]


@pytest.mark.parametrize("single", [True, False])
def test_a_large_result_is_kept_where_it_lies_and_ends_the_run(single):
    large = b"x" * 11
    results = {b"0": b"small", b"1": memoryview(large), b"2": b"", b"3": b""}

    def answer(payloads):
        return results[payloads] if single else [results[payload] for payload in payloads]

    work = runner(answer, [*results], step=2, single=single, stream_bytes=10)
    while work.go_on():
        pass
    assert work.lease.pending
    assert work.collect().outcomes == [b"small", b""]
    assert work.lease.stored.results == {6: large}
    assert work.lease.stored.results[6].obj is large


def test_a_result_over_every_bound_is_a_failure():
    work = runner(lambda payload: payload * 20, [b"x"], stream_bytes=10, result_bytes=19)
    work.go_on()
    assert "has 20 bytes; at most 19" in work.collect().failures[0].message
    assert work.lease.stored is None


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(("views", "given"), [(True, memoryview), (False, bytes)])
def test_a_handler_is_given_a_buffer_as_it_asked_for_it(single, views, given):
    seen = []

    def note(payloads):
        seen.extend([payloads] if single else payloads)
        return b"" if single else [b""] * len(payloads)

    arrived = bytearray(b"large")
    work = runner(note, [b"small", arrived], step=2, single=single, views=views)
    while work.go_on():
        pass
    assert seen == [b"small", b"large"]
    assert [type(payload) for payload in seen] == [bytes, given]
    assert not views or (seen[1].readonly and seen[1].obj is arrived)
