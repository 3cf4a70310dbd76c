"""The answers of rocm-smi and amd-smi: JSON whose keys change with nearly every release.

An answer may be several JSON documents, with warnings and banners between them. All are read. A
card that is told of twice, as by a memory partition that has nothing but N/A, keeps what is known.

rocm-smi's keys (rocm_smi.py of ROCm 3.5 to 7) are compared without case, without the colon that
some end in, and apart from the unit in them. Its `GPU memory use (%)` is how busy the memory
controller is, not how full the memory: later releases split it into two keys that say so.

amd-smi (amdsmi_commands.py of 23 to 26) gives a list of cards, or one below `gpu_data`, with bare
values, texts, or value and unit. `amd-smi metric` numbers the cards and does not say where they
are, so `amd-smi list` is asked for their PCI addresses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perfkit.gpu.device.discovery import PCI
from perfkit.gpu.device.schema import Found, Number, PowerKind
from perfkit.gpu.sources.asking import ToolError, run
from perfkit.gpu.sources.documents import (
    documents_of,
    has_document,
    merged,
    number_of,
    richer,
    shown,
)

#: `-a` leaves the memory out.
ROCM_SMI = ("rocm-smi", "-a", "--showmeminfo", "vram", "vis_vram", "gtt", "--json")
AMD_SMI_METRICS = ("amd-smi", "metric", "--json")
AMD_SMI_CARDS = ("amd-smi", "list", "--json")

#: rocm-smi: field and kind of power by key in small letters, without its unit.
_ROCM_KEYS: Mapping[str, tuple[str, PowerKind | None]] = {
    "gpu use": ("gpu_busy_pct", None),
    "gpu memory use": ("mem_busy_pct", None),
    "gpu memory read/write activity": ("mem_busy_pct", None),
    "average graphics package power": ("power_w", PowerKind.AVERAGE),
    "current socket graphics package power": ("power_w", PowerKind.SOCKET),
    "max graphics package power": ("power_cap_w", None),
    "temperature (sensor edge)": ("temp_edge_c", None),
    "temperature (sensor junction)": ("temp_junction_c", None),
    "temperature (sensor memory)": ("temp_memory_c", None),
    "fan rpm": ("fan_rpm", None),
    "voltage": ("voltage_mv", None),
    "vram total memory": ("vram_total_bytes", None),
    "vram total used memory": ("vram_used_bytes", None),
    "vis_vram total memory": ("vis_vram_total_bytes", None),
    "vis_vram total used memory": ("vis_vram_used_bytes", None),
    "gtt total memory": ("gtt_total_bytes", None),
    "gtt total used memory": ("gtt_used_bytes", None),
    "sclk clock speed": ("sclk_hz", None),
    "mclk clock speed": ("mclk_hz", None),
    "sclk clock level": ("sclk_hz", None),
    "mclk clock level": ("mclk_hz", None),
}
#: The unit at the end of a key, as `(%)`; not `(Sensor edge)`.
_KEY_UNIT = re.compile(r"(.*?)\s*\((%|[a-zµ°]{1,4})\)")
#: What is in brackets after the number of a level: `1 (808Mhz)`, `0 (8.0GT/s x16)`.
_LEVEL = re.compile(r"(?:[0-9]{1,3}\s*)?\((.*)\)")
_LINK = re.compile(r"([0-9]{1,3}(?:\.[0-9])?)\s*GT/s,?\s*x([0-9]{1,2})(?:\s.*)?", re.IGNORECASE)

#: amd-smi: where a field may be, the best place first.
_AMD_PLACES: Mapping[str, tuple[str, ...]] = {
    "gpu_busy_pct": ("usage.gfx_activity", "usage.gfx_usage"),
    "mem_busy_pct": ("usage.umc_activity", "usage.mem_usage"),
    "power_w": (
        "power.socket_power", "power.current_socket_power", "power.current_power",
        "power.average_socket_power", "power",
    ),
    # `max_power` is the highest cap that may be set. `amd-smi static` tells it and the cap.
    "power_cap_w": (
        "limit.socket_power", "limit.current_power", "limit.ppt0.socket_power_limit",
        "power.power_limit",
    ),
    "temp_edge_c": ("temperature.edge", "temperature.edge_temperature"),
    "temp_junction_c": (
        "temperature.hotspot", "temperature.junction", "temperature.hotspot_temperature",
        "temperature.junction_temperature",
    ),
    "temp_memory_c": (
        "temperature.mem", "temperature.memory", "temperature.vram", "temperature.mem_temperature",
    ),
    "fan_rpm": ("fan.rpm",),
    "voltage_mv": ("power.gfx_voltage", "voltage.gfx", "voltage.vddgfx"),
    "sclk_hz": ("clock.gfx_0.clk", "clock.gfx.clk", "clock.gfx.cur_clk", "clock.gfx"),
    "mclk_hz": ("clock.mem_0.clk", "clock.mem.clk", "clock.mem.cur_clk", "clock.mem"),
    "vram_total_bytes": ("mem_usage.total_vram", "fb_usage.vram_total", "fb_usage.fb_total"),
    "vram_used_bytes": ("mem_usage.used_vram", "fb_usage.vram_used", "fb_usage.fb_used"),
    "vis_vram_total_bytes": ("mem_usage.total_visible_vram",),
    "vis_vram_used_bytes": ("mem_usage.used_visible_vram",),
    "gtt_total_bytes": ("mem_usage.total_gtt",),
    "gtt_used_bytes": ("mem_usage.used_gtt",),
    "pcie_width": ("pcie.width", "pcie.current_lanes"),
    "pcie_speed_gts": ("pcie.speed", "pcie.current_speed"),
    "energy_j": ("energy.total_energy_consumption",),
}  # fmt: skip
#: By the end of a field's name, the units it may be told in, each in the schema's unit; the first
#: is that of a bare value. The tools' MB are 2²⁰ bytes.
_UNITS: Mapping[str, Mapping[str, Number]] = {
    "_pct": {"%": 1, "percent": 1},
    "_w": {"w": 1, "watt": 1, "watts": 1, "mw": 1e-3, "uw": 1e-6, "kw": 1_000},
    "_c": {"c": 1, "degc": 1, "celsius": 1, "mc": 1e-3},
    "_rpm": {"rpm": 1},
    "_mv": {"mv": 1, "v": 1_000, "uv": 1e-3},
    "_hz": {"mhz": 1_000_000, "hz": 1, "khz": 1_000, "ghz": 1_000_000_000},
    "_bytes": {
        "mb": 1 << 20, "mib": 1 << 20, "b": 1, "byte": 1, "bytes": 1, "kb": 1 << 10,
        "kib": 1 << 10, "gb": 1 << 30, "gib": 1 << 30, "tb": 1 << 40, "tib": 1 << 40,
    },
    "_gts": {"gt/s": 1, "gts": 1, "mt/s": 1e-3},
    "_j": {"j": 1, "joule": 1, "joules": 1, "mj": 1e-3, "uj": 1e-6, "kj": 1_000},
    "pcie_width": {"": 1, "lanes": 1},
}  # fmt: skip
#: Plain decimals only: no exponent, no underscore, nothing infinite. A unit may follow.
_QUANTITY = re.compile(r"([+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([^\s0-9.+-][^\s0-9]{0,9})?")


def ask_rocm_smi() -> dict[str, Found]:
    """Every card now, as `parse_rocm_smi`; raises ToolError."""
    return parse_rocm_smi(run(ROCM_SMI, has_document))


def ask_amd_smi() -> dict[str, Found]:
    """Every card now, as `parse_amd_smi`; raises ToolError."""
    return parse_amd_smi(run(AMD_SMI_METRICS, has_document), run(AMD_SMI_CARDS, has_document))


def parse_rocm_smi(text: str) -> dict[str, Found]:
    """The cards by PCI address, or by `card0` where it is missing; raises ToolError.

    Entries that are no card, such as `system`, are left out, and so are values such as `N/A`.
    """
    objects = [answer for answer in documents_of("rocm-smi", text) if isinstance(answer, dict)]
    if not objects:
        raise ToolError("rocm-smi: a list, not an object of cards")
    together: dict[str, Any] = {}
    for answer in objects:
        together = richer(together, answer)
    entries = [
        (int(match[1]), entry)
        for card, entry in together.items()
        if (match := re.fullmatch(r"card([0-9]{1,4})", card)) and isinstance(entry, dict)
    ]
    cards: dict[str, Found] = {}
    for number, entry in sorted(entries, key=lambda numbered: numbered[0]):
        facts = merged((key.strip(": \t").lower(), value) for key, value in entry.items())
        _keep(cards, _address(facts.get("pci bus")) or f"card{number}", _of_rocm_smi(facts))
    return cards


def _of_rocm_smi(facts: Mapping[str, Any]) -> Found:
    found = Found()
    for key, value in facts.items():
        source = f"rocm-smi:{key}"
        match = _KEY_UNIT.fullmatch(key)
        stem, unit = match.groups() if match else (key, "")
        text = str(value).strip()
        if bracketed := _LEVEL.fullmatch(text):
            text = bracketed[1].strip()
        if stem in ("pcie clock level", "pcie clock speed") and (link := _LINK.fullmatch(text)):
            found.put("pcie_speed_gts", float(link[1]), source)
            found.put("pcie_width", int(link[2]), source)
        elif stem in _ROCM_KEYS and not (stem.endswith(" level") and not bracketed):
            name, kind = _ROCM_KEYS[stem]
            _put(found, name, text if isinstance(value, str) else value, source, kind, unit)
    return found


def parse_amd_smi(metrics: str, cards: str = "[]") -> dict[str, Found]:
    """The cards by PCI address, or by `card0` for the tool's number 0; raises ToolError.

    `cards` is what `amd-smi list --json` prints.
    """
    listed = _entries(cards) if cards.strip() != "[]" else {}
    found: dict[str, Found] = {}
    for number, entry in sorted(_entries(metrics).items()):
        place = listed.get(number, {})
        bus = _at(entry, "bus.bdf") or entry.get("bdf") or place.get("bdf")
        _keep(found, _address(bus) or f"card{number}", _of_amd_smi(entry))
    return found


def _entries(text: str) -> dict[int, dict[str, Any]]:
    """The tool's cards by its number; those told of several times are one."""
    answers = [
        answer.get("gpu_data", answer) if isinstance(answer, dict) else answer
        for answer in documents_of("amd-smi", text)
    ]
    lists = [[answer] if isinstance(answer, dict) else answer for answer in answers]
    if not any(isinstance(entries, list) for entries in lists):
        raise ToolError("amd-smi: no list of cards")
    cards: dict[int, dict[str, Any]] = {}
    for entries in lists:
        for entry in entries if isinstance(entries, list) else ():
            number = number_of(entry.get("gpu")) if isinstance(entry, dict) else None
            if isinstance(number, int) and number >= 0:
                cards[number] = richer(cards.get(number, {}), entry)
    return cards


def _at(entry: Any, path: str) -> Any:
    """The value under a dotted path; None where the path ends early."""
    for word in path.split("."):
        if not isinstance(entry, dict):
            return None
        entry = entry.get(word)
    return entry


def _of_amd_smi(entry: Mapping[str, Any]) -> Found:
    found = Found()
    for name, places in _AMD_PLACES.items():
        for place in places:
            told = _at(entry, place)
            kind = None
            if name == "power_w":
                average = place.endswith("average_socket_power") or place == "power"
                kind = PowerKind.AVERAGE if average else PowerKind.SOCKET
            if told is not None and _put(found, name, told, f"amd-smi:{place}", kind):
                break
    return found


def _put(
    found: Found,
    name: str,
    told: Any,
    source: str,
    kind: PowerKind | None = None,
    unit: str = "",
) -> bool:
    """Add a value in the field's unit, or why it has none; whether there was a value.

    `told` may be a number, a text with or without its unit, or an object of value and unit; `unit`
    is the one in its key.
    """
    if isinstance(told, dict):
        unit = str(told.get("unit") or unit)
        told = told.get("value")
    if isinstance(told, str) and (match := _QUANTITY.fullmatch(told.strip())):
        told, unit = match[1], match[2] or unit
    value = number_of(told)
    if value is None:
        if not isinstance(told, list | dict):
            found.fail(name, f"{source}: {shown(told)}")
        return False
    units = next(units for end, units in _UNITS.items() if name.endswith(end))
    usual = next(iter(units))
    unit = unit.strip().lower().replace("µ", "u").replace("μ", "u").replace("°", "") or usual
    if unit not in units:
        found.fail(name, f"{source}: in {shown(unit)}, not in {usual}")
        return False
    found.put(name, value * units[unit], source, kind)
    return name in found.values


def _keep(cards: dict[str, Found], key: str, found: Found) -> None:
    """Add a card, unless another partition of it was there first and has values."""
    if key not in cards or not cards[key].values:
        cards[key] = found


def _address(told: Any) -> str | None:
    address = str(told).strip().lower()
    if re.fullmatch(r"[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", address):
        address = f"0000:{address}"
    return address if PCI.fullmatch(address) else None
