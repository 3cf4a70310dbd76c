"""Memory of real processes and blocks: what is measured, what stays unknown, what is refused."""

from __future__ import annotations

import asyncio
import builtins
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from types import FunctionType
from typing import Any, NamedTuple

import psutil
import pytest

from perfkit.profile import memory, switch
from perfkit.profile.lines import line_memory
from perfkit.profile.memory import RECENT_LIMIT, MemoryUse, recent, track_memory
from perfkit.profile.watch import MemorySample

MIB = 2**20


class Basic(NamedTuple):
    rss: int


def test_a_block_that_keeps_memory_grows_by_it() -> None:
    with track_memory("keep") as run:
        kept = bytearray(b"x") * (32 * MIB)
    use = run.result
    assert use is not None
    assert (use.name, use.error, use.allocations, use.samples) == ("keep", None, None, 0)
    assert use.rss_growth_bytes is not None
    assert use.rss_growth_bytes > 30 * MIB
    if use.uss_growth_bytes is not None:
        assert use.uss_growth_bytes > 30 * MIB
    assert use.wall_s > 0
    assert len(kept) == 32 * MIB
    html = use._repr_html_()
    assert "Memory keep" in html
    assert "PSS" in html


def scripted(monkeypatch: pytest.MonkeyPatch, rss: list[int], high_water: list[int | None]) -> None:
    """The system's answers before and after the next block."""
    answers, marks = iter(rss), iter(high_water)
    monkeypatch.setattr(memory, "process_memory", lambda: MemorySample(next(answers), None, None))
    monkeypatch.setattr(memory, "_high_water_bytes", lambda: next(marks))


def test_a_high_water_mark_that_rose_is_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [100, 110], [150, 190])
    with track_memory("rose") as run:
        pass
    assert run.result is not None
    assert (run.result.peak_rss_bytes, run.result.peak_source) == (190, "high-water mark")
    assert run.result.rss_growth_bytes == 10
    assert run.result.pss_growth_bytes is None


def test_a_high_water_mark_that_did_not_rise_leaves_the_peak_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(monkeypatch, [100, 110], [150, 150])
    with track_memory("below") as run:
        pass
    assert run.result is not None
    assert (run.result.peak_rss_bytes, run.result.peak_source) == (None, None)
    assert run.result.high_water_bytes == 150
    assert "The peak is not known." in run.result._repr_html_()
    assert "unknown" in run.result._repr_html_()


def test_without_a_high_water_mark_the_sampler_finds_the_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(monkeypatch, [100, 110], [None, None])
    peaked = threading.Event()
    readings = iter([105, 170, 120])

    def read(self: psutil.Process) -> Basic:
        rss = next(readings, 115)
        if rss == 120:
            peaked.set()
        return Basic(rss)

    monkeypatch.setattr(psutil.Process, "memory_info", read)
    with track_memory("sampled", interval_s=0.001) as run:
        assert peaked.wait(30)
    assert run.result is not None
    assert (run.result.peak_rss_bytes, run.result.peak_source) == (170, "samples")
    assert run.result.samples >= 3
    assert not [t for t in threading.enumerate() if t.name == "memory-sampler"]


def test_a_system_without_proc_has_no_high_water_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", missing)
        patch.setattr(memory, "process_memory", lambda: None)
        with track_memory("elsewhere") as run:
            pass
    assert run.result is not None
    assert run.result.high_water_bytes is None
    assert run.result.rss_growth_bytes is None


@pytest.mark.parametrize("interval_s", [0, -1, 0.0001, float("nan")])
def test_an_interval_below_a_millisecond_is_refused(interval_s: float) -> None:
    with pytest.raises(ValueError, match=r"interval_s must be at least 0\.001"):
        track_memory("often", interval_s=interval_s)


def test_the_line_that_allocates_is_named() -> None:
    with track_memory("lines", tracemalloc=True) as run:
        kept = [bytes(1000) for _ in range(1000)]
    assert run.result is not None
    assert run.result.allocations is not None
    first = run.result.allocations[0]
    assert first.file.endswith("test_memory.py")
    assert first.line == test_the_line_that_allocates_is_named.__code__.co_firstlineno + 2
    assert first.growth_bytes >= 1_000_000
    assert first.growth_blocks >= 1000
    assert run.result.traced_growth_bytes is not None
    assert run.result.traced_growth_bytes >= 1_000_000
    assert len(run.result.allocations) <= 10
    assert not tracemalloc.is_tracing()
    assert len(kept) == 1000
    frame = run.result.to_frame()
    assert frame["line"].iloc[0] == first.line
    assert "blocks" in run.result._repr_html_()


def test_a_measurement_without_lines_has_an_empty_frame() -> None:
    frame = MemoryUse("plain", 0.1, None, None).to_frame()
    assert list(frame.columns)[:2] == ["file", "line"]
    assert len(frame) == 0


def test_nested_measurements_share_tracemalloc() -> None:
    with track_memory("outer", tracemalloc=True) as outer:
        with track_memory("inner", tracemalloc=True) as inner:
            kept = bytearray(2 * MIB)
        assert tracemalloc.is_tracing()
        more = bytearray(MIB)
    assert not tracemalloc.is_tracing()
    assert inner.result is not None
    assert outer.result is not None
    assert inner.result.allocations is not None
    assert outer.result.allocations is not None
    assert inner.result.allocations[0].growth_bytes == pytest.approx(2 * MIB, rel=0.01)
    growths = [line.growth_bytes for line in outer.result.allocations[:2]]
    assert growths == pytest.approx([2 * MIB, MIB], rel=0.01)
    del kept, more


def test_tracemalloc_of_somebody_else_is_left_running() -> None:
    tracemalloc.start()
    try:
        with track_memory("guest", tracemalloc=True) as run:
            pass
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    assert run.result is not None
    assert run.result.allocations is not None


def test_tracemalloc_stopped_by_somebody_else_leaves_the_lines_unknown() -> None:
    with track_memory("stopped", tracemalloc=True) as run:
        tracemalloc.stop()
    assert run.result is not None
    assert run.result.allocations is None
    assert run.result.traced_growth_bytes is None
    assert not tracemalloc.is_tracing()


def test_an_exception_passes_through_and_is_noted() -> None:
    @track_memory(name="failing", tracemalloc=True, interval_s=0.01)
    def work() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        work()
    assert recent("failing")[-1].error == "KeyError"
    assert "ended by KeyError" in recent("failing")[-1]._repr_html_()
    assert not tracemalloc.is_tracing()
    with pytest.raises(ZeroDivisionError), track_memory("block"):
        raise ZeroDivisionError
    assert recent("block")[-1].error == "ZeroDivisionError"


def test_functions_coroutines_and_generators_are_decorated() -> None:
    @track_memory
    def function(n: int) -> int:
        """Adds one."""
        return n + 1

    @track_memory(name="coroutine")
    async def coroutine() -> int:
        await asyncio.sleep(0)
        return 2

    @track_memory(name="generator")
    def generator() -> Iterator[int]:
        yield 3

    assert function(0) == 1
    assert (function.__name__, function.__doc__) == ("function", "Adds one.")
    assert asyncio.run(coroutine()) == 2
    assert list(generator()) == [3]
    names = [use.name.rpartition(".")[2] for use in recent()[-3:]]
    assert names == ["function", "coroutine", "generator"]


def test_switched_off_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> int:
        return 1

    @track_memory(name="off")
    async def coroutine() -> int:
        return 2

    @track_memory(name="off")
    def generator() -> Iterator[int]:
        yield 3

    decorated = track_memory(name="off")(work)
    assert track_memory(name="never", enabled=False)(work) is work
    monkeypatch.setattr(switch, "on", False)
    monkeypatch.setattr(memory, "process_memory", None)
    with track_memory("off") as run:
        assert decorated() == 1
        assert asyncio.run(coroutine()) == 2
        assert list(generator()) == [3]
    assert run.result is None
    assert recent("off") == ()


def test_only_the_last_measurements_are_remembered() -> None:
    for i in range(RECENT_LIMIT + 3):
        with track_memory(f"number {i}"):
            pass
    assert [use.name for use in recent()] == [f"number {i}" for i in range(3, RECENT_LIMIT + 3)]


async def ticks() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("thing", [int, 3, ticks])
def test_what_cannot_be_decorated_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"track_memory (decorates functions|cannot decorate)"):
        track_memory(name="refused")(thing)


def test_a_name_is_not_empty() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        track_memory("")


def grow(n: int) -> int:
    kept = bytearray(b"x") * n
    kept[0] = 0
    return len(kept)


def test_memory_is_read_line_by_line() -> None:
    pytest.importorskip("memory_profiler")
    use = line_memory(grow, 32 * MIB)

    first = grow.__code__.co_firstlineno
    assert use.result == 32 * MIB
    assert use.function == "grow"
    assert use.file.endswith("test_memory.py")
    assert [line.line for line in use.lines] == [first, first + 1, first + 2, first + 3]
    assert use.lines[0].growth_bytes is None
    assert use.lines[1].growth_bytes is not None
    assert use.lines[1].growth_bytes > 30 * MIB
    assert (use.lines[1].runs, use.lines[1].code) == (1, '    kept = bytearray(b"x") * n')
    assert "bytearray(b&quot;x&quot;)" in use._repr_html_()


def test_an_exception_of_the_function_passes_and_the_tracer_is_put_back() -> None:
    pytest.importorskip("memory_profiler")
    tracer = sys.gettrace()
    with pytest.raises(TypeError, match="can't multiply"):
        line_memory(grow, "many")
    assert sys.gettrace() is tracer


def test_without_memory_profiler_the_function_runs_and_a_reason_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "memory_profiler", None)
    use = line_memory(grow, 1)
    assert (use.result, use.lines, use.findings()) == (1, (), ())
    assert use.reason is not None
    assert "unmaintained" in use.reason
    assert "distutils" in use.reason
    assert "setuptools" in use._repr_html_()


@pytest.mark.parametrize("function", [len, ticks, int])
def test_only_plain_functions_are_read_line_by_line(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="plain Python functions"):
        line_memory(function)


def test_a_function_without_a_source_file_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the source of <module> in a file"):
        line_memory(FunctionType(compile("1", "<string>", "eval"), {}))
