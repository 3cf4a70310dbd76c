"""One schema for the values of every card, and the values that are refused.

Cards, kernels and tools disagree about names, units and what to say when they don't know. All of it
ends as a `GpuSample`: units are in the names, an unknown value is None and never 0, and each value
says where it came from. A value outside `PLAUSIBLE_RANGES` is refused with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from errno import ENOENT
from typing import Any, NamedTuple, TypeAlias

Number: TypeAlias = int | float


class CardState(StrEnum):
    """The state of a card; only an active one has values; a sleeping one, memory totals."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    RESETTING = "resetting"
    GONE = "gone"


class PowerKind(StrEnum):
    """The kind of a power: the driver's average, the moment's, or the whole socket's."""

    AVERAGE = "average"
    INSTANT = "instant"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """One card at one moment. Unknown values are None; `errors` says why, field by field.

    `gpu_busy_pct` is of the moment and `gpu_busy_avg_pct` the firmware's own average of about a
    second; `gpu_busy_mean_pct` is the mean of a sampler's last `gpu_busy_mean_n` samples.
    `energy_j` counts up: from the card's own counter where its unit is documented, or else summed
    by a sampler since it started. `throttle_bits` are those of the kernel's `gpu_metrics`, and
    `source` names which of its two words they are; `throttle_reasons` are the same in words, empty
    if nothing throttles the card. `ras_corrected_n` and `ras_uncorrected_n` count memory and other
    errors since the driver was loaded. `errors` also notes values that another source contradicts.
    """

    card: str
    pci: str | None = None
    name: str | None = None
    driver: str | None = None
    state: CardState = CardState.ACTIVE
    pci_id: str | None = None
    family: str | None = None
    is_apu: bool | None = None
    monotonic_s: float | None = None
    gpu_busy_pct: float | None = None
    gpu_busy_avg_pct: float | None = None
    gpu_busy_mean_pct: float | None = None
    gpu_busy_mean_n: int | None = None
    mem_busy_pct: float | None = None
    vram_used_bytes: int | None = None
    vram_total_bytes: int | None = None
    vis_vram_used_bytes: int | None = None
    vis_vram_total_bytes: int | None = None
    gtt_used_bytes: int | None = None
    gtt_total_bytes: int | None = None
    sclk_hz: int | None = None
    mclk_hz: int | None = None
    power_w: float | None = None
    power_kind: PowerKind | None = None
    power_cap_w: float | None = None
    energy_j: float | None = None
    temp_edge_c: float | None = None
    temp_junction_c: float | None = None
    temp_memory_c: float | None = None
    temp_edge_crit_c: float | None = None
    temp_junction_crit_c: float | None = None
    temp_memory_crit_c: float | None = None
    fan_rpm: int | None = None
    voltage_mv: int | None = None
    pcie_speed_gts: float | None = None
    pcie_gen: int | None = None
    pcie_width: int | None = None
    pcie_rx_bytes_per_s: int | None = None
    pcie_tx_bytes_per_s: int | None = None
    throttle_bits: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    ras_corrected_n: int | None = None
    ras_uncorrected_n: int | None = None
    compute_partition: str | None = None
    memory_partition: str | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def usable_bytes(self) -> int | None:
        """Memory that a program can use: video memory, and the GTT of an APU, whose video memory
        is only the part that its firmware set aside.
        """
        return self._usable(self.vram_total_bytes, self.gtt_total_bytes)

    @property
    def usable_free_bytes(self) -> int | None:
        """What is free of it."""
        total = self.usable_bytes
        used = self._usable(self.vram_used_bytes, self.gtt_used_bytes)
        return None if total is None or used is None else max(0, total - used)

    def _usable(self, vram_bytes: int | None, gtt_bytes: int | None) -> int | None:
        if vram_bytes is None or not self.is_apu:
            return vram_bytes
        return None if gtt_bytes is None else vram_bytes + gtt_bytes

    @property
    def hottest_c(self) -> float | None:
        """The highest known temperature."""
        told = (self.temp_edge_c, self.temp_junction_c, self.temp_memory_c)
        return max((value for value in told if value is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """The fields in order, as JSON values."""
        return asdict(self)


#: Fields that identify the card, or follow from other fields; no source is asked for them.
_NOT_READ = (
    "card pci name driver state pci_id family is_apu monotonic_s gpu_busy_mean_pct "
    "gpu_busy_mean_n power_kind pcie_gen pcie_rx_bytes_per_s pcie_tx_bytes_per_s throttle_reasons "
    "compute_partition memory_partition source errors"
).split()
#: Every field that a source may be asked for, in the order of the schema.
SAMPLED_FIELDS = tuple(f.name for f in fields(GpuSample) if f.name not in _NOT_READ)

#: PCIe transfer rates by generation, in GT/s per lane (PCI Express Base Specification).
PCIE_GENERATIONS: Mapping[float, int] = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}

#: Lowest and highest plausible value by the end of a field's name; the first match counts.
_RANGES: Mapping[str, tuple[Number, Number]] = {
    "_pct": (0, 100),
    "_total_bytes": (1, 1 << 50),
    "_used_bytes": (0, 1 << 50),
    "_hz": (0, 10**10),
    "_cap_w": (1e-6, 2_000),
    # A power that underflowed is near 2³² µW, which is 4,295 W; no card draws half of that.
    "power_w": (0, 2_000),
    "_j": (0, 1e11),
    "_crit_c": (1, 200),
    # A Polaris card whose sensor is asleep says 511 °C.
    "_c": (-50, 200),
    "_rpm": (0, 30_000),
    "_mv": (0, 5_000),
    "_gts": (1, 64),
    "pcie_width": (1, 32),
    "throttle_bits": (0, 2**64 - 2),
    "_n": (0, 2**64 - 2),
}
PLAUSIBLE_RANGES: Mapping[str, tuple[Number, Number]] = {
    name: next(limits for end, limits in _RANGES.items() if name.endswith(end))
    for name in SAMPLED_FIELDS
}


#: A chip that runs has none of these at exactly zero: drivers, firmware and tools say it for a
#: sensor that is missing or sleeps, and for a figure that they do not fill.
NEVER_ZERO = frozenset(
    "temp_edge_c temp_junction_c temp_memory_c voltage_mv power_w energy_j".split()
)


class Implausible(ValueError):
    """A value that no card can have; the message says what was read."""


def check(name: str, value: Number) -> Number:
    """The value of a field; raises Implausible outside its `PLAUSIBLE_RANGES`, and for a zero that
    stands for unknown.
    """
    if value == 0 and name in NEVER_ZERO:
        raise Implausible("0, which stands for an unknown value")
    low, high = PLAUSIBLE_RANGES[name]
    if not low <= value <= high:
        raise Implausible(f"{value:,} is not within {low:,} … {high:,}")
    return value


class FieldValue(NamedTuple):
    """One value and where it is from, as `sysfs:file`, `hwmon:file` or `tool:name`."""

    value: Number
    source: str
    kind: PowerKind | None = None


class Trouble(NamedTuple):
    """Why a field has no value; `errno` if the kernel said so."""

    text: str
    errno: int | None = None


class Found:
    """What sources found so far, by field; the first value of a field stays, and so does the first
    reason why it has none, unless a later one says more.
    """

    __slots__ = ("troubles", "values")

    def __init__(self) -> None:
        self.values: dict[str, FieldValue] = {}
        self.troubles: dict[str, Trouble] = {}

    def put(self, name: str, value: Number, source: str, kind: PowerKind | None = None) -> None:
        """Add a value, or a trouble if it is implausible.

        Only the file of a fan itself tells that it stands still: the others say 0 for no fan too.
        """
        if name == "fan_rpm" and value == 0 and not source.startswith("hwmon:"):
            self.fail(name, f"{source}: 0, which a card without a fan says too")
            return
        try:
            self.values.setdefault(name, FieldValue(check(name, value), source, kind))
        except Implausible as error:
            self.fail(name, f"{source}: {error}")

    def fail(self, name: str, text: str, errno: int | None = None) -> None:
        """Add why one source has no value for a field; a missing file says least."""
        before = self.troubles.get(name)
        if before is None or before.errno == ENOENT != errno:
            self.troubles[name] = Trouble(text, errno)
