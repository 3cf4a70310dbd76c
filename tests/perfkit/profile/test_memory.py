"""Memory of blocks of code: what is measured, what stays unknown, what is refused."""

from __future__ import annotations

import builtins
import tracemalloc

import pytest

from perfkit.profile import memory
from perfkit.profile.memory import track_memory
from perfkit.profile.watch import MemorySample

MIB = 2**20


def test_a_block_that_keeps_memory_grows_by_it() -> None:
    with track_memory("keep") as run:
        kept = bytearray(b"x") * (32 * MIB)
    use = run.result
    assert use is not None
    assert (use.name, use.error, use.allocations) == ("keep", None, None)
    assert len(use.to_frame()) == 0
    rss, uss, _ = use.growth_bytes
    assert rss is not None
    assert rss > 30 * MIB
    assert uss is None or uss > 30 * MIB
    assert use.wall_s > 0
    assert len(kept) == 32 * MIB
    html = use._repr_html_()
    assert "Memory keep" in html
    assert "PSS" in html


def scripted(monkeypatch: pytest.MonkeyPatch, rss: list[int], high_water: list[int | None]) -> None:
    """The system's answers before and after the next block."""
    answers, marks = iter(rss), iter(high_water)
    monkeypatch.setattr(memory, "process_memory", lambda: MemorySample(next(answers), None, None))
    monkeypatch.setattr(memory, "status_bytes", lambda *_: next(marks))


def test_a_high_water_mark_that_rose_is_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [100, 110], [150, 190])
    with track_memory("rose") as run:
        pass
    assert run.result is not None
    assert run.result.peak_rss_bytes == 190
    assert run.result.growth_bytes == (10, None, None)


def test_a_high_water_mark_that_did_not_rise_leaves_the_peak_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(monkeypatch, [100, 110], [150, 150])
    with track_memory("below") as run:
        pass
    assert run.result is not None
    assert run.result.peak_rss_bytes is None
    assert run.result.high_water_bytes == 150
    assert "unknown" in run.result._repr_html_()


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
    assert run.result.growth_bytes == (None, None, None)


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


def test_tracemalloc_that_runs_already_is_left_running() -> None:
    tracemalloc.start()
    try:
        with track_memory("guest", tracemalloc=True) as run:
            pass
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    assert run.result is not None
    assert run.result.allocations is not None


def test_tracemalloc_stopped_inside_the_block_leaves_the_lines_unknown() -> None:
    with track_memory("stopped", tracemalloc=True) as run:
        tracemalloc.stop()
    assert run.result is not None
    assert run.result.allocations is None
    assert run.result.traced_growth_bytes is None
    assert not tracemalloc.is_tracing()
