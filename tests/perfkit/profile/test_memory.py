"""Memory of blocks of code: what is measured, what stays unknown, what is refused."""

import builtins
import tracemalloc
from unittest.mock import Mock

import pytest

from perfkit.profile import memory
from perfkit.profile.memory import track_memory
from perfkit.profile.watch import MemorySample

MIB = 2**20


def test_a_block_that_keeps_memory_grows_by_it() -> None:
    with track_memory("keep") as run:
        kept = bytearray(b"x") * (32 * MIB)
    use = run.result
    assert (use.name, use.error, use.allocations) == ("keep", None, None)
    assert len(use.to_frame()) == 0
    rss, uss, _ = use.growth_bytes
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


@pytest.mark.parametrize(("after", "peak"), [(190, 190), (150, None)])
def test_only_a_high_water_mark_that_rose_is_the_peak(
    monkeypatch: pytest.MonkeyPatch, after: int, peak: int | None
) -> None:
    scripted(monkeypatch, [100, 110], [150, after])
    with track_memory("marked") as run:
        pass
    assert run.result.peak_rss_bytes == peak
    assert (run.result.high_water_bytes, run.result.growth_bytes) == (after, (10, None, None))
    assert f"never held more than {after} B" in run.result._repr_html_() or peak


def test_a_system_without_proc_has_no_high_water_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", Mock(side_effect=FileNotFoundError))
        patch.setattr(memory, "process_memory", lambda: None)
        with track_memory("elsewhere") as run:
            pass
    assert run.result.high_water_bytes is None
    assert run.result.growth_bytes == (None, None, None)


def test_the_line_that_allocates_is_named() -> None:
    with track_memory("lines", tracemalloc=True) as run:
        kept = [bytes(1000) for _ in range(1000)]
    first = run.result.allocations[0]
    assert first.file.endswith("test_memory.py")
    assert first.line == test_the_line_that_allocates_is_named.__code__.co_firstlineno + 2
    assert first.growth_bytes >= 1_000_000
    assert first.growth_blocks >= len(kept)
    assert run.result.traced_growth_bytes >= 1_000_000
    assert len(run.result.allocations) <= 10
    assert not tracemalloc.is_tracing()
    assert run.result.to_frame()["line"].iloc[0] == first.line
    assert "blocks" in run.result._repr_html_()


def test_nested_measurements_share_tracemalloc() -> None:
    with track_memory("outer", tracemalloc=True) as outer:
        with track_memory("inner", tracemalloc=True) as inner:
            kept = bytearray(2 * MIB)
        assert tracemalloc.is_tracing()
        more = bytearray(MIB)
    assert not tracemalloc.is_tracing()
    assert inner.result.allocations[0].growth_bytes == pytest.approx(2 * MIB, rel=0.01)
    growths = [line.growth_bytes for line in outer.result.allocations[:2]]
    assert growths == pytest.approx([2 * MIB, MIB], rel=0.01)
    del kept, more


@pytest.mark.parametrize("stopped", [False, True])
def test_tracemalloc_of_others_is_left_as_it_is(stopped: bool) -> None:
    tracemalloc.start()
    with track_memory("guest", tracemalloc=True) as run:
        if stopped:
            tracemalloc.stop()
    assert tracemalloc.is_tracing() is not stopped
    tracemalloc.stop()
    assert (run.result.allocations is None) == (run.result.traced_growth_bytes is None) == stopped
