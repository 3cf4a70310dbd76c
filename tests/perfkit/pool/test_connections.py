"""Connections kept open: which is closed next by a clock of the test, and clients of a cluster."""

import logging
import threading
from functools import partial
from itertools import count

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster import BASELINE, Client, LocalCluster
from perfkit.pool import (
    ConnectionPool,
    ForeignRelease,
    PoolClosed,
    PoolExhausted,
    UseAfterRelease,
)


class Clock:
    """Stands still until the test moves it."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Line:
    """A connection that knows whether it was closed."""

    numbers = count()

    def __init__(self, key: str) -> None:
        self.key, self.number, self.closed, self.note = key, next(self.numbers), False, ""

    def close(self) -> None:
        assert not self.closed
        self.closed = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(clock: Clock) -> ConnectionPool[str, Line]:
    return ConnectionPool(Line, size=3, idle_s=10.0, clock=clock)


Lines = ConnectionPool[str, Line]


def idle(pool: Lines, *keys: str) -> list[Line]:
    """Connections of these keys, all acquired and then released in this order."""
    lines = [pool.acquire(key) for key in keys]
    for line in lines:
        pool.release(line)
    return lines


def test_a_released_connection_serves_the_next_of_its_key_the_warmest_first(pool: Lines) -> None:
    first, second = idle(pool, "a", "a")
    assert first is not second
    assert pool.acquire("b").key == "b"
    assert pool.acquire("a") is second
    assert pool.acquire("a") is first
    stats = pool.stats
    assert (stats.hits, stats.misses, stats.in_use, stats.high_water) == (2, 3, 3, 3)
    assert (stats.idle, stats.hit_rate, stats.idle_bytes) == (0, 2 / 5, None)


def test_at_the_bound_the_connection_idle_longest_is_closed(pool: Lines) -> None:
    a, b, c = idle(pool, "a", "b", "c")
    assert pool.acquire("a") is a
    pool.release(a)
    pool.acquire("d")
    assert (a.closed, b.closed, c.closed) == (False, True, False)
    assert (pool.stats.evicted, pool.stats.idle, pool.stats.in_use) == (1, 2, 1)


def test_a_connection_idle_for_too_long_is_closed(pool: Lines, clock: Clock) -> None:
    (early,) = idle(pool, "a")
    clock.now_s += 6.0
    (late,) = idle(pool, "b")
    busy = pool.acquire("c")
    clock.now_s += 3.9
    pool.release(pool.acquire("b"))
    assert not early.closed
    clock.now_s += 0.1
    pool.release(pool.acquire("b"))
    assert (early.closed, late.closed) == (True, False)
    clock.now_s += 1_000.0
    pool.release(busy)
    assert (late.closed, busy.closed) == (True, False)
    assert (pool.stats.evicted, pool.stats.idle) == (2, 1)
    clock.now_s += 1_000.0
    assert pool.acquire("c") is not busy, "an expired connection is not lent"


def test_a_block_that_raises_discards_its_connection(pool: Lines) -> None:
    with pool.borrow("a") as line:
        assert not line.closed
    assert not line.closed
    with pytest.raises(KeyError), pool.borrow("a") as again:
        raise KeyError(again.key)
    assert again is line
    assert (line.closed, pool.stats.idle, pool.stats.in_use) == (True, 0, 0)
    assert (pool.stats.dropped, pool.stats.evicted) == (1, 0)


def test_a_connection_that_cannot_be_opened_takes_no_place(clock: Clock) -> None:
    def refuse(key: str) -> Line:
        raise ConnectionError(f"nobody at {key}")

    pool = ConnectionPool(refuse, size=1, clock=clock)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="nobody at a"):
            pool.acquire("a")
    assert (pool.stats.in_use, pool.stats.misses, pool.stats.refused) == (0, 0, 0)


def test_a_failure_to_close_is_logged_and_the_others_are_closed(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(Line):
        def close(self) -> None:
            super().close()
            raise OSError("stuck")

    pool: Lines = ConnectionPool(Stuck, size=2, clock=clock)
    lines = idle(pool, "a", "b")
    with caplog.at_level(logging.WARNING, "perfkit.pool"):
        pool.close()
    assert all(line.closed for line in lines)
    assert [record.message for record in caplog.records] == [
        "a pooled connection could not be closed"
    ] * 2


def test_a_closed_pool_closes_idle_connections_and_busy_ones_at_their_release(pool: Lines) -> None:
    (free,) = idle(pool, "a")
    busy = pool.acquire("b")
    pool.close()
    assert (free.closed, busy.closed) == (True, False)
    pool.release(busy)
    assert busy.closed


def test_a_pool_that_is_closed_while_one_is_being_opened_keeps_none() -> None:
    opened: list[Line] = []

    def open_slowly(key: str) -> Line:
        opened.append(Line(key))
        pool.close()
        return opened[0]

    pool = ConnectionPool(open_slowly)
    with pytest.raises(PoolClosed, match="was closed while a connection was being opened"):
        pool.acquire("a")
    assert opened[0].closed


def test_others_are_served_while_one_is_being_opened() -> None:
    entered, go = threading.Event(), threading.Event()

    def dial(key: str) -> Line:
        if key == "slow":
            entered.set()
            assert go.wait(20)
        return Line(key)

    pool = ConnectionPool(dial, size=2)
    slow = threading.Thread(target=lambda: pool.release(pool.acquire("slow")))
    slow.start()
    assert entered.wait(20)
    quick = pool.acquire("quick")
    with pytest.raises(PoolExhausted):
        pool.acquire("another")
    go.set()
    slow.join()
    assert (quick.closed, pool.stats.idle, pool.stats.in_use) == (False, 1, 1)


@pytest.mark.parametrize("debug", [False, True])
def test_a_foreign_connection_is_neither_kept_nor_closed(debug: bool, clock: Clock) -> None:
    pool, stranger = ConnectionPool(Line, clock=clock, debug=debug), Line("a")
    for give_back in (pool.release, pool.discard):
        with pytest.raises(ForeignRelease, match="this pool has not lent"):
            give_back(stranger)
    assert (stranger.closed, pool.stats.idle) == (False, 0)


def test_debug_mode_lends_a_stand_in_that_ends_with_the_release(clock: Clock) -> None:
    pool = ConnectionPool(Line, clock=clock, debug=True)
    line = pool.acquire("a")
    line.note = "mine"
    assert (line.key, line.note) == ("a", "mine")
    pool.release(line)
    with pytest.raises(UseAfterRelease, match="this connection was released"):
        line.close()
    with pytest.raises(UseAfterRelease):
        line.note = "late"
    again = pool.acquire("a")
    assert (again.note, pool.stats.hits) == ("mine", 1)


class AnyUse(RuleBasedStateMachine):
    """In any order of calls: bounds hold, busy ones stay open, none is lent twice."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.opened: list[Line] = []
        self.pool = ConnectionPool(self.open, size=3, idle_s=10.0, clock=self.clock)
        self.held: list[Line] = []
        self.refused = 0

    def open(self, key: str) -> Line:
        self.opened.append(Line(key))
        return self.opened[-1]

    @rule(key=st.sampled_from("abcd"))
    def acquire(self, key: str) -> None:
        if len(self.held) == 3:
            with pytest.raises(PoolExhausted, match="is free, and all 3 that may be"):
                self.pool.acquire(key)
            self.refused += 1
            return
        line = self.pool.acquire(key)
        assert line.key == key
        assert not any(line is held for held in self.held)
        self.held.append(line)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), discard=st.booleans())
    def give_back(self, data: st.DataObject, discard: bool) -> None:
        line = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        (self.pool.discard if discard else self.pool.release)(line)
        assert line.closed is discard

    @rule(seconds=st.sampled_from([1.0, 5.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @invariant()
    def holds(self) -> None:
        stats = self.pool.stats
        assert not any(line.closed for line in self.held)
        assert (stats.in_use, stats.refused) == (len(self.held), self.refused)
        assert stats.in_use + stats.idle <= 3
        closed = sum(line.closed for line in self.opened)
        assert closed == stats.evicted + stats.dropped
        assert stats.misses == len(self.opened) == closed + stats.in_use + stats.idle


TestAnyUse = AnyUse.TestCase


# With clients of a real cluster


def test_pooled_clients_answer_and_the_coordinator_sees_few_of_them() -> None:
    with (
        LocalCluster(1) as local,
        ConnectionPool(partial(Client, spec=BASELINE), size=2, debug=True) as pool,
    ):
        for number in range(20):
            with pool.borrow(local.endpoint) as client:
                payload = b"%d" % number
                assert client.submit("echo", payload).result(timeout=20) == payload
        assert (pool.stats.hits, pool.stats.misses) == (19, 1)
        with pytest.raises(UseAfterRelease):
            client.submit("echo", b"late")
