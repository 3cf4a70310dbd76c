"""Free memory goes back after enough has passed, and nowhere else."""

import pytest

from cluster.shells import malloc_trim
from cluster.shells.malloc_trim import ONE_HEAP, MallocTrim, find_trim, reexec_with_one_heap


def test_a_heap_is_due_after_so_many_bytes_and_again_after_as_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(malloc_trim, "find_trim", lambda: calls.append)
    heap = MallocTrim(after_bytes=100)
    assert [heap.is_due(passed) for passed in (0, 99, 100)] == [False, False, True]
    heap.trim(150)
    assert calls == [0]
    assert [heap.is_due(passed) for passed in (150, 249, 250)] == [False, False, True]


def test_a_heap_is_never_due_if_nobody_asked_or_nothing_can_trim_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not MallocTrim(after_bytes=0).is_due(1 << 40)
    monkeypatch.setattr(malloc_trim, "find_trim", lambda: None)
    without = MallocTrim(after_bytes=1)
    assert not without.is_due(1 << 40)
    without.trim(1 << 40)


def test_a_c_library_without_it_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    def bare(_: None) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", bare)
    assert find_trim() is None


def test_a_program_is_re_executed_once_with_one_heap_and_what_the_user_set_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executed: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda path, command, env: executed.append((command, env)))
    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "cluster.process", "coordinator"])
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    reexec_with_one_heap()
    [(command, environment)] = executed
    assert command[1:] == ["-m", "cluster.process", "coordinator"]
    assert environment.items() >= {**ONE_HEAP, "MALLOC_ARENA_MAX": "2"}.items()
    for name in ONE_HEAP:
        monkeypatch.setenv(name, environment[name])
    reexec_with_one_heap()
    assert len(executed) == 1


def test_without_a_heap_that_can_be_trimmed_a_program_goes_on_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(malloc_trim, "find_trim", lambda: None)
    monkeypatch.setattr("os.execve", lambda *_: pytest.fail("re-executed"))
    reexec_with_one_heap()
