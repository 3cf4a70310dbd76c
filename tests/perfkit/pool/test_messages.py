"""Messages that are used again: what is counted and kept, and what debug mode refuses."""

from collections.abc import Callable

import msgspec
import pytest

from perfkit.pool import (
    Message,
    MessagePool,
    UseAfterRelease,
)


def test_a_released_message_is_lent_again_as_good_as_new() -> None:
    with MessagePool(size=4) as pool:
        message = pool.acquire()
        message.kind, message.payload = "echo", b"x" * 1_000
        message.headers["attempt"] = 2
        pool.release(message)
        again = pool.acquire()
        assert again is message
        assert again == Message()
        assert pool.acquire() is not again


def test_loans_are_counted_and_idle_messages_bounded() -> None:
    pool = MessagePool(size=2)
    assert pool.stats.hit_rate is None
    loans = [pool.acquire() for _ in range(3)]
    assert (pool.stats.misses, pool.stats.in_use, pool.stats.hit_rate) == (3, 3, 0.0)
    for message in loans:
        pool.release(message)
    stats = pool.stats
    assert (stats.idle, stats.dropped, stats.in_use, stats.high_water) == (2, 1, 0, 3)
    pool.acquire()
    assert (pool.stats.hits, pool.stats.hit_rate, pool.stats.idle) == (1, 0.25, 1)
    assert (stats.hits, stats.idle_bytes) == (0, None), "stats are a copy"


def test_a_borrowed_message_returns_after_an_error() -> None:
    pool = MessagePool(size=1)
    with pytest.raises(KeyError), pool.borrow() as message:
        raise KeyError(message.kind)
    assert (pool.stats.in_use, pool.stats.idle) == (0, 1)


# Debug mode


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.kind,
        lambda m: m.headers,
        lambda m: setattr(m, "kind", "late"),
        lambda m: m.clear(),
    ],
)
def test_debug_mode_refuses_a_use_after_the_release(use: Callable[[Message], object]) -> None:
    pool = MessagePool(2, debug=True)
    message = pool.acquire()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message))["kind"] == ""
    pool.release(message)
    with pytest.raises(UseAfterRelease, match="this message was released"):
        use(message)
    with pytest.raises(TypeError, match="unsupported"):
        msgspec.msgpack.encode(message)
    assert pool.acquire() is not message
    assert (pool.stats.hits, pool.stats.misses) == (1, 1)
