"""What a profile of any release holds: kernels, transfers, and notes on defects.

Unknown values are None, in every column and sum. A mean is over the calls with a known figure, and
says how many they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cluster.vocabulary.printable import count_of
from perfkit.evidence.samples import counted
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import UNKNOWN, quantity, size

if TYPE_CHECKING:
    import pandas as pd

NS_PER_S = 1_000_000_000
#: The notebook's view shows no more rows; the frame has all.
ROWS_SHOWN = 20
#: Tables show so much of a name; a template's may be as long as a book.
NAME_SHOWN = 160

_KERNEL_COLUMNS = (
    "name start_ns duration_ns grid workgroup device queue dispatch place "
    "fetched_bytes written_bytes bandwidth_bytes_per_s"
).split()


#: One for all: a trace has a million kernels without counters.
_NO_COUNTERS: Mapping[str, int | float | None] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Kernel:
    """One dispatch of a kernel.

    `start_ns` is on the profiler's clock, whose zero is arbitrary. `grid` and `workgroup` are in
    work-items: three dimensions, or their product alone if the file has no more; only PyTorch's
    traces have the grid in workgroups. `device`, `queue` and `dispatch` are the profiler's own
    names; `place` is what the file tells of the process and the node (`guid=… pid=…`), in which
    those begin again. `counters` are as measured.
    `fetched_bytes` and `written_bytes` are the traffic with video memory; see
    `perfkit.gpu.rocprof.counters` for the formulas.
    """

    name: str
    start_ns: int | None = None
    duration_ns: int | None = None
    grid: tuple[int, ...] | None = None
    workgroup: tuple[int, ...] | None = None
    device: str | None = None
    queue: str | None = None
    dispatch: str | None = None
    place: str | None = None
    counters: Mapping[str, int | float | None] = field(default_factory=lambda: _NO_COUNTERS)
    fetched_bytes: int | None = None
    written_bytes: int | None = None

    @property
    def bandwidth_bytes_per_s(self) -> float | None:
        """Bytes fetched and written over the duration; None unless all three are known."""
        return _bandwidth(self.fetched_bytes, self.written_bytes, self.duration_ns)

    def row(self) -> dict[str, Any]:
        """Its figures by column, without the counters."""
        return {name: getattr(self, name) for name in _KERNEL_COLUMNS}


@dataclass(frozen=True, slots=True)
class Transfer:
    """One copy between host and device; `direction` is `host_to_device` and the like.

    Of the profilers' files only rocpd and PyTorch's traces tell `size_bytes`.
    """

    direction: str | None
    start_ns: int | None = None
    duration_ns: int | None = None
    source: str | None = None
    destination: str | None = None
    size_bytes: int | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class KernelTotal:
    """All calls of the kernels of one name.

    `calls` and what is counted over them are None if the file does not tell how many there were.
    `total_ns` and `mean_ns` are over the `timed_calls`, whose duration is known; `time_share` is of
    the time of all kernels, in 0..1. Bytes are sums, None unless known for every call; bandwidth is
    bytes over time of the calls for which both are known, and `peak_share` its part of the peak.
    """

    name: str
    calls: int | None
    timed_calls: int | None
    total_ns: int | None
    mean_ns: float | None
    time_share: float | None
    fetched_bytes: int | None
    written_bytes: int | None
    bandwidth_bytes_per_s: float | None
    peak_share: float | None


@dataclass(frozen=True)
class TopKernels(Showable):
    """The kernels that took the most time, longest first; `names` counts those there are."""

    kernels: tuple[KernelTotal, ...]
    names: int
    peak_bytes_per_s: float | None

    def to_frame(self) -> pd.DataFrame:
        """One row per kernel name; the columns are the fields of KernelTotal."""
        return data_frame(self.kernels, KernelTotal.__match_args__)

    def _sheets(self) -> Iterator[Sheet]:
        caption = f"Kernels that took the most time, {len(self.kernels)} of {self.names}"
        yield Sheet(caption, *self.texts())

    def _figures(self) -> Figures:
        return "ms", [(it.name, counted(it.total_ns, 1e-6)) for it in self.kernels]

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """A header and a row of texts for each kernel."""
        header = ["kernel", "calls", "total", "mean", "share of time", "bandwidth"]
        if self.peak_bytes_per_s is not None:
            header.append(f"of {quantity(self.peak_bytes_per_s, 'GB/s', 1e-9)}")
        return header, [_total_texts(total)[: len(header)] for total in self.kernels]


@dataclass(frozen=True)
class KernelProfile(Showable):
    """The contents of one file or several, in order; `format` names the tool that wrote it.

    `notes` say what was repaired, left out or unknown, with the lines of the file. If a file does
    not tell how many dispatches there were (`is_countable`), no total over them is told either.
    """

    kernels: tuple[Kernel, ...]
    transfers: tuple[Transfer, ...]
    file: str
    format: str
    notes: tuple[str, ...] = ()
    is_countable: bool = True

    @property
    def dispatches_text(self) -> str:
        """How many dispatches there are, for people."""
        return f"{len(self.kernels):,}" if self.is_countable else "an unknown number of"

    def top_kernels(self, n: int = 10, peak_bytes_per_s: float | None = None) -> TopKernels:
        """The n kernel names that took the most time in total, those of unknown time last.

        `peak_bytes_per_s` is the card's memory bandwidth (256e9 for an RX 580 of 8 GB), of which
        each bandwidth is a share. Raises ValueError for an n below 1 or a peak that is not above 0.
        """
        if n < 1:
            raise ValueError(f"The number of kernels to show is {n}; it has to be 1 or more.")
        if peak_bytes_per_s is not None and not peak_bytes_per_s > 0:
            raise ValueError(f"A peak bandwidth of {peak_bytes_per_s} bytes/s has to be above 0.")
        groups: dict[str, list[Kernel]] = {}
        for kernel in self.kernels:
            groups.setdefault(kernel.name, []).append(kernel)
        whole_ns = sum(kernel.duration_ns or 0 for kernel in self.kernels)
        totals = [
            _total(name, kernels, whole_ns, peak_bytes_per_s)
            if self.is_countable
            else KernelTotal(name, *[None] * (len(KernelTotal.__match_args__) - 1))
            for name, kernels in groups.items()
        ]
        totals.sort(key=lambda t: -1 if t.total_ns is None else t.total_ns, reverse=True)
        return TopKernels(tuple(totals[:n]), len(totals), peak_bytes_per_s)

    def to_frame(self) -> pd.DataFrame:
        """One row per dispatch: its figures, then a column `counters.<name>` for each counter."""
        counters = dict.fromkeys(
            f"counters.{name}" for kernel in self.kernels for name in kernel.counters
        )
        rows = [
            kernel.row() | {f"counters.{name}": v for name, v in kernel.counters.items()}
            for kernel in self.kernels
        ]
        return data_frame(rows, [*_KERNEL_COLUMNS, *counters])

    def transfers_frame(self) -> pd.DataFrame:
        """One row per copy; the columns are the fields of Transfer."""
        return data_frame(self.transfers, Transfer.__match_args__)

    def to_json(self, top: TopKernels) -> dict[str, Any]:
        """Everything as JSON values: kernels with their counters, transfers, notes and the top."""
        return {
            "file": self.file,
            "format": self.format,
            "notes": list(self.notes),
            "is_countable": self.is_countable,
            "kernels": [k.row() | {"counters": dict(k.counters)} for k in self.kernels],
            "transfers": [asdict(transfer) for transfer in self.transfers],
            "peak_bytes_per_s": top.peak_bytes_per_s,
            "top": [asdict(total) for total in top.kernels],
        }

    def _sheets(self) -> Iterator[Sheet]:
        notes = list(self.notes)
        if len(self.kernels) > ROWS_SHOWN:
            notes.insert(0, f"The first {ROWS_SHOWN} of {len(self.kernels):,} dispatches.")
        if self.transfers:
            notes.insert(0, f"transfers_frame() has {count_of(len(self.transfers), 'transfer')}.")
        yield Sheet(
            f"{self.dispatches_text} dispatches in {self.file} ({self.format})",
            ("kernel", "start", "duration", "grid", "fetched", "written", "bandwidth"),
            (_kernel_texts(kernel) for kernel in self.kernels[:ROWS_SHOWN]),
            notes,
        )

    def _figures(self) -> Figures:
        return self.top_kernels()._figures()


def _total_texts(total: KernelTotal) -> list[str]:
    calls = UNKNOWN if total.calls is None else f"{total.calls:,}"
    if total.calls and total.timed_calls is not None and total.timed_calls < total.calls:
        calls += f" ({total.timed_calls:,} timed)"
    return [
        _shown(total.name),
        calls,
        quantity(total.total_ns, "µs", 1e-3),
        quantity(total.mean_ns, "µs", 1e-3),
        quantity(total.time_share, "%", 100),
        quantity(total.bandwidth_bytes_per_s, "GB/s", 1e-9),
        quantity(total.peak_share, "%", 100),
    ]


def _shown(name: str) -> str:
    return name if len(name) <= NAME_SHOWN else f"{name[: NAME_SHOWN - 1]}…"


def _kernel_texts(kernel: Kernel) -> Sequence[str]:
    return (
        _shown(kernel.name),
        UNKNOWN if kernel.start_ns is None else f"{kernel.start_ns:,} ns",
        quantity(kernel.duration_ns, "µs", 1e-3),
        UNKNOWN if kernel.grid is None else " × ".join(f"{n:,}" for n in kernel.grid),
        size(kernel.fetched_bytes),
        size(kernel.written_bytes),
        quantity(kernel.bandwidth_bytes_per_s, "GB/s", 1e-9),
    )


def _total(name: str, kernels: Sequence[Kernel], whole_ns: int, peak: float | None) -> KernelTotal:
    durations = [k.duration_ns for k in kernels if k.duration_ns is not None]
    total_ns = sum(durations) if durations else None
    measured = [k for k in kernels if k.bandwidth_bytes_per_s is not None]
    bandwidth = _bandwidth(
        _sum([k.fetched_bytes for k in measured]),
        _sum([k.written_bytes for k in measured]),
        _sum([k.duration_ns for k in measured]),
    )
    return KernelTotal(
        name=name,
        calls=len(kernels),
        timed_calls=len(durations),
        total_ns=total_ns,
        mean_ns=None if total_ns is None else total_ns / len(durations),
        time_share=total_ns / whole_ns if total_ns is not None and whole_ns else None,
        fetched_bytes=_sum([k.fetched_bytes for k in kernels]),
        written_bytes=_sum([k.written_bytes for k in kernels]),
        bandwidth_bytes_per_s=bandwidth,
        peak_share=bandwidth / peak if bandwidth is not None and peak else None,
    )


def _sum(values: Sequence[int | None]) -> int | None:
    """The sum; None if one is unknown or there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _bandwidth(fetched: int | None, written: int | None, duration_ns: int | None) -> float | None:
    if fetched is None or written is None or not duration_ns:
        return None
    return (fetched + written) * NS_PER_S / duration_ns
