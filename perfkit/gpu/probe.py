"""The load of a worker's cards with each heartbeat, and whether they are fit for work.

The cluster knows nothing of sysfs: a worker is handed this as its `probe`. A card that is too hot,
hangs or is gone stays unfit until it has been well for a while: it must not get work each time it
cools by a degree.

The power comes last and is told with the next heartbeat if it takes long. The driver sleeps while
it asks Bonaire, Hawaii, Tonga and Fiji, and a Polaris that says 0 W: up to ten times for half a
second, and no other sensor answers meanwhile (`smu7_get_gpu_power` in smu7_hwmgr.c,
`amdgpu_dpm_read_sensor` in amdgpu_dpm.c).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from cluster.vocabulary.cards import ANY_CARD, CARD
from cluster.vocabulary.task import MAX_GPUS, NO_LOAD, Gpu, GpuLoad, Load
from cluster.work.host import host_load
from perfkit.gpu.card import Card, Cards
from perfkit.gpu.device.chips import chip
from perfkit.gpu.device.discovery import DRM_ROOT
from perfkit.gpu.device.schema import CardState, Found, GpuSample
from perfkit.gpu.processes.fdinfo import NO_USE, OwnUse, own_use
from perfkit.gpu.rest import Rest
from perfkit.gpu.sources.sysfs import parse_sysfs

#: These are told of a card that sleeps or rests too: the driver knows them without asking it.
MEMORY = "vram_used_bytes vram_total_bytes gtt_used_bytes gtt_total_bytes".split()
#: The fields read for each heartbeat.
FIELDS = (
    *MEMORY,
    *"gpu_busy_pct temp_edge_c temp_junction_c temp_memory_c".split(),
    *"temp_edge_crit_c temp_junction_crit_c temp_memory_crit_c".split(),
)
SENSORS = ("edge", "junction", "memory")
#: A card is asked for its power again after this many times as long as it took to answer.
POWER_REST = 20
#: Critical temperatures of cards that tell none, by chip and sensor. They are what the boards' own
#: BIOS says of these chips, as `temp*_crit` of an RX 580 and of a Vega 56 in LACT's recordings
#: (tests/snapshots/amd). Other chips have other limits, and APUs tell none: amdgpu hides theirs
#: (`hwmon_attributes_visible` in amdgpu_pm.c).
CRITICAL_C: Mapping[str, Mapping[str, float]] = {
    "Polaris 10": {"edge": 94.0},
    "Vega 10": {"edge": 85.0, "junction": 105.0, "memory": 95.0},
}
#: A card is well again this far below critical, and after this time without a complaint.
COOLER_C = 5.0
WELL_AFTER_S = 10.0
#: A heartbeat waits this long for the cards, which hang if they stay silent for HUNG_AFTER_S.
PATIENCE_S = 0.05
HUNG_AFTER_S = 6.0


def complaint(sample: GpuSample, margin_c: float = 0.0) -> str | None:
    """Why a card should not get work, in words; None if it is well or asleep.

    A suspended card is well: work wakes it. Temperatures count from `margin_c` below critical. A
    sensor whose critical temperature neither the card nor CRITICAL_C tells has no limit.
    """
    name = sample.pci or sample.card
    if sample.state in (CardState.GONE, CardState.RESETTING):
        words = "is gone" if sample.state is CardState.GONE else "is being reset, or hangs"
        return f"{name} {words}"
    known_c = _critical_c(sample)
    for sensor in SENSORS:
        now_c = getattr(sample, f"temp_{sensor}_c")
        critical_c = getattr(sample, f"temp_{sensor}_crit_c") or known_c.get(sensor)
        if now_c is not None and critical_c is not None and now_c >= critical_c - margin_c:
            words = "is overheated" if now_c >= critical_c else "has not cooled down"
            return f"{name} {words}: {sensor} {now_c:g} °C, critical {critical_c:g} °C"
    return None


def _critical_c(sample: GpuSample) -> Mapping[str, float]:
    known = chip(int(sample.pci_id.rpartition(":")[2], 16)) if sample.pci_id else None
    return CRITICAL_C.get(known.name, {}) if known else {}


class GpuProbe:
    """Tells a worker its load and that of its cards, by default the one that its process is bound
    to (`cluster.vocabulary.cards`), or else every card below `root`.

    `gpu_trouble` is set while no card is fit for work. An idle card is asked more and more rarely,
    so that it can sleep; until then its utilisation, temperature and power are those it told last.
    """

    def __init__(
        self,
        root: Path = DRM_ROOT,
        *,
        clock: Callable[[], float] = time.monotonic,
        host: Callable[[], Load] = host_load,
        process: Path = Path("/proc/self"),
        card: str | None = None,
    ) -> None:
        self._only = card or os.environ.get(CARD, ANY_CARD)
        self.cards = Cards(root)
        self._clock = clock
        self._host = host
        self._process = process
        self._asking: threading.Thread | None = None
        self._asked_at = 0.0
        self._told = NO_LOAD
        self._watched: dict[str, _Watched] = {}

    def gpus(self) -> list[Gpu]:
        """The cards as a worker announces them; what is unknown of one is None.

        An APU's memory includes what the driver lends it of the host's.
        """
        samples = [_with_memory(card, card.sample(FIELDS)) for card in self._own_cards()]
        return [
            Gpu(sample.family, sample.usable_bytes, bool(sample.is_apu))
            for sample in samples[:MAX_GPUS]
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

    def _own_cards(self) -> list[Card]:
        return [card for card in self.cards if self._only in (ANY_CARD, card.info.pci)]

    def _ask(self) -> None:
        """Ask every card and keep the load."""
        now_s = self._clock()
        own = own_use(self._process)
        own_cards = [self._watch(card) for card in self._own_cards()][:MAX_GPUS]
        loads = [watched.ask(now_s, own) for watched in own_cards]
        if any(watched.is_gone for watched in self._watched.values()):
            self.cards.refresh()
        troubles = [load.trouble for load in loads if load.trouble is not None]
        all_unfit = bool(troubles) and len(troubles) == len(loads)
        self._told = Load(gpus=tuple(loads), gpu_trouble="; ".join(troubles) if all_unfit else None)
        for place, watched in enumerate(own_cards):
            self._asked_at = self._clock()
            power_w = watched.ask_power(self._clock)
            loads[place] = msgspec.structs.replace(loads[place], power_w=power_w)
        self._told = msgspec.structs.replace(self._told, gpus=tuple(loads))

    def _watch(self, card: Card) -> _Watched:
        """The card as watched so far; one that moved keeps its complaint."""
        watched = self._watched.get(card.info.key)
        if watched is None:
            watched = self._watched[card.info.key] = _Watched(card)
        elif watched.card is not card:
            watched.follow(card)
        return watched


class _Watched:
    """One card from heartbeat to heartbeat: what it told last, its pauses, and its complaint."""

    def __init__(self, card: Card) -> None:
        self._complaint: tuple[str, float] | None = None
        self.follow(card)

    def follow(self, card: Card) -> None:
        """Ask this card from now on."""
        self.card = card
        self._rest = Rest(card.info.device)
        self._last: GpuSample | None = None
        self._may_ask_power = False
        self._power_w: float | None = None
        self._power_after_s = -math.inf

    @property
    def is_gone(self) -> bool:
        """Whether the card was not there when it was asked."""
        return self._last is not None and self._last.state is CardState.GONE

    def ask(self, now_s: float, own: Mapping[str, OwnUse]) -> GpuLoad:
        """Its load now, with the process's own use by PCI address."""
        last = self._last
        asked = last is None or self._rest.may_ask(now_s)
        sample = self._sample() if last is None or asked else last
        self._last = sample
        trouble = self._trouble(sample, now_s)
        asleep = sample.state is CardState.SUSPENDED
        if asked:
            self._rest.note(now_s, asleep or bool(sample.gpu_busy_pct) or trouble is not None)
        if asleep or not asked:
            sample = _with_memory(self.card, sample)
        is_active = sample.state is CardState.ACTIVE
        self._may_ask_power = asked and is_active
        self._power_w = self._power_w if is_active else None
        use = own.get(sample.pci or "", NO_USE)
        return GpuLoad(
            free_bytes=sample.usable_free_bytes,
            busy_pct=sample.gpu_busy_pct,
            temperature_c=sample.hottest_c,
            power_w=self._power_w,
            asleep=asleep,
            trouble=trouble,
            own_memory_bytes=use.memory_bytes(bool(sample.is_apu)),
            own_engine_ns=use.engine_ns,
        )

    def ask_power(self, clock: Callable[[], float]) -> float | None:
        """Its power in watts after `ask`, as it was told last while it rests from that."""
        began_s = clock()
        is_due = self._may_ask_power and began_s >= self._power_after_s
        if is_due and not self.card.is_suspended():
            found = self.card.find(self.card.files.read(), ("power_w",)).values.get("power_w")
            self._power_w = found.value if found else None
            ended_s = clock()
            self._power_after_s = ended_s + POWER_REST * (ended_s - began_s)
        return self._power_w

    def _sample(self) -> GpuSample:
        """Its fields now. One that fell asleep while it was asked refuses as if it were reset."""
        sample = self.card.sample(FIELDS)
        fell_asleep = sample.state is CardState.RESETTING and self.card.is_suspended()
        return self.card.sample(FIELDS) if fell_asleep else sample

    def _trouble(self, sample: GpuSample, now_s: float) -> str | None:
        """Why it is not fit; its last complaint stays until it has been well for a while."""
        known = self._complaint
        found = complaint(sample, COOLER_C if known else 0.0)
        if found is not None:
            self._complaint = (found, now_s)
            return found
        if known is not None and now_s - known[1] < WELL_AFTER_S:
            return known[0]
        self._complaint = None
        return None


def _with_memory(card: Card, sample: GpuSample) -> GpuSample:
    """A sample with its memory as it is now, which wakes no card and ends no pause."""
    found = Found()
    parse_sysfs(card.files.read(), MEMORY, found)
    told: dict[str, Any] = {name: field.value for name, field in found.values.items()}
    return replace(sample, **told)
