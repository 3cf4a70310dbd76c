"""Messages that are used again: what is counted and kept, and what debug mode refuses."""

import threading
from collections.abc import Callable

import msgspec
import pytest

from perfkit.pool import (
    DoubleRelease,
    ForeignRelease,
    Message,
    MessagePool,
    NotReturned,
    PoolClosed,
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


@pytest.mark.parametrize("debug", [False, True])
def test_a_closed_pool_lends_nothing_and_keeps_nothing(debug: bool) -> None:
    pool = MessagePool(size=2, debug=debug)
    with pool.borrow():
        late = pool.acquire()
    if debug:
        pool.release(late)
    pool.close()
    pool.close()
    with pytest.raises(PoolClosed, match="this MessagePool is closed"):
        pool.acquire()
    if not debug:
        pool.release(late)
    assert (pool.stats.idle, pool.stats.in_use) == (0, 0)


def test_a_pool_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be above 0, and is 0"):
        MessagePool(0)


def test_threads_never_hold_the_same_message_and_every_use_is_counted() -> None:
    pool, shared, uses = MessagePool(size=3), [], 500
    barrier = threading.Barrier(4)

    def use(name: str) -> None:
        barrier.wait()
        for _ in range(uses):
            with pool.borrow() as message:
                message.kind = name
                message.headers[name] = 1
                if message.kind != name or len(message.headers) != 1:
                    shared.append(message)

    threads = [threading.Thread(target=use, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = pool.stats
    assert shared == []
    assert stats.hits + stats.misses == 4 * uses
    assert (stats.in_use, stats.high_water <= 4, stats.idle <= 3) == (0, True, True)
    assert stats.misses == stats.idle + stats.dropped


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


def test_debug_mode_refuses_a_wrong_release() -> None:
    pool, stranger = MessagePool(size=2, debug=True), Message("mine")
    message = pool.acquire()
    pool.release(message)
    with pytest.raises(DoubleRelease, match="was released before"):
        pool.release(message)
    for foreign in (stranger, MessagePool(size=2, debug=True).acquire()):
        with pytest.raises(ForeignRelease, match=r"has not lent Message\(kind="):
            pool.release(foreign)
    assert stranger.kind == "mine"
    assert (pool.stats.idle, pool.stats.in_use, pool.stats.dropped) == (1, 0, 0)


def test_debug_mode_complains_of_a_message_not_returned() -> None:
    pool = MessagePool(size=2, debug=True)
    pool.acquire()
    with pytest.raises(NotReturned, match=r"1 of this MessagePool were not released, such as"):
        pool.close()


def test_an_error_inside_the_block_is_not_hidden_by_the_messages_it_left_out() -> None:
    with pytest.raises(KeyError), MessagePool(size=2, debug=True) as pool:
        raise KeyError(pool.acquire().kind)
    with pytest.raises(NotReturned), MessagePool(size=2, debug=True) as pool:
        pool.acquire()
