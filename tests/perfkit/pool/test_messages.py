"""Messages that are used again: what is counted and kept, and what debug mode does not let pass."""

import threading
from collections.abc import Callable
from typing import Any

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


class Draft(dict[str, int]):
    """A dict whose class can change."""


class Slotted:
    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[int] = []

    def clear(self) -> None:
        self.parts.clear()


class Envelope(msgspec.Struct, array_like=True):
    version: int = 2
    messages: list[int] = []

    def clear(self) -> None:
        self.messages.clear()


def test_a_released_message_is_handed_out_again_as_good_as_new() -> None:
    with MessagePool(size=4) as pool:
        message = pool.acquire()
        message.kind, message.payload = "echo", b"x" * 1_000
        message.headers["attempt"] = 2
        pool.release(message)
        again = pool.acquire()
        assert again is message
        assert again == Message()
        assert pool.acquire() is not again


def test_what_was_asked_for_and_what_is_there_is_counted() -> None:
    pool = MessagePool(size=2)
    first, second, third = (pool.acquire() for _ in range(3))
    assert (pool.stats.misses, pool.stats.in_use, pool.stats.hit_rate) == (3, 3, 0.0)
    for message in (first, second, third):
        pool.release(message)
    stats = pool.stats
    assert (stats.idle, stats.dropped, stats.in_use, stats.high_water) == (2, 1, 0, 3)
    pool.acquire()
    assert (pool.stats.hits, pool.stats.hit_rate) == (1, 0.25)
    assert pool.stats.idle_bytes == stats.idle_bytes // 2  # type: ignore[operator]
    assert stats.in_use_bytes is None
    assert MessagePool(size=1).stats.hit_rate is None


def test_messages_made_beforehand_are_hits() -> None:
    pool = MessagePool(size=5, factory=Envelope)
    pool.preallocate(3)
    assert (pool.stats.idle, pool.stats.misses) == (3, 0)
    pool.preallocate()
    pool.preallocate(50)
    assert pool.stats.idle == 5
    with pool.borrow() as message:
        assert message == Envelope()
    assert (pool.stats.hits, pool.stats.misses) == (1, 0)


def test_a_message_that_has_grown_over_its_share_is_not_kept() -> None:
    class Row(list[int]):
        def clear(self) -> None:
            """Keeps what it holds."""

    pool = MessagePool(2, Row, max_bytes=2_000)
    small, large = pool.acquire(), pool.acquire()
    large.extend(range(1_000))
    pool.release(large)
    assert (pool.stats.idle, pool.stats.dropped) == (0, 1)
    pool.release(small)
    assert pool.stats.idle == 1
    assert pool.stats.idle_bytes is not None
    assert pool.stats.idle_bytes <= 2_000


def test_a_borrowed_message_returns_whatever_happens() -> None:
    pool = MessagePool(size=1)
    with pytest.raises(KeyError), pool.borrow() as message:
        raise KeyError(message.kind)
    assert (pool.stats.in_use, pool.stats.idle) == (0, 1)


def test_a_factory_that_fails_lends_nothing() -> None:
    def fail() -> Message:
        raise OSError("no")

    pool = MessagePool(1, fail)
    with pytest.raises(OSError, match="no"):
        pool.acquire()
    assert (pool.stats.in_use, pool.stats.misses) == (0, 0)


@pytest.mark.parametrize("debug", [False, True])
def test_a_closed_pool_hands_out_nothing_and_keeps_nothing(debug: bool) -> None:
    pool = MessagePool(size=2, debug=debug)
    pool.preallocate()
    pool.close()
    pool.close()
    with pytest.raises(PoolClosed, match="this MessagePool is closed"):
        pool.acquire()
    with pytest.raises(PoolClosed):
        pool.preallocate()
    assert pool.stats.idle == 0


def test_what_is_released_after_the_end_is_not_kept() -> None:
    pool = MessagePool(size=2)
    message = pool.acquire()
    pool.close()
    pool.release(message)
    assert (pool.stats.in_use, pool.stats.idle, pool.stats.dropped) == (0, 0, 1)


@pytest.mark.parametrize("bounds", [{"size": 0}, {"size": 1, "max_bytes": 0}])
def test_a_pool_without_room_is_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be above 0, and is 0"):
        MessagePool(**bounds)


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


def _set(message: Any) -> None:
    message.kind = "late"


@pytest.mark.parametrize(
    ("factory", "use"),
    [
        (Message, lambda m: m.kind),
        (Message, lambda m: m.headers),
        (Message, _set),
        (Message, lambda m: delattr(m, "kind")),
        (Message, lambda m: m == Message()),
        (Message, lambda m: m.clear()),
        (Envelope, lambda m: m.messages.append(1)),
        (Slotted, lambda m: m.parts),
        (Draft, lambda m: m["a"]),
        (Draft, lambda m: m.update(a=1)),
        (Draft, lambda m: m.__setitem__("a", 1)),
        (Draft, len),
        (Draft, list),
        (Draft, lambda m: "a" in m),
    ],
)
def test_a_message_cannot_be_used_after_its_release(
    factory: Callable[[], Any], use: Callable[[Any], object]
) -> None:
    pool = MessagePool(2, factory, debug=True)
    message = pool.acquire()
    pool.release(message)
    with pytest.raises(UseAfterRelease, match=f"{factory.__name__} was released"):
        use(message)
    assert repr(message) == f"<released {factory.__name__}>"
    assert pool.acquire() is not message
    assert (pool.stats.hits, pool.stats.misses) == (1, 1)


def test_a_live_message_of_debug_mode_is_the_real_one() -> None:
    pool = MessagePool(1, Envelope, debug=True)
    for _ in range(2):
        with pool.borrow() as message:
            message.messages.append(7)
            assert type(message) is Envelope
            assert msgspec.msgpack.encode(message) == msgspec.msgpack.encode([2, [7]])


def test_a_released_message_cannot_be_encoded() -> None:
    pool = MessagePool(size=1, debug=True)
    message = pool.acquire()
    pool.release(message)
    with pytest.raises(TypeError, match="Encoding objects of type Released is unsupported"):
        msgspec.msgpack.encode(message)


def test_a_second_release_is_an_error() -> None:
    pool = MessagePool(size=2, debug=True)
    message = pool.acquire()
    pool.release(message)
    with pytest.raises(DoubleRelease, match="<released Message> was released before"):
        pool.release(message)
    assert (pool.stats.idle, pool.stats.in_use) == (1, 0)


def test_a_foreign_release_is_an_error_and_leaves_the_foreigner_alone() -> None:
    pool, stranger = MessagePool(size=2, debug=True), Message("mine")
    with pytest.raises(ForeignRelease, match=r"has not lent Message\(kind='mine'"):
        pool.release(stranger)
    other = MessagePool(size=2, debug=True)
    with pytest.raises(ForeignRelease):
        pool.release(other.acquire())
    assert stranger.kind == "mine"
    assert (pool.stats.idle, pool.stats.dropped) == (0, 0)


def test_what_never_came_back_is_told_with_its_place() -> None:
    pool = MessagePool(size=2, debug=True)
    pool.acquire()
    with pytest.raises(NotReturned, match=r"1 of this MessagePool .* at test_messages.py:\d+"):
        pool.close()


def test_the_error_inside_is_not_hidden_by_what_it_left_out() -> None:
    with pytest.raises(KeyError), MessagePool(size=2, debug=True) as pool:
        raise KeyError(pool.acquire().kind)
    with pytest.raises(NotReturned), MessagePool(size=2, debug=True) as pool:
        pool.acquire()


def test_messages_that_cannot_be_watched_are_refused_in_debug_mode_only() -> None:
    with MessagePool(1, dict) as pool, pool.borrow() as message:
        message["a"] = 1
    with pytest.raises(ValueError, match="cannot watch a dict, whose class is fixed"):
        MessagePool(1, dict, debug=True)
