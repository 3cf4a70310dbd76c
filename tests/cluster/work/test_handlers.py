"""Each payload has one outcome, for any handler, and the worker lives on."""

import pytest

from cluster.protocol.worker_session import HeldLease
from cluster.vocabulary import actions as do
from cluster.vocabulary.errors import TaskFailed
from cluster.vocabulary.limits import Limits
from cluster.work.handlers import Handlers
from cluster.work.lease_runner import LeaseRunner


def outcomes_of(handler, payloads, cancelled=(), most_bytes=1000):
    """What a lease of these payloads ends in: outcomes, and (position, error, message) of each
    failure.
    """
    handlers = Handlers()
    handlers.register_batch("kind")(handler)
    lease = HeldLease(do.Assign("w", 1, 1, "kind", 10, payloads))
    lease.cancelled.update(cancelled)
    runner = LeaseRunner(lease, handlers, len(payloads), Limits(result_bytes=most_bytes))
    assert not runner.go_on()
    outcomes, failures, _, _ = runner.collect()
    return outcomes, [(f.position, f.error, f.message) for f in failures]


def test_a_registry_offers_what_was_registered():
    handlers, more = Handlers(), Handlers()

    @handlers.register("upper")
    def upper(payload):
        return payload.upper()

    @more.register_batch("reverse")
    def reverse(payloads):
        return [payload[::-1] for payload in payloads]

    handlers.update(more)
    handlers.update({"mapped": reverse})
    assert upper(b"a") == b"A"
    assert handlers.kinds() == ["mapped", "reverse", "upper"]
    assert more.kinds() == ["reverse"]
    assert handlers["upper"]([b"a", b"b"]) == [b"A", b"B"]
    assert handlers["reverse"]([b"ab"]) == handlers["mapped"]([b"ab"]) == [b"ba"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit("no")])
def test_a_handler_that_raises_fails_that_payload_alone(error):
    handlers = Handlers()

    @handlers.register("picky")
    def picky(payload):
        if payload == b"bad":
            raise error
        return payload

    found = outcomes_of(handlers["picky"], [b"a", b"bad", b"c"])
    assert found == ([b"a", b"", b"c"], [(11, type(error).__name__, "no")])


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit("no")])
def test_a_batch_handler_that_raises_fails_every_payload(error):
    def broken(payloads):
        raise error

    name = type(error).__name__
    assert outcomes_of(broken, [b"a", b"b"]) == ([b"", b""], [(10, name, "no"), (11, name, "no")])


@pytest.mark.parametrize("column", [None, 7, (letter for letter in [b"A"]), [b"A"]])
def test_what_is_no_column_of_the_right_length_fails_every_payload(column):
    outcomes, failures = outcomes_of(lambda payloads: column, [b"a", b"b"])
    assert outcomes == [b"", b""]
    assert [failure[:2] for failure in failures] == [(10, "TypeError"), (11, "TypeError")]
    assert not isinstance(column, list) or failures[0][2].endswith("1 outcomes for 2 payloads")


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ("text", "TypeError", "the handler gave str, not bytes"),
        (None, "TypeError", "the handler gave NoneType, not bytes"),
        (KeyError("b"), "KeyError", "'b'"),
    ],
)
def test_an_outcome_that_is_not_like_bytes_fails_its_payload(wrong, error, words):
    column = [bytearray(b"A"), wrong, memoryview(b"C")]
    outcomes, failures = outcomes_of(lambda payloads: column, [b"a", b"b", b"c"])
    assert (outcomes, failures) == ([b"A", b"", b"C"], [(11, error, words)])
    assert {type(outcome) for outcome in outcomes} == {bytes}


def test_a_result_too_large_to_be_sent_is_a_failure_that_says_so():
    outcomes, failures = outcomes_of(lambda payloads: [b"x" * 9, b"y" * 8], [b"a", b"b"], (), 8)
    assert outcomes == [b"", b"y" * 8]
    assert failures == [(10, "ValueError", "the result has 9 bytes; at most 8 can be sent")]


def test_what_was_cancelled_before_it_was_started_is_not_run():
    ran = []

    def record(payloads):
        ran.extend(payloads)
        return payloads

    outcomes, failures = outcomes_of(record, [b"a", b"b", b"c"], cancelled=[11])
    assert ran == [b"a", b"c"]
    assert outcomes == [b"a", b"", b"c"]
    assert [failure[:2] for failure in failures] == [(11, "CancelledError")]
    assert outcomes_of(record, [b"d"], cancelled=[10])[0] == [b""]
    assert ran == [b"a", b"c"]


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("caf\udce9"), "caf?"),
        (Mute(), "its message can't be had: RuntimeError"),
        (ValueError("x" * 5000), "x" * 2000),
        (SystemExit(3), "3"),
        (type("E" * 300, (Exception,), {})("long"), "long"),
    ],
)
def test_any_exception_gives_words_that_can_travel_and_the_worker_lives_on(serve, error, message):
    handlers = Handlers()

    @handlers.register("raise")
    def fail(payload):
        raise error

    handlers.register("echo")(lambda payload: payload)
    client = serve(handlers).client
    failure = client.submit("raise").exception(timeout=10)
    assert isinstance(failure, TaskFailed)
    assert str(failure) == f"{type(error).__name__[:100]}: {message}"
    assert client.submit("echo", b"x").result(timeout=10) == b"x"
