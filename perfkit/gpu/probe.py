"""The load of a worker's cards with each heartbeat, and whether they are fit for work.

The cluster knows nothing of sysfs: a worker is handed this as its `probe`. A card that is too hot,
hangs or is gone stays unfit until it has been well for a while: it must not get work each time it
cools by a degree.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cluster.vocabulary.task import NO_LOAD, Gpu, Load
from cluster.work.host import host_load
from perfkit.gpu.card import Cards
from perfkit.gpu.discovery import DRM_ROOT
from perfkit.gpu.schema import CardState, GpuSample

#: The fields read for each heartbeat.
FIELDS = (
    "gpu_busy_pct vram_used_bytes vram_total_bytes temp_edge_c temp_junction_c temp_memory_c "
    "temp_edge_crit_c temp_junction_crit_c temp_memory_crit_c"
).split()
#: Critical temperatures of a card that tells none: amdgpu's own for Polaris and Vega 10.
CRITICAL_C = {"edge": 94.0, "junction": 105.0, "memory": 95.0}
#: A card is well again this far below critical, and after this time without a complaint.
COOLER_C = 5.0
WELL_AFTER_S = 10.0
#: A heartbeat waits this long for the cards, which hang if they stay silent for HUNG_AFTER_S.
PATIENCE_S = 0.05
HUNG_AFTER_S = 5.0


def complaint(sample: GpuSample, margin_c: float = 0.0) -> str | None:
    """Why a card should not get work, in words; None if it is well or asleep.

    A suspended card is well: work wakes it. Temperatures count from `margin_c` below critical.
    """
    name = sample.pci or sample.card
    if sample.state in (CardState.GONE, CardState.RESETTING):
        words = "is gone" if sample.state is CardState.GONE else "is being reset, or hangs"
        return f"{name} {words}"
    for sensor, default_c in CRITICAL_C.items():
        now_c = getattr(sample, f"temp_{sensor}_c")
        critical_c = getattr(sample, f"temp_{sensor}_crit_c") or default_c
        if now_c is not None and now_c >= critical_c - margin_c:
            words = "is overheated" if now_c >= critical_c else "has not cooled down"
            return f"{name} {words}: {sensor} {now_c:g} °C, critical {critical_c:g} °C"
    return None


class GpuProbe:
    """Tells a worker its load; the worker may use every card below `root`.

    Free memory is that of the fit card with the most, utilisation the mean of all cards, and
    temperature the highest of all. `gpu_trouble` is set while no card is fit for work.
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
        #: By card, its last complaint and when it was.
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
        """The load of the host and its cards; unknown values are None. Never raises.

        A read that hangs in the kernel can't be ended, so another thread reads. A heartbeat waits
        `PATIENCE_S` for it, then tells the last known load.
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
        """Sample every card and keep the load."""
        samples = [card.sample(FIELDS) for card in self.cards]
        if any(sample.state is CardState.GONE for sample in samples):
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
        """Why a card is not fit; its last complaint stays until it has been well for a while."""
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
