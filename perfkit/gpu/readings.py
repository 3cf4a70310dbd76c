"""The AMD cards of this machine at one moment, as a result that a notebook shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perfkit.evidence.samples import counted
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame, encode_rows
from perfkit.evidence.text import UNKNOWN, duration, quantity, size
from perfkit.gpu.card import Cards
from perfkit.gpu.device.discovery import DRM_ROOT, no_card_text
from perfkit.gpu.device.schema import GpuSample
from perfkit.gpu.processes.fdinfo import Processes, ProcessUse, look

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CardReadings(Showable):
    """A sample of each card, or the `reason` why there is none, and perhaps who uses them."""

    samples: tuple[GpuSample, ...]
    reason: str | None = None
    caption: str = "GPU cards"
    processes: Processes | None = None

    def to_frame(self) -> pd.DataFrame:
        """A row for each card; the columns are GpuSample's fields."""
        return data_frame(self.samples)

    def encode(self) -> str:
        """A JSON list with a card to a line."""
        return encode_rows(sample.to_dict() for sample in self.samples)

    def _sheets(self) -> Iterator[Sheet]:
        yield samples_sheet(self.samples, self.caption, self.reason)
        if self.processes is not None:
            yield processes_sheet(self.processes)

    def _figures(self) -> Figures:
        return "% busy", [(it.pci or it.card, counted(it.gpu_busy_pct)) for it in self.samples]


def read_cards(root: Path = DRM_ROOT, *, processes: bool = False) -> CardReadings:
    """Each card of this machine now, perhaps with the `processes` that use it, of which only root
    sees all; `root` stands in for /sys/class/drm.
    """
    with closing(Cards(root)) as cards:
        samples = tuple(cards.sample())
        reason = None if samples else no_card_text(cards.root, cards.skipped)
    return CardReadings(samples, reason, processes=look() if processes else None)


def processes_sheet(
    seen: Processes,
    before_ns: Mapping[tuple[int, str], Mapping[str, int]] | None = None,
    elapsed_ns: float | None = None,
) -> Sheet:
    """The use of the cards by each process, a row for each card it uses, or that there is none.

    With `elapsed_ns` it has the share of that time that each engine worked, by its time before.
    """
    if not seen.uses:
        return Sheet("No process is seen to use a card.", notes=seen.notes)
    rows = []
    for use in seen.uses:
        shared = f" (with {', '.join(map(str, use.shared_with))})" if use.shared_with else ""
        before = (before_ns or {}).get((use.pid, use.pci), {})
        worked = {
            name: duration(ns / 1e9)
            if elapsed_ns is None
            else f"{100 * (ns - before[name]) / elapsed_ns:.0f} %"
            for name, ns in use.engine_ns.items()
            if ns and (elapsed_ns is None or ns > before.get(name, ns))
        }
        sizes = (size(use.vram_bytes), size(use.gtt_bytes))
        name = f"{use.name or UNKNOWN}{shared}"
        rows.append((use.pci, str(use.pid), name, *sizes, _work(use, worked)))
    engines = "engine time" if elapsed_ns is None else "engines busy"
    header = ("card", "pid", "process", "VRAM", "GTT", engines)
    return Sheet("Processes that use the cards", header, rows, seen.notes)


def _work(use: ProcessUse, worked: Mapping[str, str]) -> str:
    """The engines that worked for it, and what ROCm says of it, which has no time of its own."""
    parts = [f"{name} {text}" for name, text in worked.items()]
    if use.sdma_ns:
        parts.append(f"copies {duration(use.sdma_ns / 1e9)}")
    if use.cu_n:
        parts.append(f"{use.cu_n} compute units now")
    return ", ".join(parts) or ("none" if use.engine_ns else UNKNOWN)


def samples_sheet(
    samples: Sequence[GpuSample], caption: str = "GPU cards", reason: str | None = None
) -> Sheet:
    """Cards as a table; `reason` says why there are none."""
    missing = f"No AMD card was found: {reason}." if reason else "No AMD card was found."
    return Sheet(
        caption,
        ("card", "name", "state", "busy", "VRAM used", "of", "power", "hottest", "core clock"),
        [
            (
                sample.pci or sample.card,
                sample.name or UNKNOWN,
                sample.state.value,
                quantity(sample.gpu_busy_pct, "%"),
                size(sample.vram_used_bytes),
                size(sample.vram_total_bytes),
                quantity(sample.power_w, "W"),
                quantity(sample.hottest_c, "°C"),
                quantity(sample.sclk_hz, "MHz", 1e-6),
            )
            for sample in samples
        ],
        [] if samples else [missing],
    )
