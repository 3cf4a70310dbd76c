"""Free memory goes back after enough has passed, and nowhere else."""

import pytest

from cluster import heap
from cluster.heap import Heap, find_trim


def test_a_heap_is_due_after_so_many_bytes_and_again_after_as_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(heap, "find_trim", lambda: calls.append)
    kept = Heap(after_bytes=100)
    assert [kept.is_due(passed) for passed in (0, 99, 100)] == [False, False, True]
    kept.trim(150)
    assert calls == [0]
    assert [kept.is_due(passed) for passed in (150, 249, 250)] == [False, False, True]


def test_a_heap_is_never_due_if_nobody_asked_or_nothing_can_trim_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not Heap(after_bytes=0).is_due(1 << 40)
    monkeypatch.setattr(heap, "find_trim", lambda: None)
    without = Heap(after_bytes=1)
    assert not without.is_due(1 << 40)
    without.trim(1 << 40)


def test_a_c_library_without_it_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    def bare(_: None) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", bare)
    assert find_trim() is None
