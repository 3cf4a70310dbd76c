"""What all memory instruments find, in one table."""

from pathlib import Path

from perfkit.profile import memory_table
from perfkit.profile.findings import MemoryFinding
from perfkit.profile.growth import ObjectGrowth, TypeGrowth
from perfkit.profile.heap import AllocationSite, HeapProfile
from perfkit.profile.lines import LineMemory, LineUse
from perfkit.profile.memory import track_memory
from perfkit.profile.watch import MemorySample, MemorySeries

SAMPLE = MemorySample(3_145_728, None, 1_048_576)
SERIES = MemorySeries("worker-1", 0.1, (0.0,), (SAMPLE,), 1, SAMPLE, SAMPLE)
HEAP = HeapProfile(
    "coordinator", 7, 900, 500, (AllocationSite("a.py:3 f", 400, 2),), Path("a <b>.html")
)
GROWTH = ObjectGrowth("the work", (TypeGrowth("m.Leak", 9, 4),), 4)
LINES = LineMemory(
    "f", "a.py", None, (LineUse(1, "def f():", 10, None, 1), LineUse(2, "  x", 30, 20, 3))
)


def test_every_instrument_gives_rows_of_one_shape() -> None:
    with track_memory("block", tracemalloc=True) as run:
        kept = [bytes(1000) for _ in range(100)]
    assert run.result is not None
    table = memory_table(run.result, SERIES, HEAP, GROWTH, LINES)
    assert {row.source for row in table.rows} == {
        "track_memory", "tracemalloc", "sampling", "memray", "objgraph", "memory_profiler"
    }  # fmt: skip
    (line, *_) = table.of("tracemalloc")
    assert line.where.endswith(f"test_findings.py:{LINE_THAT_KEEPS}")
    assert (line.counted, line.count) == ("blocks", line.growth_count)
    assert line.count is not None
    assert line.count >= len(kept)
    assert table.of("sampling") == (
        MemoryFinding("sampling", "worker-1", "RSS", 3_145_728, 3_145_728, 0, 1, None, "samples"),
        MemoryFinding("sampling", "worker-1", "PSS", 1_048_576, 1_048_576, 0, 1, None, "samples"),
    )
    assert table.of("memray") == (
        MemoryFinding("memray", "coordinator", "all", None, 500, None, 7, None, "allocations"),
        MemoryFinding(
            "memray", "coordinator", "a.py:3 f", None, 400, None, 2, None, "allocations held"
        ),
    )
    assert table.of("objgraph") == (
        MemoryFinding("objgraph", "the work", "m.Leak", None, None, None, 9, 4, "objects"),
    )
    assert [row.where for row in table.of("memory_profiler")] == ["a.py:2", "a.py:1"]


LINE_THAT_KEEPS = test_every_instrument_gives_rows_of_one_shape.__code__.co_firstlineno + 2


def test_a_table_is_a_frame_and_html_and_leaves_the_unknown_out() -> None:
    table = memory_table(SERIES, GROWTH)
    frame = table.to_frame()
    assert list(frame["where"]) == ["RSS", "PSS", "m.Leak"]
    assert frame["size_bytes"].isna().tolist() == [False, False, True]
    html = table._repr_html_()
    assert "3.00 MiB" in html
    assert "9 objects" in html
    assert "+4 objects" in html
    assert "unknown" not in html


def test_an_instrument_that_could_not_look_is_a_reason_below_the_table() -> None:
    table = memory_table(SERIES, HeapProfile("worker-1", reason="memray is not installed"))
    assert table.reasons == ("memray is not installed",)
    assert {row.source for row in table.rows} == {"sampling"}
    assert "memray is not installed" in table._repr_html_()


def test_the_flame_graph_is_linked_by_its_name() -> None:
    html = HEAP._repr_html_()
    assert '<a href="a%20%3Cb%3E.html">' in html
    assert "7 allocations, at most" in html
    assert "href" not in HeapProfile("x", peak_bytes=1)._repr_html_()
