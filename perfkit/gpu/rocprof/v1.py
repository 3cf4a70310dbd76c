"""CSV with one row per dispatch: rocprof v1, with and without times, and rocprofv2's like it.

Format: ROCm/rocprofiler, bin/tblextr.py, and rocprof's manual (doc/rocprof.md). After the columns
about the dispatch come the counters, each in a column of its own.
"""

from __future__ import annotations

from perfkit.gpu.rocprof.cells import Source
from perfkit.gpu.rocprof.records import kernel_of
from perfkit.gpu.rocprof.sheet import Sheet
from perfkit.gpu.rocprof.tables import Kernel


def kernels_of(sheet: Sheet) -> tuple[Kernel, ...]:
    """The dispatches in the order of the file. Raises RocprofError as `kernel_of` does."""
    kernels = tuple(k for row in sheet.rows() if (k := kernel_of(row)) is not None)
    note_missing_times(kernels, "rocprof v1 takes times with --timestamp on", sheet.source)
    return kernels


def note_missing_times(kernels: tuple[Kernel, ...], to_do: str, source: Source) -> None:
    """Say so where no dispatch has a duration: the profilers take times only when asked to."""
    if kernels and all(kernel.duration_ns is None for kernel in kernels):
        source.note(f"no dispatch has a duration; {to_do}")
