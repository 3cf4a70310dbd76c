"""One shape for what the memory instruments find, so that one table can hold all of it.

Sampling knows pages, tracemalloc knows Python's blocks, memray knows calls of the allocator,
objgraph counts objects and memory_profiler reads RSS line by line. They disagree for good reasons,
and side by side they show which: growth that only RSS sees is the allocator's or a C library's,
growth that only objgraph sees is small. Each result has a method `findings()` that gives its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Protocol

from perfkit.evidence.tables import data_frame, html_table, mib_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class MemoryFinding:
    """One thing that one instrument says of a process's memory; what it does not say is None.

    `source` is the instrument, `role` whose memory it is (a role of the cluster, or the name of
    what was measured), `where` a line (`file:line`), a type, or the measure itself (`RSS`, `USS`,
    `PSS`). `size_bytes` is held at the end, `peak_bytes` at the highest point, `growth_bytes` is
    end minus beginning. `count` and `growth_count` are of what `counted` names: blocks,
    allocations, objects, runs, samples.
    """

    source: str
    role: str
    where: str
    size_bytes: int | None = None
    peak_bytes: int | None = None
    growth_bytes: int | None = None
    count: int | None = None
    growth_count: int | None = None
    counted: str = ""


class Findable(Protocol):
    """The result of a memory instrument."""

    def findings(self) -> Sequence[MemoryFinding]:
        """Its rows of the common table, largest first, as many as the instrument keeps."""


@dataclass(frozen=True)
class MemoryTable:
    """Rows of several instruments, and `reasons`: why some of them could not look."""

    rows: tuple[MemoryFinding, ...]
    reasons: tuple[str, ...] = ()

    def of(self, source: str) -> tuple[MemoryFinding, ...]:
        """The rows of one instrument."""
        return tuple(row for row in self.rows if row.source == source)

    def to_frame(self) -> pd.DataFrame:
        """A row for each finding, columns as in `MemoryFinding`."""
        return data_frame(
            [asdict(row) for row in self.rows], [column.name for column in fields(MemoryFinding)]
        )

    def _repr_html_(self) -> str:
        header = ("instrument", "of", "where", "held", "peak", "growth", "count", "more")
        return html_table("What holds memory", header, map(_cells, self.rows), self.reasons)


def memory_table(*found: Findable) -> MemoryTable:
    """What several instruments found in one table, in the order given."""
    reasons = (getattr(one, "reason", None) for one in found)
    return MemoryTable(
        tuple(row for one in found for row in one.findings()),
        tuple(reason for reason in reasons if reason),
    )


def _cells(row: MemoryFinding) -> tuple[str, ...]:
    """A row as text; what an instrument does not say stays empty, or all would be "unknown"."""
    sizes = (
        "" if size_bytes is None else mib_text(size_bytes, sign)
        for size_bytes, sign in (
            (row.size_bytes, "-"),
            (row.peak_bytes, "-"),
            (row.growth_bytes, "+"),
        )
    )
    count = "" if row.count is None else f"{row.count:,} {row.counted}"
    more = "" if row.growth_count is None else f"{row.growth_count:+,} {row.counted}"
    return (row.source, row.role, row.where, *sizes, count, more)
