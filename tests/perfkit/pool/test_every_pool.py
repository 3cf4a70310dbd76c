"""What all pools promise: strict releases, an end, and no object in two hands."""

import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from perfkit.pool import (
    BufferPool,
    ConnectionPool,
    DoubleRelease,
    ForeignRelease,
    MessagePool,
    NotReturned,
    PoolClosed,
)


def connection(key: str) -> Any:
    return SimpleNamespace(key=key, close=lambda: None)


Make = Callable[..., Any]
#: what makes a pool, and what it is asked for
BUFFERS = (partial(BufferPool, 8 << 10), 1_000)
CONNECTIONS = (partial(ConnectionPool, connection), "a")
MESSAGES = (partial(MessagePool, 3),)

each_pool = pytest.mark.parametrize("kind", [BUFFERS, CONNECTIONS, MESSAGES])


@each_pool
def test_a_closed_pool_lends_nothing_and_keeps_nothing(kind: tuple[Make, Any]) -> None:
    make, *wanted = kind
    pool = make()
    late, idle = pool.acquire(*wanted), pool.acquire(*wanted)
    pool.release(idle)
    pool.close()
    pool.close()
    with pytest.raises(PoolClosed, match=f"this {type(pool).__name__} is closed"):
        pool.acquire(*wanted)
    pool.release(late)
    assert (pool.stats.idle, pool.stats.in_use, pool.stats.dropped) == (0, 0, 1)


@each_pool
def test_debug_mode_complains_at_the_end_of_objects_still_lent(kind: tuple[Make, Any]) -> None:
    make, *wanted = kind
    pool = make(debug=True)
    pool.acquire(*wanted)
    with pytest.raises(KeyError), pool:
        raise KeyError("which is not hidden by the object still lent")
    with pytest.raises(NotReturned, match=r"1 of this .*Pool were not released, such as"):
        pool.close()


@pytest.mark.parametrize("debug", [False, True])
@each_pool
def test_a_wrong_release_is_an_error_and_changes_nothing(
    kind: tuple[Make, Any], debug: bool
) -> None:
    make, *wanted = kind
    if kind is MESSAGES and not debug:
        return  # they are checked in debug mode only
    pool, other = make(debug=debug), make(debug=debug)
    one = pool.acquire(*wanted)
    with pytest.raises(ForeignRelease, match=r"has not lent .*; release the very object"):
        pool.release(other.acquire(*wanted))
    assert (pool.stats.idle, pool.stats.in_use) == (0, 1)
    pool.release(one)
    with pytest.raises(DoubleRelease, match="was released before"):
        pool.release(one)
    assert (pool.stats.idle, pool.stats.in_use, pool.stats.dropped) == (1, 0, 0)


@pytest.mark.parametrize(
    ("make", "bound"),
    [
        (lambda: BufferPool(0), "max_bytes"),
        (lambda: ConnectionPool(connection, size=0), "size"),
        (lambda: ConnectionPool(connection, idle_s=0.0), "idle_s"),
        (lambda: MessagePool(0), "size"),
    ],
)
def test_a_pool_without_room_or_time_is_refused(make: Make, bound: str) -> None:
    with pytest.raises(ValueError, match=f"{bound} must be above 0, and is 0"):
        make()


def fill(buffer: memoryview, mark: bytes) -> bool:
    """Write into a buffer; whether it stays so."""
    buffer[:] = mark * len(buffer)
    return buffer == mark * len(buffer)


def name(thing: Any, mark: bytes) -> bool:
    """Name an object; whether it stays so."""
    thing.kind = mark
    return bool(thing.kind == mark)


@pytest.mark.parametrize(("kind", "use"), [(BUFFERS, fill), (CONNECTIONS, name), (MESSAGES, name)])
def test_threads_never_hold_the_same_object_and_every_use_is_counted(
    kind: tuple[Make, Any], use: Callable[[Any, bytes], bool]
) -> None:
    make, *wanted = kind
    pool, held_alone, uses = make(), [], 300
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(uses):
            with pool.borrow(*wanted) as thing:
                held_alone.append(use(thing, b"%d" % number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = pool.stats
    assert held_alone == [True] * 4 * uses
    assert stats.hits + stats.misses == 4 * uses
    assert (stats.in_use, stats.high_water <= 4) == (0, True)
    assert stats.misses == stats.idle + stats.dropped
