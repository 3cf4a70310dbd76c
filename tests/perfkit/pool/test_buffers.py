"""Buffers by size class: never too small, over the bound, or lent while still in use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from perfkit.pool import (
    BufferPool,
    ForeignRelease,
    PoolExhausted,
    StillInUse,
    size_class,
)
from perfkit.pool.buffers import SMALLEST_BYTES

KIB = 1 << 10


@given(st.integers(0, 1 << 40))
def test_a_class_is_never_too_small_and_wastes_a_fifth_at_most(size_bytes: int) -> None:
    class_bytes = size_class(size_bytes)
    assert class_bytes >= max(size_bytes, SMALLEST_BYTES)
    assert size_bytes <= SMALLEST_BYTES or class_bytes - size_bytes <= class_bytes / 5
    assert size_class(class_bytes) == class_bytes


def test_the_classes_are_four_for_each_doubling() -> None:
    found = sorted({size_class(size) for size in range(1_025)})
    assert found == [256, 320, 384, 448, 512, 640, 768, 896, 1_024]


def test_a_released_buffer_serves_any_size_of_its_class() -> None:
    pool = BufferPool(KIB)
    buffer = pool.acquire(300)
    buffer[:] = b"a" * 300
    pool.release(buffer)
    again = pool.acquire(310)
    assert (len(again), again.readonly, bytes(again[:300])) == (310, False, b"a" * 300)
    assert (pool.stats.hits, pool.stats.misses) == (1, 1)
    pool.release(again)
    assert len(pool.acquire(321)) == 321
    assert (pool.stats.hits, pool.stats.misses) == (1, 2)


def test_at_the_bound_a_request_is_refused_with_the_reason() -> None:
    pool = BufferPool(2 * KIB)
    held = pool.acquire(KIB)
    with pytest.raises(PoolExhausted, match=r"1,280 bytes \(asked for: 1,100\): 1,024 of 2,048"):
        pool.acquire(1_100)
    with pytest.raises(PoolExhausted, match="no room for a buffer of 4,096 bytes"):
        pool.acquire(4 * KIB)
    assert (pool.stats.refused, pool.stats.in_use) == (2, 1)
    pool.release(held)
    assert len(pool.acquire(1_100)) == 1_100


def test_idle_buffers_of_the_least_recently_used_class_are_evicted_first() -> None:
    pool = BufferPool(1_024 + 512 + 256)
    for size_bytes in (256, 512, 1_024):
        pool.release(pool.acquire(size_bytes))
    pool.release(pool.acquire(256))
    pool.release(pool.acquire(320))
    stats = pool.stats
    assert (stats.evicted, stats.idle, stats.idle_bytes) == (1, 3, 256 + 1_024 + 320)
    hits = stats.hits
    for size_bytes in (256, 320, 1_024):
        pool.acquire(size_bytes)
    assert pool.stats.hits == hits + 3


def test_a_borrowed_buffer_returns_after_an_error() -> None:
    pool = BufferPool(KIB)
    with pytest.raises(KeyError), pool.borrow(10) as buffer:
        raise KeyError(len(buffer))
    assert (pool.stats.in_use, pool.stats.idle) == (0, 1)
    with pytest.raises(ValueError, match="released memoryview"):
        buffer[0] = 1
    with (again := pool.acquire(10)):
        again[0] = 1
    pool.release(again)  # although its user has released the view
    assert (pool.stats.in_use, pool.stats.idle) == (0, 1)


def test_another_view_of_a_lent_buffer_cannot_be_released() -> None:
    pool = BufferPool(KIB)
    buffer = pool.acquire(100)
    with pytest.raises(ForeignRelease, match=r"has not lent <memory at .*>"):
        pool.release(buffer[:100])
    assert (pool.stats.in_use, pool.stats.idle) == (1, 0)


@pytest.mark.parametrize("look", [lambda view: view[2:4], memoryview])
def test_memory_that_is_still_in_use_is_not_lent_again(look) -> None:  # type: ignore[no-untyped-def]
    pool, strict = BufferPool(KIB), BufferPool(KIB, debug=True)
    buffer = pool.acquire(100)
    seen = look(buffer)
    pool.release(buffer)
    assert (pool.stats.dropped, pool.stats.idle, pool.stats.in_use_bytes) == (1, 0, 0)
    other = pool.acquire(100)
    other[:] = b"z" * 100
    assert b"z" not in bytes(seen)

    watched = strict.acquire(100)
    still = look(watched)
    with pytest.raises(StillInUse, match="a buffer of 256 bytes was released while"):
        strict.release(watched)
    assert (len(still) > 0, strict.stats.idle, strict.stats.in_use) == (True, 0, 0)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="a buffer cannot have -1 bytes"):
        BufferPool(KIB).acquire(-1)


class AnyUse(RuleBasedStateMachine):
    """In any order of acquires and releases, sizes hold and the counts add up."""

    MAX_BYTES = 8 * KIB

    def __init__(self) -> None:
        super().__init__()
        self.pool = BufferPool(self.MAX_BYTES, debug=True)
        self.held: list[tuple[memoryview, bytes]] = []

    @rule(size_bytes=st.integers(0, 5_000), mark=st.binary(min_size=1, max_size=1))
    def acquire(self, size_bytes: int, mark: bytes) -> None:
        room = self.MAX_BYTES - sum(size_class(len(content)) for _, content in self.held)
        if size_class(size_bytes) > room:
            with pytest.raises(PoolExhausted):
                self.pool.acquire(size_bytes)
            return
        buffer = self.pool.acquire(size_bytes)
        buffer[:] = mark * size_bytes
        self.held.append((buffer, mark * size_bytes))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        buffer, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.pool.release(buffer)

    @invariant()
    def holds(self) -> None:
        assert all(buffer == content for buffer, content in self.held)
        stats = self.pool.stats
        assert stats.idle_bytes is not None
        assert stats.in_use_bytes == sum(size_class(len(content)) for _, content in self.held)
        assert stats.in_use_bytes + stats.idle_bytes <= self.MAX_BYTES
        assert stats.in_use == len(self.held)
        assert stats.misses == stats.in_use + stats.idle + stats.evicted + stats.dropped


TestAnyUse = AnyUse.TestCase
