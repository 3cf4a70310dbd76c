"""A card and all its sources behind one sample: which is asked first, and what they add up to.

Field by field the first source that knows wins. Three things come before any value: whether the
card is still there, whether it sleeps (asking would wake it, and a card that is asked every second
never sleeps), and, when every sensor refuses, whether it is being reset.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from perfkit.gpu.base import (
    PCIE_GENERATIONS,
    READINGS,
    Backend,
    Found,
    GpuSample,
    Number,
    State,
)
from perfkit.gpu.chips import chip
from perfkit.gpu.discovery import DRM_ROOT, CardInfo, discover
from perfkit.gpu.files import HeldFile
from perfkit.gpu.gpu_metrics import MetricsBackend
from perfkit.gpu.sysfs import SENSORS, Candidate, SysfsBackend, hwmon_folder, labels

#: Two figures of utilisation further apart than this are told apart in `errors`.
DISAGREE_PCT = 25.0
#: The kernel says these while it resets a card or is about to suspend the machine.
_BUSY = frozenset({errno.EPERM, errno.EBUSY})
#: So many fast reads later the best file of each field is looked for again.
REPLAN_AFTER = 1_000
_NOT_WOKEN = "the card is suspended and is not woken to be asked"
_PAIRS = ("vram", "vis_vram", "gtt")


class Card:
    """One card and its backends, which are asked in order; closing it lets go of all its files."""

    def __init__(self, info: CardInfo, more: Sequence[Backend] = ()) -> None:
        self.info = info
        self.sysfs = SysfsBackend(info.device)
        self.metrics = MetricsBackend(info.device)
        self.backends: Sequence[Backend] = (self.sysfs, self.metrics, *more)
        self._states = self._state_files()
        self._inode: int | None = None

    def sample(self, wanted: Collection[str] = READINGS) -> GpuSample:
        """The fields wanted, now; never raises for what the card says."""
        identity = GpuSample(
            card=self.info.card,
            pci=self.info.pci,
            name=self.info.name,
            driver=self.info.driver,
            pci_id=self.info.pci_id,
            family=self.info.family,
            monotonic_s=time.monotonic(),
        )
        if not self._is_there():
            text = "the card is gone"
            return replace(identity, state=State.GONE, errors=dict.fromkeys(wanted, text))
        if self.is_suspended():
            errors = dict.fromkeys(wanted, _NOT_WOKEN)
            return replace(
                identity, state=State.SUSPENDED, errors=errors, is_apu=self._chip_is_apu()
            )
        found = self.read(wanted)
        state = _state(found)
        if state is State.GONE:
            self.close()
        return replace(identity, state=state, is_apu=self.is_apu(), **_values(found))

    def read(self, wanted: Collection[str]) -> Found:
        """What the backends know of some fields, whatever the card is up to."""
        found = Found()
        for backend in self.backends:
            missing = [name for name in wanted if name not in found.readings]
            if missing:
                backend.read(missing, found)
        return found

    def is_suspended(self) -> bool:
        """Whether asking the card for anything would wake it; this does not."""
        for file in tuple(self._states):
            try:
                return file.read().startswith((b"suspend", b"D3"))
            except OSError:
                self._states.remove(file)  # until the files are opened anew
        return False

    def is_apu(self) -> bool | None:
        """Whether it shares its chip with the processor; None when nothing tells.

        After the table of chips: the revision of `gpu_metrics`, then the sensor `vddnb`, which only
        APUs have, and the fan or power cap, which only cards have.
        """
        known = self._chip_is_apu()
        if known is not None:
            return known
        if self.metrics.revision is not None:
            return self.metrics.revision[0] != 1
        hwmon = hwmon_folder(self.info.device)
        if hwmon is None:
            return None
        if "vddnb" in labels(hwmon, "in"):
            return True
        return False if any(os.path.exists(hwmon / f) for f in ("pwm1", "power1_cap")) else None

    def close(self) -> None:
        """Close every file; the next sample opens them again."""
        for backend in self.backends:
            backend.close()
        for file in self._states:
            file.close()
        self._states = self._state_files()

    def _state_files(self) -> list[HeldFile]:
        """What says whether it sleeps, without waking it."""
        return [HeldFile(self.info.device / f) for f in ("power/runtime_status", "power_state")]

    def _chip_is_apu(self) -> bool | None:
        found = None if self.info.device_id is None else chip(self.info.device_id)
        return found.is_apu if found else None

    def _is_there(self) -> bool:
        """Whether the folder is; files of one that has come back are opened anew."""
        try:
            inode = os.stat(self.info.device).st_ino
        except OSError:
            self.close()
            self._inode = None
            return False
        if self._inode not in (None, inode):
            self.close()
        self._inode = inode
        return True


def _state(found: Found) -> State:
    """Gone or resetting when every sensor says so, and active otherwise."""
    codes = {
        trouble.errno
        for name, trouble in found.troubles.items()
        if name in SENSORS and trouble.errno != errno.ENOENT
    }
    if SENSORS.isdisjoint(found.readings):
        if errno.ENODEV in codes:
            return State.GONE
        if codes and codes <= _BUSY:
            return State.RESETTING
    return State.ACTIVE


def _values(found: Found) -> dict[str, Any]:
    """The fields of a sample, with what the readings say of each other."""
    readings = dict(found.readings)
    errors = {
        name: trouble.text
        for name, trouble in found.troubles.items()
        if name not in readings or trouble.errno != errno.ENOENT
    }
    for pair in _PAIRS:
        used, total = readings.get(f"{pair}_used_bytes"), readings.get(f"{pair}_total_bytes")
        if used and total and used.value > total.value:
            del readings[f"{pair}_used_bytes"]
            errors[f"{pair}_used_bytes"] = (
                f"{used.source}: {used.value:,} is more than the total of {total.value:,}"
            )
    now, average = readings.get("gpu_busy_pct"), readings.get("gpu_busy_avg_pct")
    if now and average and abs(now.value - average.value) > DISAGREE_PCT:
        errors["gpu_busy_pct"] = (
            f"{now.source} says {now.value:g} %, {average.source} {average.value:g} %"
        )
    values: dict[str, Any] = {name: reading.value for name, reading in readings.items()}
    source = {name: reading.source for name, reading in readings.items()}
    if power := readings.get("power_w"):
        values["power_kind"] = power.kind
    if speed := readings.get("pcie_speed_gts"):
        values["pcie_gen"] = PCIE_GENERATIONS.get(speed.value)
    return {**values, "source": source, "errors": errors}


class Row(NamedTuple):
    """A fast reading: when on the monotonic clock, in which state, and the values in order."""

    monotonic_s: float
    state: State
    values: tuple[Number | None, ...]


class FastReader:
    """A few fields of a card, again and again: one read of an open file for each.

    Which file has a field is found out once. One that fails is looked for among all sources, and
    when nothing of the card can be read any more its files are closed and found anew.
    """

    def __init__(self, card: Card, fields: Sequence[str]) -> None:
        unknown = [name for name in fields if name not in READINGS]
        if unknown:
            raise ValueError(f"no field {unknown[0]!r}; there are {', '.join(READINGS)}")
        self.card = card
        self.fields = tuple(fields)
        self._plan: list[Candidate | None] = []
        self._elsewhere = False
        self._reads = 0

    def read(self) -> Row:
        """The fields now; None is unknown, and all of them are while the card is suspended."""
        now = time.monotonic()
        if self.card.is_suspended():
            return Row(now, State.SUSPENDED, (None,) * len(self.fields))
        if self._reads % REPLAN_AFTER == 0:
            self._plan, self._elsewhere = self._find()
        self._reads += 1
        values: list[Number | None] = []
        for candidate in self._plan:
            if candidate is None:
                values.append(None)
                continue
            try:
                values.append(candidate.parse(candidate.file.read()))
            except (OSError, ValueError):
                return self._read_all(now)
        return self._read_all(now) if self._elsewhere else Row(now, State.ACTIVE, tuple(values))

    def _find(self) -> tuple[list[Candidate | None], bool]:
        """The file of each field, and whether a field has none and another source has it."""
        plan = [self._working(name) for name in self.fields]
        fileless = [name for name, file in zip(self.fields, plan, strict=True) if file is None]
        found = self.card.read(fileless)
        return plan, bool(found.readings) or _state(found) is not State.ACTIVE

    def _working(self, name: str) -> Candidate | None:
        for candidate in self.card.sysfs.candidates.get(name, ()):
            with suppress(OSError, ValueError):
                candidate.parse(candidate.file.read())
                return candidate
        return None

    def _read_all(self, now: float) -> Row:
        """Every field from whichever source has it."""
        found = self.card.read(self.fields)
        state = _state(found)
        if state is State.GONE:
            self.card.close()
            self._reads = 0
        readings = found.readings
        values = tuple(readings[n].value if n in readings else None for n in self.fields)
        return Row(now, state, values)


class Cards:
    """The cards below a root, by PCI address; one that goes stays known and may come back.

    `backends` makes a card's further sources, such as the vendor's tools, which are asked last.
    """

    def __init__(
        self,
        root: Path = DRM_ROOT,
        backends: Callable[[CardInfo], Sequence[Backend]] = lambda info: (),
    ) -> None:
        self.root = root
        self._backends = backends
        self._cards: dict[str, Card] = {}
        self.skipped: Mapping[str, str] = {}
        self.refresh()

    def __iter__(self) -> Iterator[Card]:
        return iter(list(self._cards.values()))

    def __len__(self) -> int:
        return len(self._cards)

    def refresh(self) -> None:
        """Look for cards anew; one that moved is found at its new place."""
        found = discover(self.root)
        self.skipped = found.skipped
        for info in found.cards:
            before = self._cards.get(info.key)
            if before is None or before.info != info:
                if before is not None:
                    before.close()
                self._cards[info.key] = Card(info, self._backends(info))

    def sample(self) -> list[GpuSample]:
        """All fields of every card; what has gone is looked for again."""
        samples = [card.sample() for card in self]
        if any(sample.state is State.GONE for sample in samples):
            self.refresh()
            samples = [card.sample() for card in self]
        return samples

    def close(self) -> None:
        """Close all cards' files."""
        for card in self:
            card.close()
