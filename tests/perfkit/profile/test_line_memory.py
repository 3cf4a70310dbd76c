"""RSS line by line, with memory_profiler and without."""

import sys
from collections.abc import AsyncIterator, Callable
from types import FunctionType
from typing import Any

import pytest

from perfkit.profile.line_memory import line_memory

MIB = 2**20


async def ticks() -> AsyncIterator[int]:
    yield 1


def grow(n: int) -> int:
    kept = bytearray(b"x") * n
    kept[0] = 0
    return len(kept)


def test_memory_is_read_line_by_line_where_the_heap_has_as_much_to_spare() -> None:
    pytest.importorskip("memory_profiler")
    blocks = [bytearray(b"x") * 2**16 for _ in range(1_000)]
    del blocks[:-1]
    use = line_memory(grow, 32 * MIB)
    first = grow.__code__.co_firstlineno
    assert use.result == 32 * MIB
    assert use.function == "grow"
    assert use.file.endswith("test_line_memory.py")
    assert [line.line for line in use.lines] == [first, first + 1, first + 2, first + 3]
    assert use.lines[0].growth_bytes is None
    assert use.lines[1].growth_bytes > 30 * MIB
    assert (use.lines[1].runs, use.lines[1].code) == (1, '    kept = bytearray(b"x") * n')
    assert list(use.to_frame()["line"]) == [line.line for line in use.lines]
    assert "bytearray(b&quot;x&quot;)" in use._repr_html_()


def test_an_exception_of_the_function_passes_and_the_tracer_is_put_back() -> None:
    pytest.importorskip("memory_profiler")
    tracer = sys.gettrace()
    with pytest.raises(TypeError, match="can't multiply"):
        line_memory(grow, "many")
    assert sys.gettrace() is tracer


def test_without_memory_profiler_the_function_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "memory_profiler", None)
    use = line_memory(grow, 1)
    assert (use.result, use.lines) == (1, ())
    assert "unmaintained" in use.reason
    assert "distutils" in use.reason
    assert "setuptools" in use._repr_html_()


@pytest.mark.parametrize("function", [len, ticks, int])
def test_only_plain_functions_are_read_line_by_line(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="plain Python functions"):
        line_memory(function)


def test_a_function_without_a_source_file_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the source of <module>"):
        line_memory(FunctionType(compile("1", "<string>", "eval"), {}))
