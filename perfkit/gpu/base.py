"""What a card can be asked, in one schema, and what no reading may be.

Cards, kernels and tools disagree about names, units and about what to say when they don't know.
Everything in this package ends as a `GpuSample`: units are in the names, what is unknown is None
and never 0, and each value says where it came from. A reading beyond `LIMITS` is refused with a
reason instead of passed on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeAlias

Number: TypeAlias = int | float


class State(StrEnum):
    """What a card is up to; only an active one has readings."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    RESETTING = "resetting"
    GONE = "gone"


class PowerKind(StrEnum):
    """What a power reading is of: the driver's average, the moment, or the whole socket."""

    AVERAGE = "average"
    INSTANT = "instant"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """One card at one moment. None is unknown; `source` and `errors` say why, field by field.

    `gpu_busy_pct` is of the moment and `gpu_busy_avg_pct` the firmware's own average of about a
    second; `gpu_busy_mean_pct` is the mean of a sampler's last `gpu_busy_mean_n` readings.
    `energy_j` counts up: from the card's own counter where its unit is documented, or else summed
    by a sampler since it started. `throttle_bits` are those of the kernel's `gpu_metrics`, and
    `source` names which of its two words they are. `errors` also has notes on values that another
    source contradicts.
    """

    card: str
    pci: str | None = None
    name: str | None = None
    driver: str | None = None
    state: State = State.ACTIVE
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
    source: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def vram_free_bytes(self) -> int | None:
        """What is left of the card's memory; None without both figures."""
        if self.vram_used_bytes is None or self.vram_total_bytes is None:
            return None
        return self.vram_total_bytes - self.vram_used_bytes

    @property
    def hottest_c(self) -> float | None:
        """The highest temperature that the card tells; None when it tells none."""
        told = (self.temp_edge_c, self.temp_junction_c, self.temp_memory_c)
        return max((value for value in told if value is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """The fields in order, as JSON values."""
        return asdict(self)


#: Fields that say which card it is, or are made from other fields; no backend is asked for them.
_NOT_READ = (
    "card pci name driver state pci_id family is_apu monotonic_s gpu_busy_mean_pct "
    "gpu_busy_mean_n power_kind pcie_gen pcie_rx_bytes_per_s pcie_tx_bytes_per_s source errors"
).split()
#: Everything a backend may be asked for, in the order of the schema.
READINGS: tuple[str, ...] = tuple(f.name for f in fields(GpuSample) if f.name not in _NOT_READ)

#: PCIe transfer rates by generation, in GT/s per lane (PCI Express Base Specification).
PCIE_GENERATIONS: Mapping[float, int] = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}

_BYTES = (0, 1 << 50)
_HOT = (-50, 200)
#: The lowest and highest value that is believed. A Polaris card whose sensor is asleep says 511 °C,
#: and a power that underflowed is near 2³² µW, which is 4,295 W; no card draws half of that.
LIMITS: Mapping[str, tuple[Number, Number]] = {
    "gpu_busy_pct": (0, 100),
    "gpu_busy_avg_pct": (0, 100),
    "mem_busy_pct": (0, 100),
    "vram_used_bytes": _BYTES,
    "vram_total_bytes": (1, 1 << 50),
    "vis_vram_used_bytes": _BYTES,
    "vis_vram_total_bytes": (1, 1 << 50),
    "gtt_used_bytes": _BYTES,
    "gtt_total_bytes": (1, 1 << 50),
    "sclk_hz": (0, 10**10),
    "mclk_hz": (0, 10**10),
    "power_w": (0, 2_000),
    "power_cap_w": (1e-6, 2_000),
    "energy_j": (0, 1e11),
    "temp_edge_c": _HOT,
    "temp_junction_c": _HOT,
    "temp_memory_c": _HOT,
    "temp_edge_crit_c": (1, 200),
    "temp_junction_crit_c": (1, 200),
    "temp_memory_crit_c": (1, 200),
    "fan_rpm": (0, 30_000),
    "voltage_mv": (0, 5_000),
    "pcie_speed_gts": (1, 64),
    "pcie_width": (1, 32),
    "throttle_bits": (0, 2**64 - 2),
}


class Implausible(ValueError):
    """A reading that no card can have; the message says what was read."""


def check(name: str, value: Number) -> Number:
    """The value of a field; raises Implausible beyond its `LIMITS`."""
    low, high = LIMITS[name]
    if not low <= value <= high:
        raise Implausible(f"{value:,} is not within {low:,} … {high:,}")
    return value


class Reading(NamedTuple):
    """One value and where it is from, as `backend:file` or `backend:name`."""

    value: Number
    source: str
    kind: PowerKind | None = None


class Trouble(NamedTuple):
    """Why a field has no value; `errno` when the kernel said so."""

    text: str
    errno: int | None = None


class Found:
    """What backends found so far, by field; the first value of a field stays."""

    __slots__ = ("readings", "troubles")

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}
        self.troubles: dict[str, Trouble] = {}

    def put(self, name: str, value: Number, source: str, kind: PowerKind | None = None) -> None:
        """Take in a plausible value, or the trouble that it is none."""
        try:
            self.readings.setdefault(name, Reading(check(name, value), source, kind))
        except Implausible as error:
            self.fail(name, f"{source}: {error}")

    def fail(self, name: str, text: str, errno: int | None = None) -> None:
        """Take in why a field has no value from one source; the first reason stays."""
        self.troubles.setdefault(name, Trouble(text, errno))


class Backend(Protocol):
    """One way to ask one card. It never raises for what a card, a driver or a tool says."""

    def read(self, wanted: Collection[str], found: Found) -> None:
        """Add to `found` what is known of the fields `wanted`, and why not of the others."""

    def close(self) -> None:
        """Let go of files; the next read opens them again."""
