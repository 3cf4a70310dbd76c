"""Whatever a handler does, each payload has one outcome and the worker lives on."""

import asyncio

import pytest

from cluster.protocol.held_lease import HeldLease
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


class PanicException(BaseException):
    """What a Rust extension raises."""


def panic(*_):
    raise PanicException("panicked")


EVERY_KIND = [
    ValueError("no"),
    SystemExit("no"),
    KeyboardInterrupt("no"),
    GeneratorExit("no"),
    asyncio.CancelledError("no"),
    PanicException("no"),
    StopIteration("no"),
]


@pytest.mark.parametrize("error", EVERY_KIND, ids=repr)
def test_a_handler_that_raises_fails_that_payload_alone(error):
    handlers = Handlers()

    @handlers.register("picky")
    def picky(payload):
        if payload == b"bad":
            raise error
        return payload

    found = outcomes_of(handlers["picky"], [b"a", b"bad", b"c"])
    assert found == ([b"a", b"", b"c"], [(11, type(error).__name__, "no")])


@pytest.mark.parametrize("error", EVERY_KIND, ids=repr)
def test_a_batch_handler_that_raises_fails_every_payload(error):
    def broken(payloads):
        raise error

    name = type(error).__name__
    assert outcomes_of(broken, [b"a", b"b"]) == ([b"", b""], [(10, name, "no"), (11, name, "no")])


def test_a_column_of_the_wrong_length_fails_every_payload():
    message = "the handler gave 1 outcome for 2 payloads"
    assert outcomes_of(lambda payloads: [b"A"], [b"a", b"b"]) == (
        [b"", b""],
        [(10, "TypeError", message), (11, "TypeError", message)],
    )


@pytest.mark.parametrize(
    "column",
    [
        None,
        7,
        (letter for letter in [b"A"]),
        {b"A"},
        {b"a": b"A"},
        {b"a": b"A"}.values(),
        "A",
        b"A",
        memoryview(b"A"),
    ],
    ids=lambda column: type(column).__name__,
)
def test_what_is_no_sequence_in_order_fails_every_payload(column):
    message = f"a batch handler returns a list of outcomes in order, not {type(column).__name__}"
    assert outcomes_of(lambda payloads: column, [b"a"]) == ([b""], [(10, "TypeError", message)])


class Lazy:
    """A sequence that is computed when it is read, and does not keep its word."""

    def __init__(self, read, length=2):
        self.read, self.length = read, length

    def __len__(self):
        return self.length

    def __getitem__(self, at):
        return self.read(at)


def test_a_lazy_sequence_is_read_once_and_no_further_than_it_may():
    assert outcomes_of(lambda payloads: Lazy([b"A", b"B"].__getitem__), [b"a", b"b"]) == (
        [b"A", b"B"],
        [],
    )
    failed = outcomes_of(lambda payloads: Lazy(panic), [b"a", b"b"])[1]
    assert failed == [(10, "PanicException", "panicked"), (11, "PanicException", "panicked")]
    endless = outcomes_of(lambda payloads: Lazy(lambda at: b"A"), [b"a", b"b"])[1]
    assert endless[0][2] == "the handler gave 3 outcomes for 2 payloads"
    uncountable = outcomes_of(lambda payloads: Lazy([b"A"].__getitem__, -1), [b"a"])[1]
    assert uncountable[0][1] == "ValueError"


@pytest.mark.parametrize(("wrong", "name"), [("text", "str"), (None, "NoneType"), (7, "int")])
def test_an_outcome_that_is_not_bytes_says_what_it_is(wrong, name):
    assert outcomes_of(lambda payloads: [wrong], [b"a"]) == (
        [b""],
        [(10, "TypeError", f"the handler gave {name}, not bytes")],
    )


@pytest.mark.parametrize("like", [bytearray, memoryview])
def test_what_is_like_bytes_becomes_bytes(like):
    ((outcome,), failures) = outcomes_of(lambda payloads: [like(b"ab")], [b"a"])
    assert (type(outcome), outcome, failures) == (bytes, b"ab", [])


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


class Panicking(bytearray):
    __len__ = __bytes__ = __buffer__ = panic


class Liar:
    __class__ = property(panic)


def released():
    view = memoryview(b"x")
    view.release()
    return view


def objects():
    return memoryview(pytest.importorskip("numpy").array([[], {}], dtype=object))


@pytest.mark.parametrize(
    ("make", "error"), [(released, "ValueError"), (objects, "TypeError"), (Liar, "PanicException")]
)
def test_a_result_that_cannot_be_read_fails_its_task_alone(make, error):
    outcomes, failures = outcomes_of(lambda payloads: [b"A", make(), b"C"], [b""] * 3)
    assert outcomes == [b"A", b"", b"C"]
    assert [failure[:2] for failure in failures] == [(11, error)]


def test_a_result_is_read_from_its_buffer_and_not_by_its_methods():
    given = [Panicking(b"ab"), memoryview(b"abcd").cast("H")[::-1]]
    assert outcomes_of(lambda payloads: given, [b""] * 2) == ([b"ab", b"cdab"], [])


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


class Silent(Exception):
    __str__ = panic


class Text(str):
    __getitem__ = encode = panic


class Shouting(Exception):
    def __str__(self):
        return Text("caf\udce9")


class Nameless(type):
    __name__ = property(panic)


class Meta(Exception, metaclass=Nameless):
    pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("caf\udce9"), "caf?"),
        (Mute(), "its message can't be had: RuntimeError"),
        (ValueError("x" * 5000), "x" * 2000),
        (SystemExit(3), "3"),
        (type("E" * 300, (Exception,), {})("long"), "long"),
        (type("", (Exception,), {})("of no name"), "of no name"),
        (Silent(), "its message can't be had: PanicException"),
        (Meta("its class has no name"), "its class has no name"),
        (Shouting(), "caf?"),
        (PanicException("\x00\x1b[31m"), r"\u0000\u001b[31m"),
    ],
    ids=lambda value: ascii(value)[:30] if isinstance(value, str) else "",
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
    name = type.__dict__["__name__"].__get__(type(error))[:100] or "Unnamed"
    assert str(failure) == f"{name}: {message}"
    assert client.submit("echo", b"x").result(timeout=10) == b"x"
