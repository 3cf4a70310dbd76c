"""Cards watched in the background, each group of fields as often as it changes.

Utilisation changes within milliseconds, temperature within seconds, and every read costs processor
time of the machine that is being watched. So one thread reads fields in groups, each at its own
rate, from files that stay open, and keeps the samples in rings of fixed length. An idle card is
left alone for longer and longer, so that it can sleep. `pcie_bw` has a thread of its own, off
unless asked for: the kernel sleeps for a second in each read.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heapreplace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.gpu.card import Card, Cards, FastReader, FastSample
from perfkit.gpu.device.discovery import DRM_ROOT
from perfkit.gpu.device.record import read_text
from perfkit.gpu.device.schema import CardState, GpuSample
from perfkit.gpu.readings import CardReadings, samples_sheet
from perfkit.gpu.rest import Rest

if TYPE_CHECKING:
    import pandas as pd

#: (seconds, value) in order; unknown values are None.
Series: TypeAlias = Sequence[tuple[float, float | None]]

#: The fields that are read together.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "activity": ("gpu_busy_pct", "vram_used_bytes", "power_w"),
    "memory": ("mem_busy_pct", "vis_vram_used_bytes", "gtt_used_bytes"),
    "clocks": ("sclk_hz", "mclk_hz", "voltage_mv", "throttle_bits"),
    "thermal": ("temp_edge_c", "temp_junction_c", "temp_memory_c", "fan_rpm"),
    "link": ("pcie_speed_gts", "pcie_width"),
}
ACTIVITY = "activity"
_UNKNOWN: Mapping[str, tuple[None, ...]] = {g: (None,) * len(GROUPS[g]) for g in GROUPS}
_BUSY, _POWER = (GROUPS[ACTIVITY].index(name) for name in ("gpu_busy_pct", "power_w"))
#: Reads a second of each group; a group that is left out, or at 0, is not read.
RATES_HZ: Mapping[str, float] = {"activity": 10.0, "memory": 2.0, "clocks": 2.0, "thermal": 1.0}
RATE_MAX_HZ = 1_000.0
ROWS_MAX = 10_000
#: How often new, lost and returned cards are looked for.
REFRESH_S = 5.0
#: Powers further apart are not integrated to energy: the power in between is unknown.
GAP_MAX_S = 5.0
#: Groups that are due within this time are read at one waking.
SLACK_S = 0.001
#: A longer sleep waits for `stop`; a shorter one delays it.
SLEEP_MAX_S = 0.1
#: The number of latest utilisations in the mean.
MEAN_N = 10
#: Stands among the groups that are due for a look for cards.
_REFRESH = ""


def energy_j(power_w: Series, from_s: float, to_s: float) -> float | None:
    """Joules between two moments by the trapezoidal rule, power in between on straight lines.

    None if a power that it rests on is unknown, if none is known before or after, or if two are
    more than GAP_MAX_S apart.
    """
    times = [at for at, _ in power_w]
    first, last = bisect_right(times, from_s) - 1, bisect_left(times, to_s)
    if first < 0 or last >= len(times):
        return None
    joules = 0.0
    for (before_s, before_w), (after_s, after_w) in pairwise(power_w[first : last + 1]):
        if before_w is None or after_w is None or after_s - before_s > GAP_MAX_S:
            return None
        start_s, end_s = max(before_s, from_s), min(after_s, to_s)
        slope = (after_w - before_w) / (after_s - before_s)
        joules += (end_s - start_s) * (before_w + slope * ((start_s + end_s) / 2 - before_s))
    return joules


class Track:
    """One watched card: a ring of samples for each group, and its energy so far."""

    def __init__(self, card: Card, groups: Sequence[str], rows_max: int, *, rests: bool) -> None:
        self._rests = rests
        #: The group that tells whether the card works.
        self._judge = ACTIVITY if ACTIVITY in groups else next(iter(groups), "")
        self.follow(card, groups)
        self.rows: dict[str, deque[FastSample]] = {g: deque(maxlen=rows_max) for g in groups}
        self.energy_j: float | None = None
        self.pcie_bytes_per_s: tuple[int, int] | None = None
        self._power: tuple[float, float | None] = (0.0, None)

    def follow(self, card: Card, groups: Sequence[str]) -> None:
        """Read from a card, which may have moved."""
        self.card = card
        # A card without this file can't fall asleep by itself; it does not appear later.
        can_sleep = (card.info.device / "power/autosuspend_delay_ms").exists()
        self.rest = Rest(card.info.device) if self._rests and can_sleep else None
        self.readers = {group: FastReader(card, GROUPS[group]) for group in groups}

    def read(self, group: str) -> None:
        """Read a group once and keep it; all of it is unknown while the card is left alone."""
        rest = self.rest
        if rest is None or rest.until_s < (now_s := time.monotonic()) or rest.may_ask(now_s):
            sample = self.readers[group].read()
            if rest is not None and group == self._judge:
                works = group == ACTIVITY and bool(sample.values[_BUSY])
                rest.note(sample.monotonic_s, works or sample.state is not CardState.ACTIVE)
        else:
            sample = FastSample(now_s, CardState.ACTIVE, _UNKNOWN[group])
        self.rows[group].append(sample)
        if group == ACTIVITY:
            self._add_energy(sample.monotonic_s, sample.values[_POWER])

    def _add_energy(self, now_s: float, power_w: float | None) -> None:
        """Add the energy since the power before, unless one is unknown or a gap is between."""
        (before_s, before_w), self._power = self._power, (now_s, power_w)
        if before_w is not None and power_w is not None and now_s - before_s <= GAP_MAX_S:
            joules = (now_s - before_s) * (before_w + power_w) / 2
            self.energy_j = joules if self.energy_j is None else self.energy_j + joules

    def close(self) -> None:
        """Close the files that tell whether the card works."""
        if self.rest is not None:
            self.rest.close()

    def latest(self) -> GpuSample:
        """A full sample now, with the energy, the mean utilisation and the PCIe traffic."""
        sample = self.card.sample()
        recent = list(self.rows.get("activity", ()))[-MEAN_N:]
        known = [busy for row in recent if (busy := row.values[_BUSY]) is not None]
        source = dict(sample.source)
        energy = sample.energy_j
        if energy is None and self.energy_j is not None:
            energy, source["energy_j"] = self.energy_j, "sampler:power_w"
        received, sent = self.pcie_bytes_per_s or (None, None)
        return replace(
            sample,
            energy_j=energy,
            gpu_busy_mean_pct=fmean(known) if known else None,
            gpu_busy_mean_n=len(known) or None,
            pcie_rx_bytes_per_s=received,
            pcie_tx_bytes_per_s=sent,
            source=source,
        )


class GpuSampler(Showable):
    """Watches the cards below `root` from `start`, or `with`, until `stop`.

    `rates_hz` gives each of `GROUPS` its rate. A ring keeps the latest `rows_max` samples of a
    card's group. `pcie_bw` also watches the traffic over PCIe. `let_sleep` leaves an idle card
    alone (see `Rest`); without it a card that is watched never sleeps. Raises ValueError for an
    unknown group and for a rate outside 0 … 1,000 Hz.
    """

    def __init__(
        self,
        root: Path | Cards = DRM_ROOT,
        *,
        rates_hz: Mapping[str, float] = RATES_HZ,
        rows_max: int = ROWS_MAX,
        pcie_bw: bool = False,
        let_sleep: bool = True,
    ) -> None:
        for group, rate in rates_hz.items():
            if group not in GROUPS:
                raise ValueError(f"no group {group!r}; there are {', '.join(GROUPS)}")
            if not 0 <= rate <= RATE_MAX_HZ:
                raise ValueError(f"{group} at {rate:g} Hz; give it 0 to {RATE_MAX_HZ:,.0f}")
        self.cards = root if isinstance(root, Cards) else Cards(root)
        self.rates_hz = {group: rate for group, rate in rates_hz.items() if rate}
        self._rows_max = rows_max
        self._pcie_bw = pcie_bw
        self._let_sleep = let_sleep
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []
        #: The root's entries at the last look for cards.
        self._seen: frozenset[tuple[str, int]] | None = None
        self.tracks: Mapping[str, Track] = {}
        self._track()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the thread; a sampler that runs goes on."""
        if not self._threads:
            self._done.clear()
            targets = {"gpu-sampler": self._run}
            if self._pcie_bw:
                targets["gpu-pcie-bw"] = self._watch_pcie
            for name, target in targets.items():
                self._threads.append(threading.Thread(target=target, name=name, daemon=True))
                self._threads[-1].start()
        return self

    def stop(self) -> None:
        """End the threads and close the files; the samples stay."""
        self._done.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        self.cards.close()
        for track in self.tracks.values():
            track.close()

    @property
    def cpu_s(self) -> float:
        """Processor time in seconds that its threads have used since `start`; 0 after `stop`."""
        return sum(map(thread_cpu_s, self._threads))

    def read(self, group: str) -> None:
        """Read a group of every card now, in the calling thread; raises KeyError if not watched."""
        with self._lock:
            for track in self.tracks.values():
                track.read(group)

    def samples(self) -> list[GpuSample]:
        """A full sample of each card now."""
        with self._lock:
            return [track.latest() for track in self.tracks.values()]

    def sample(self, key: str) -> GpuSample | None:
        """A full sample of one card now; None while it is left alone so that it can fall asleep.

        Raises KeyError if it is not watched.
        """
        with self._lock:
            track = self.tracks[key]
            if track.rest is not None and not track.rest.may_ask(time.monotonic()):
                return None
            return track.latest()

    def rows(self, key: str, group: str) -> list[FastSample]:
        """The samples kept of a card's group, oldest first; the key is its PCI address."""
        with self._lock:
            return list(self.tracks[key].rows[group])

    def to_frame(self) -> pd.DataFrame:
        """A row for each sample of each card, oldest first; fields not read then are None."""
        rows: list[dict[str, Any]] = [
            {"pci": key, "monotonic_s": row.monotonic_s, "state": row.state.value}
            | dict(zip(GROUPS[group], row.values, strict=True))
            for key in self.tracks
            for group in self.rates_hz
            for row in self.rows(key, group)
        ]
        rows.sort(key=lambda row: row["monotonic_s"])
        watched = [name for group in self.rates_hz for name in GROUPS[group]]
        return data_frame(rows, ["pci", "monotonic_s", "state", *watched])

    def _sheets(self) -> Iterator[Sheet]:
        yield samples_sheet(self.samples())

    def _figures(self) -> Figures:
        return CardReadings(tuple(self.samples()))._figures()

    def encode(self) -> str:
        """A JSON list with a full sample of each card now, one to a line."""
        return CardReadings(tuple(self.samples())).encode()

    def _track(self) -> None:
        """Watch cards that are new, and follow those that moved."""
        for card in self.cards:
            before = self.tracks.get(card.info.key)
            if before is None:
                track = Track(card, [*self.rates_hz], self._rows_max, rests=self._let_sleep)
                # Others may be reading the old one.
                self.tracks = {**self.tracks, card.info.key: track}
            elif before.card is not card:
                before.follow(card, [*self.rates_hz])

    def _run(self) -> None:
        """Read each group when it is due; missed times are left out.

        Each line costs processor time: after a sleep, its code is no longer in the caches.
        """
        clock, sleep = time.monotonic, time.sleep
        now_s = clock()
        periods_s = {group: 1 / rate for group, rate in self.rates_hz.items()}
        due = [(now_s, group) for group in periods_s] + [(now_s + REFRESH_S, _REFRESH)]
        periods_s[_REFRESH] = REFRESH_S
        heapify(due)
        while True:
            within_s = due[0][0] - clock()
            if within_s > SLEEP_MAX_S:
                self._done.wait(within_s)
            elif within_s > 0:
                # Takes half the processor time of an Event's wait, and delays `stop` little.
                sleep(within_s)
            if self._done.is_set():
                return
            with self._lock:
                now_s = clock()
                while due[0][0] <= now_s + SLACK_S:
                    at_s, group = due[0]
                    if group == _REFRESH:
                        self._refresh()
                    else:
                        for track in self.tracks.values():
                            track.read(group)
                    next_s = at_s + periods_s[group]
                    missed = next_s <= now_s
                    heapreplace(due, (now_s + periods_s[group] if missed else next_s, group))

    def _refresh(self) -> None:
        """Look for cards again if the root's entries are not those of the last look."""
        seen = _entries(self.cards.root)
        if seen != self._seen:
            self._seen = seen
            self.cards.refresh()
            self._track()

    def _watch_pcie(self) -> None:
        """Read `pcie_bw` of each card in turn, a second each; suspended ones are left asleep."""
        while True:
            with self._lock:
                awake = [t for t in self.tracks.values() if _is_awake(t)]
            for track in awake:
                track.pcie_bytes_per_s = read_pcie_bw(track.card.info.device)
            if self._done.wait(1.0):
                return


def _is_awake(track: Track) -> bool:
    """Whether a read would neither wake the card nor keep it awake."""
    rests = track.rest is not None and not track.rest.may_ask(time.monotonic())
    return not rests and not track.card.is_suspended()


def _entries(root: Path) -> frozenset[tuple[str, int]] | None:
    """The entries of a root and their inodes, which are new for a card that came back."""
    try:
        with os.scandir(root) as entries:
            return frozenset((entry.name, entry.inode()) for entry in entries)
    except OSError:
        return None


def thread_cpu_s(thread: threading.Thread) -> float:
    """Processor time in seconds that a thread, which must be running, has used."""
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def read_pcie_bw(device: Path) -> tuple[int, int] | None:
    """Bytes a second received and sent over PCIe; takes a second, and is None if it can't be read.

    The file counts packets received and sent within a second, and the largest payload of one
    (amdgpu's `pcie_bw`), so this is an upper bound.
    """
    words = (read_text(device / "pcie_bw") or "").split()
    if len(words) != 3 or not all(word.isascii() and word.isdigit() for word in words):
        return None
    received, sent, payload_bytes = map(int, words)
    return received * payload_bytes, sent * payload_bytes
