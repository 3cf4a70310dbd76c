"""A card and all its sources behind one sample: which is asked first, and what they add up to.

Field by field the first source that knows wins. Three things come before any value: whether the
card is still there, whether it sleeps (asking would wake it, and a card that is asked every second
never sleeps), and, if every sensor refuses, whether it is being reset.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from perfkit.gpu.device.discovery import DRM_ROOT, CardInfo, discover
from perfkit.gpu.device.record import (
    HWMON,
    PADDING,
    PAGE_BYTES,
    WORD_BYTES,
    DeviceFiles,
    DeviceRecord,
    HeldFile,
)
from perfkit.gpu.device.schema import (
    PCIE_GENERATIONS,
    SAMPLED_FIELDS,
    CardState,
    Found,
    GpuSample,
    Number,
)
from perfkit.gpu.sources.doubts import explain
from perfkit.gpu.sources.gpu_metrics import parse_metrics, revision_of
from perfkit.gpu.sources.link import link_candidates, parse_link
from perfkit.gpu.sources.sysfs import SENSORS, Parse, candidates, no_source, parse_sysfs, partitions
from perfkit.gpu.sources.tools import Tool

#: Two figures of utilisation further apart than this are noted in `errors`.
DISAGREE_PCT = 25.0
#: The kernel says these while it resets a card or is about to suspend the machine.
_BUSY = frozenset({errno.EPERM, errno.EBUSY})
#: Fast reads after which the best file of each field is looked for again.
REPLAN_AFTER = 1_000
#: These say whether a card sleeps, without waking it. The first one knows `active`, `suspended` and
#: the ways there and back; with power management off or in error, the second one does.
_STATE_FILES = ("power/runtime_status", "power_state")
_AWAKE = b"active"
_ASLEEP = (b"suspend", b"resum", b"D3")
#: The driver keeps these in memory, so that they don't wake a card (amdgpu_vram_mgr.c and
#: amdgpu_gtt_mgr.c).
_KNOWN_ASLEEP = ("vram_total_bytes", "vis_vram_total_bytes", "gtt_total_bytes")
_ACTIVE = CardState.ACTIVE
_NOT_WOKEN = "the card is suspended and is not woken to be asked"
_PAIRS = ("vram", "vis_vram", "gtt")


class Card:
    """One card; its files stay open until `close`. `tools` are asked last, in order."""

    def __init__(self, info: CardInfo, tools: Sequence[Tool] = ()) -> None:
        self.info = info
        self._tools = tools
        self._inode: int | None = None
        self.files: DeviceFiles
        self._states: list[HeldFile]
        self._forget_files()

    def identity(self) -> GpuSample:
        """Which card it is, without a value; nothing of it is read."""
        return GpuSample(
            card=self.info.card,
            pci=self.info.pci,
            name=self.info.name,
            driver=self.info.driver,
            pci_id=self.info.pci_id,
            family=self.info.chip.family if self.info.chip else None,
            is_apu=self.info.chip.is_apu if self.info.chip else None,
            monotonic_s=time.monotonic(),
        )

    def sample(self, wanted: Collection[str] = SAMPLED_FIELDS) -> GpuSample:
        """The fields wanted, now; never raises for what the card says."""
        identity = self.identity()
        if not self._is_there():
            errors = dict.fromkeys(wanted, "the card is gone")
            return replace(identity, state=CardState.GONE, errors=errors)
        record = self.files.read()
        if self.is_suspended():
            found = Found()
            parse_sysfs(record, [name for name in wanted if name in _KNOWN_ASLEEP], found)
            values = _values(found)
            values["errors"] |= {n: _NOT_WOKEN for n in wanted if n not in found.values}
            return replace(identity, state=CardState.SUSPENDED, **values)
        found = self.find(record, wanted)
        state = _state(found)
        if state is CardState.GONE:
            self.close()
        values = {**_values(found), **partitions(record), "is_apu": self._is_apu(record)}
        explain(values, record, self._chip_name, identity.family or "")
        return replace(identity, state=state, **values)

    def find(self, record: DeviceRecord, wanted: Collection[str]) -> Found:
        """The sources' values of some fields, in any state of the card."""
        found = Found()
        parse_sysfs(record, wanted, found)
        parse_link(record, wanted, found, self.info.chip, bool(self._is_apu(record)))
        missing = [name for name in wanted if name not in found.values]
        parse_metrics(record, missing, found, self._chip_name)
        for tool in self._tools:
            missing = [name for name in wanted if name not in found.values]
            if missing:
                tool.read((self.info.pci, self.info.card), missing, found)
        for name in wanted:
            if name not in found.values and name not in found.troubles:
                found.fail(name, no_source(record, name), errno.ENOENT)
        return found

    def _is_apu(self, record: DeviceRecord) -> bool | None:
        known = self.info.chip
        return _seems_apu(record) if known is None or known.is_apu is None else known.is_apu

    @property
    def _chip_name(self) -> str:
        return self.info.chip.name if self.info.chip else ""

    def is_suspended(self) -> bool:
        """Whether asking the card for anything would wake it; this does not."""
        for file in self._states:
            try:
                state = file.read(WORD_BYTES)
            except OSError:
                # Not asked again until the files are opened again.
                self._states = [other for other in self._states if other is not file]
                continue
            if state[: len(_AWAKE)] == _AWAKE:
                return False
            if state.startswith(_ASLEEP):
                return True
        return False

    def close(self) -> None:
        """Close every file; the next sample opens them again, under hwmon's new number."""
        self.files.close()
        self._forget_files()

    def _forget_files(self) -> None:
        self.files = DeviceFiles(self.info.device)
        self._states = [self.files.held(name) for name in _STATE_FILES]

    def _is_there(self) -> bool:
        """Whether the folder is; a card that came back gets its files opened again."""
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


def _seems_apu(record: DeviceRecord) -> bool | None:
    """Whether an unknown chip is an APU; None if nothing tells.

    The revision of `gpu_metrics` tells, then the sensor `vddnb`, which only APUs have, then the fan
    or power cap, which only cards have.
    """
    revision = revision_of(record)
    if revision is not None:
        return revision[0] != 1
    if record.labels is None:
        return None
    if "vddnb" in record.labels["in"]:
        return True
    on_cards = (f"{HWMON}pwm1", f"{HWMON}power1_cap")
    return False if any(record.text(name) is not None for name in on_cards) else None


def _state(found: Found) -> CardState:
    """Gone or resetting when every sensor says so, and active otherwise."""
    codes = {
        trouble.errno
        for name, trouble in found.troubles.items()
        if name in SENSORS and trouble.errno != errno.ENOENT
    }
    if SENSORS.isdisjoint(found.values):
        if errno.ENODEV in codes:
            return CardState.GONE
        if codes and codes <= _BUSY:
            return CardState.RESETTING
    return CardState.ACTIVE


def _values(found: Found) -> dict[str, Any]:
    """The fields of a sample, with what they say of each other."""
    told = dict(found.values)
    errors = {
        name: trouble.text
        for name, trouble in found.troubles.items()
        if name not in told or trouble.errno != errno.ENOENT
    }
    for pair in _PAIRS:
        used, total = told.get(f"{pair}_used_bytes"), told.get(f"{pair}_total_bytes")
        if used and total and used.value > total.value:
            del told[f"{pair}_used_bytes"]
            errors[f"{pair}_used_bytes"] = (
                f"{used.source}: {used.value:,} is more than the total of {total.value:,}"
            )
    now, average = told.get("gpu_busy_pct"), told.get("gpu_busy_avg_pct")
    if now and average and abs(now.value - average.value) > DISAGREE_PCT:
        errors["gpu_busy_pct"] = (
            f"{now.source} says {now.value:g} %, {average.source} {average.value:g} %"
        )
    values: dict[str, Any] = {name: reading.value for name, reading in told.items()}
    source = {name: reading.source for name, reading in told.items()}
    if power := told.get("power_w"):
        values["power_kind"] = power.kind
    if speed := told.get("pcie_speed_gts"):
        values["pcie_gen"] = PCIE_GENERATIONS.get(speed.value)
    return {**values, "source": source, "errors": errors}


class FastSample(NamedTuple):
    """A fast sample: when on the monotonic clock, in which state, and the values in order."""

    monotonic_s: float
    state: CardState
    values: tuple[Number | None, ...]


class Place(NamedTuple):
    """Where a fast reader finds a field: a file, how much of it to read, and its parser, if any."""

    file: HeldFile
    size: int
    parse: Parse | None


class FastReader:
    """A few fields of a card, again and again: one read of an open file for each.

    The file of a field is found once. If one fails, all sources are asked; if nothing of the card
    can be read any more, its files are closed and found again. Raises ValueError for an unknown
    field.
    """

    def __init__(self, card: Card, fields: Sequence[str]) -> None:
        unknown = [name for name in fields if name not in SAMPLED_FIELDS]
        if unknown:
            raise ValueError(f"no field {unknown[0]!r}; there are {', '.join(SAMPLED_FIELDS)}")
        self.card = card
        self.fields = tuple(fields)
        self._plan: list[Place] = []
        self._files = card.files
        self._status = self._files.held(_STATE_FILES[0])
        self._elsewhere = False
        self._reads = 0

    def read(self) -> FastSample:
        """The fields now; unknown values are None, all of them while the card is suspended."""
        now = time.monotonic()
        pread = os.pread
        try:
            is_awake = pread(self._status.fd, WORD_BYTES, 0).startswith(_AWAKE)
        except OSError:
            is_awake = False  # perhaps: its file is missing, or not open yet
        if not is_awake and self.card.is_suspended():
            return FastSample(now, CardState.SUSPENDED, (None,) * len(self.fields))
        if self._reads % REPLAN_AFTER == 0:
            self._find_files()
        self._reads += 1
        if self._elsewhere:
            return self._read_all(now)
        try:
            values = [
                parse(pread(file.fd, size, 0)) if parse is not None else None
                for file, size, parse in self._plan
            ]
        except (OSError, ValueError):
            return self._read_all(now)
        return FastSample(now, _ACTIVE, tuple(values))

    def _find_files(self) -> None:
        """Find the file of each field, and whether another source has a field without one."""
        self._files = self.card.files
        self._status = self._files.held(_STATE_FILES[0])
        record = self._files.read()
        self._plan = [self._working(record, name) for name in self.fields]
        places = zip(self.fields, self._plan, strict=True)
        found = self.card.find(record, [name for name, place in places if place.parse is None])
        self._elsewhere = bool(found.values) or _state(found) is not CardState.ACTIVE

    def _working(self, record: DeviceRecord, name: str) -> Place:
        files = (*candidates(record, name), *link_candidates(record, name, self.card.info.chip))
        for candidate in files:
            with suppress(OSError, ValueError):
                content = record[candidate.file]
                candidate.parse(content)
                size = WORD_BYTES if len(content.rstrip(PADDING)) < WORD_BYTES // 2 else PAGE_BYTES
                return Place(self._files.held(candidate.file), size, candidate.parse)
        return Place(self._files.held("uevent"), 0, None)

    def _read_all(self, now: float) -> FastSample:
        """Every field from the first source that has it."""
        found = self.card.find(self.card.files.read(), self.fields)
        state = _state(found)
        if state is CardState.GONE:
            self.card.close()
        if self.card.files is not self._files:
            self._reads = 0
        known = found.values
        values = tuple(known[name].value if name in known else None for name in self.fields)
        return FastSample(now, state, values)


class Cards:
    """The cards below a root, by PCI address; one that goes stays known and may come back.

    `tools` are further sources of every card, such as `vendor_tools()`.
    """

    def __init__(self, root: Path = DRM_ROOT, tools: Sequence[Tool] = ()) -> None:
        self.root = root
        self._tools = tools
        self._cards: dict[str, Card] = {}
        self.skipped: Mapping[str, str] = {}
        self.refresh()

    def __iter__(self) -> Iterator[Card]:
        return iter(list(self._cards.values()))

    def __len__(self) -> int:
        return len(self._cards)

    def refresh(self) -> None:
        """Look for cards again; one that moved is found at its new place."""
        found = discover(self.root)
        self.skipped = found.skipped
        for info in found.cards:
            before = self._cards.get(info.key)
            if before is None or before.info != info:
                if before is not None:
                    before.close()
                self._cards[info.key] = Card(info, self._tools)

    def sample(self) -> list[GpuSample]:
        """All fields of every card; cards that went are looked for again."""
        samples = [card.sample() for card in self]
        if any(sample.state is CardState.GONE for sample in samples):
            self.refresh()
            samples = [card.sample() for card in self]
        return samples

    def close(self) -> None:
        """Close all cards' files."""
        for card in self:
            card.close()
