"""amd-smi's JSON: a list of cards, or one below `gpu_data`, with bare values or value and unit.

`amd-smi metric` numbers the cards and does not say where they are, so `amd-smi list` is asked once
for their PCI addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfkit.gpu.base import Found, Number, PowerKind
from perfkit.gpu.tools import ToolError, json_after_warnings, number_of, run

METRICS = ("amd-smi", "metric", "--json")
CARDS = ("amd-smi", "list", "--json")

#: Where a field is, and in which unit when none is told; several places, the best first.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "gpu_busy_pct": ("usage.gfx_activity",),
    "mem_busy_pct": ("usage.umc_activity",),
    "power_w": ("power.socket_power", "power.current_socket_power", "power.average_socket_power"),
    "power_cap_w": ("limit.max_power", "power.power_limit"),
    "temp_edge_c": ("temperature.edge",),
    "temp_junction_c": ("temperature.hotspot", "temperature.junction"),
    "temp_memory_c": ("temperature.mem",),
    "fan_rpm": ("fan.rpm",),
    "voltage_mv": ("voltage.gfx", "power.gfx_voltage"),
    "sclk_hz": ("clock.gfx_0.clk", "clock.gfx.clk"),
    "mclk_hz": ("clock.mem_0.clk", "clock.mem.clk"),
    "vram_total_bytes": ("mem_usage.total_vram",),
    "vram_used_bytes": ("mem_usage.used_vram",),
    "vis_vram_total_bytes": ("mem_usage.total_visible_vram",),
    "vis_vram_used_bytes": ("mem_usage.used_visible_vram",),
    "gtt_total_bytes": ("mem_usage.total_gtt",),
    "gtt_used_bytes": ("mem_usage.used_gtt",),
    "pcie_width": ("pcie.width", "pcie.current_lanes"),
    "pcie_speed_gts": ("pcie.speed", "pcie.current_speed"),
    "energy_j": ("energy.total_energy_consumption",),
}
#: A unit in that of the fields which may be told in it. The tool's MB are 2²⁰ bytes.
_UNITS: Mapping[str, Number] = {
    "%": 1,
    "w": 1,
    "mw": 1e-3,
    "c": 1,
    "°c": 1,
    "rpm": 1,
    "mv": 1,
    "v": 1_000,
    "mhz": 1_000_000,
    "b": 1,
    "kb": 1 << 10,
    "mb": 1 << 20,
    "gb": 1 << 30,
    "gt/s": 1,
    "j": 1,
}
#: By how its name ends, the units a field may be told in; the first is that of a bare value.
_UNITS_OF: Mapping[str, tuple[str, ...]] = {
    "_pct": ("%",),
    "_w": ("w", "mw"),
    "_c": ("c", "°c"),
    "_rpm": ("rpm",),
    "_mv": ("mv", "v"),
    "_hz": ("mhz",),
    "_bytes": ("mb", "b", "kb", "gb"),
    "_gts": ("gt/s",),
    "_j": ("j",),
}


def ask() -> dict[str, Found]:
    """The readings of every card now; raises ToolError."""
    return parse(run(METRICS), run(CARDS))


def parse(metrics: str, cards: str = "[]") -> dict[str, Found]:
    """The readings by PCI address, or by `card0` for the tool's number 0; raises ToolError.

    `cards` is what `amd-smi list --json` prints.
    """
    places = {
        entry.get("gpu"): str(entry["bdf"]).lower()
        for entry in (_entries(cards) if cards.strip() != "[]" else [])
        if "bdf" in entry and isinstance(entry.get("gpu"), int)
    }
    found = {}
    for entry in _entries(metrics):
        number = entry.get("gpu")
        if isinstance(number, int):
            bus = _at(entry, "bus.bdf") or entry.get("bdf")
            key = bus.lower() if isinstance(bus, str) else places.get(number, f"card{number}")
            found[key] = _readings(entry)
    return found


def _entries(text: str) -> list[dict[str, Any]]:
    answer = json_after_warnings(text)
    if isinstance(answer, dict):
        answer = answer.get("gpu_data", [answer])
    if not isinstance(answer, list):
        raise ToolError("amd-smi: no list of cards")
    return [entry for entry in answer if isinstance(entry, dict)]


def _at(entry: Any, path: str) -> Any:
    """What stands under a dotted path; None where it ends early."""
    for word in path.split("."):
        if not isinstance(entry, dict):
            return None
        entry = entry.get(word)
    return entry


def _readings(entry: Mapping[str, Any]) -> Found:
    found = Found()
    for name, places in _PLACES.items():
        for place in places:
            source = f"amd-smi:{place}"
            value, unit = _value_and_unit(_at(entry, place))
            if value is None:
                continue
            units = next((u for end, u in _UNITS_OF.items() if name.endswith(end)), ("",))
            unit = unit or units[0]
            if unit not in units:
                found.fail(name, f"{source}: in {unit}, not in {units[0]}")
                continue
            average = place.endswith("average_socket_power")
            socket = PowerKind.AVERAGE if average else PowerKind.SOCKET
            exact = value * _UNITS.get(unit, 1)
            found.put(name, exact, source, socket if name == "power_w" else None)
            break
    return found


def _value_and_unit(told: Any) -> tuple[Number | None, str]:
    """A bare value or one with its unit, in small letters and empty where none is told."""
    if isinstance(told, dict):
        return number_of(told.get("value")), str(told.get("unit", "")).strip().lower()
    return number_of(told), ""
