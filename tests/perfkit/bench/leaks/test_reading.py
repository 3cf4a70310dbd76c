"""What a process holds: every container is found, and a cache is no leak."""

import gc
import sys
from collections import OrderedDict, deque
from typing import Any

import pytest

from perfkit.bench.leaks import reading
from perfkit.bench.leaks.reading import (
    container_sizes,
    growing,
    only_what_is_new,
    take_reading,
)


class Box:
    def __init__(self, **things: Any) -> None:
        self.__dict__.update(things)


class Slim:
    __slots__ = ("empty", "things")

    def __init__(self, things: object) -> None:
        self.things = things


class Slimmer(Slim):
    __slots__ = "one"

    def __init__(self, things: object) -> None:
        super().__init__(things)
        self.one = [1]


def test_containers_are_found_by_their_path() -> None:
    inner = Box(names={"a", "b"}, text="text", number=3)
    root = Box(table={1: 2}, inner=inner, queue=deque([1, 2, 3]), raw=bytearray(7))
    assert container_sizes(root) == {"table": 1, "inner.names": 2, "queue": 3, "raw": 7}


def test_those_of_many_objects_are_added_up() -> None:
    root = Box(runs=OrderedDict(a=Slim([1, 2]), b=Slim([3])), lines=[{1: 2}, {}])
    assert container_sizes(root) == {"runs": 2, "runs[].things": 3, "lines": 2, "lines[]": 1}
    # Slots of a base class too.
    assert container_sizes(Slimmer([1, 2])) == {"things": 2, "one": 1}


def test_a_container_with_two_paths_counts_once_and_a_cycle_ends() -> None:
    shared = [1, 2]
    root = Box(shared=shared, inner=Box(again=shared))
    root.inner.outer = root
    assert container_sizes(root) == {"shared": 2}
    # Objects of other packages are not followed.
    assert container_sizes(Box(module=sys, text="x", none=None, cls=Box)) == {}
    assert container_sizes(None) == {}


def test_only_a_container_that_never_returns_to_its_size_is_growing() -> None:
    saw = [{"cache": at % 3, "kept": at} for at in range(12)]
    assert growing(saw) == {"kept": 6}
    assert growing(saw, allowance=6) == {}
    assert growing([]) == {}
    assert growing([{}, {}, {"new": 5}, {"new": 5}]) == {"new": 5}


def test_objects_and_blocks_that_stay_are_seen() -> None:
    with only_what_is_new():
        before = take_reading()
        kept: list[list[int]] = [[] for _ in range(1_000)]
        small = [bytes(100) for _ in range(1_000)]
        after = take_reading()
    assert len(kept) == len(small)
    assert 1_000 <= after.gc_objects - before.gc_objects < 1_100
    assert 2_000 <= after.blocks - before.blocks < 2_300


def test_freed_memory_of_malloc_is_not_in_use() -> None:
    before = reading.malloc_bytes()
    if before is None:
        pytest.skip("malloc does not say what is in use here")
    kept = [bytes(100_000) for _ in range(100)]
    during = reading.malloc_bytes()
    assert during - before >= len(kept) * 100_000
    del kept
    after = reading.malloc_bytes()
    assert after - before < 1_000_000


def test_a_malloc_that_says_nothing_leaves_it_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading.ctypes, "CDLL", lambda name: object())
    monkeypatch.setattr(reading, "_mallinfo", reading._find_mallinfo())
    assert take_reading().malloc_bytes is None


def test_uncounted_descriptors_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere:
        memory_info = staticmethod(lambda: Box(rss=1))
        num_threads = staticmethod(lambda: 1)

    monkeypatch.setattr(reading.psutil, "Process", Elsewhere)
    assert take_reading().fds is None


def test_only_new_objects_count_and_only_earlier_frozen_ones_stay_frozen() -> None:
    gc.unfreeze()
    try:
        with only_what_is_new():
            assert take_reading().gc_objects < 1_000
        assert gc.get_freeze_count() == 0
    finally:
        gc.freeze()  # as conftest.py does: else each collection from here on takes a second
    with only_what_is_new():
        pass
    assert gc.get_freeze_count() > 0
