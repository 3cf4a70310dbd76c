"""What a worker says of its cards with each heartbeat, and which of them it may be given work for.

The cluster knows nothing of sysfs: a worker is handed this as its `probe`. A card that is too hot,
hangs or is gone stays unfit until it has been well for a while, so that it is not given work at
each moment it cools by a degree.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cluster.vocabulary.task import NO_LOAD, Gpu, Load
from cluster.work.host import host_load
from perfkit.gpu.base import GpuSample, State
from perfkit.gpu.card import Cards
from perfkit.gpu.discovery import DRM_ROOT

#: Asked for at each heartbeat.
FIELDS = (
    "gpu_busy_pct vram_used_bytes vram_total_bytes temp_edge_c temp_junction_c temp_memory_c "
    "temp_edge_crit_c temp_junction_crit_c temp_memory_crit_c"
).split()
#: What counts as critical where a card does not say; amdgpu's own limits for Polaris and Vega 10.
CRITICAL_C = {"edge": 94.0, "junction": 105.0, "memory": 95.0}
#: A card is well again this far below critical …
COOLER_C = 5.0
#: … and after so long without a complaint.
WELL_AFTER_S = 10.0
#: A heartbeat waits this long for the cards …
PATIENCE_S = 0.05
#: … which hang when they have not answered for so long.
HUNG_AFTER_S = 5.0


def complaint(sample: GpuSample, margin_c: float = 0.0) -> str | None:
    """Why a card should not be given work, in words; None when it is well or asleep.

    A suspended card is well: work wakes it. Temperatures count from `margin_c` below critical.
    """
    if sample.state in (State.GONE, State.RESETTING):
        words = "is gone" if sample.state is State.GONE else "is being reset, or hangs"
        return f"{sample.pci or sample.card} {words}"
    for sensor, default_c in CRITICAL_C.items():
        now_c = getattr(sample, f"temp_{sensor}_c")
        limit_c = getattr(sample, f"temp_{sensor}_crit_c") or default_c
        if now_c is not None and now_c >= limit_c - margin_c:
            words = "is overheated" if now_c >= limit_c else "has not cooled down"
            return (
                f"{sample.pci or sample.card} {words}: {sensor} {now_c:g} °C, "
                f"critical {limit_c:g} °C"
            )
    return None


class GpuProbe:
    """Called by a worker for its load; `cards` below `root` are the ones it may use.

    Free memory is that of the card with the most, utilisation the mean of all cards, temperature
    the highest of any. `gpu_trouble` is there while no card is fit for work.
    """

    def __init__(
        self,
        root: Path = DRM_ROOT,
        *,
        clock: Callable[[], float] = time.monotonic,
        host: Callable[[], Load] = host_load,
    ) -> None:
        self.cards = Cards(root)
        self._clock = clock
        self._host = host
        self._asking: threading.Thread | None = None
        self._asked_at = 0.0
        self._told = NO_LOAD
        #: by card, its last complaint and when
        self._complaints: dict[str, tuple[str, float]] = {}

    def gpus(self) -> list[Gpu]:
        """The cards as a worker announces them: those whose family and memory are known."""
        samples = [card.sample(FIELDS) for card in self.cards]
        return [
            Gpu(family=sample.family, vram_total_bytes=sample.vram_total_bytes)
            for sample in samples
            if sample.family is not None and sample.vram_total_bytes is not None
        ]

    def __call__(self) -> Load:
        """The host's load with that of its cards; None is unknown. Never raises.

        A read that hangs in the kernel can't be ended, so another thread reads, and a heartbeat
        waits no longer than `PATIENCE_S` for it; until it answers, what it said last is told.
        """
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask, name="gpu-probe", daemon=True)
            self._asked_at = self._clock()
            self._asking.start()
        self._asking.join(PATIENCE_S)
        told = self._told
        silent_s = self._clock() - self._asked_at
        if self._asking.is_alive() and silent_s >= HUNG_AFTER_S:
            told = Load(gpu_trouble=f"the cards have not answered for {silent_s:.0f} s")
        host = self._host()
        return msgspec.structs.replace(
            told, rss_bytes=host.rss_bytes, memory_free_bytes=host.memory_free_bytes
        )

    def _ask(self) -> None:
        """Ask every card, and keep what they say."""
        samples = [card.sample(FIELDS) for card in self.cards]
        if any(sample.state is State.GONE for sample in samples):
            self.cards.refresh()
        troubles = [self._trouble(sample) for sample in samples]
        fit = [s for s, trouble in zip(samples, troubles, strict=True) if trouble is None]
        busy = [s.gpu_busy_pct for s in samples if s.gpu_busy_pct is not None]
        hottest = [s.hottest_c for s in samples if s.hottest_c is not None]
        free = [s.vram_free_bytes for s in fit if s.vram_free_bytes is not None]
        self._told = Load(
            vram_free_bytes=max(free, default=None),
            gpu_busy_pct=sum(busy) / len(busy) if busy else None,
            temperature_c=max(hottest, default=None),
            gpu_trouble=None if fit or not samples else "; ".join(filter(None, troubles)),
        )

    def _trouble(self, sample: GpuSample) -> str | None:
        """Why a card is not fit, its last reason included until it has been well for a while."""
        key = sample.pci or sample.card
        now = self._clock()
        known = self._complaints.get(key)
        found = complaint(sample, COOLER_C if known else 0.0)
        if found is not None:
            self._complaints[key] = (found, now)
            return found
        if known is not None and now - known[1] < WELL_AFTER_S:
            return known[0]
        self._complaints.pop(key, None)
        return None
