"""The answers of rocm-smi and amd-smi: JSON whose keys change with nearly every release.

rocm-smi's keys are compared without case and without the colon that some end in. Its `GPU memory
use (%)` is how busy the memory controller is, not how full the memory: later releases split it into
two keys that say so.

amd-smi gives a list of cards, or one below `gpu_data`, with bare values or value and unit. `amd-smi
metric` numbers the cards and does not say where they are, so `amd-smi list` is asked for their PCI
addresses.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perfkit.gpu.discovery import PCI
from perfkit.gpu.schema import Found, Number, PowerKind

ROCM_SMI = ("rocm-smi", "-a", "--json")
AMD_SMI_METRICS = ("amd-smi", "metric", "--json")
AMD_SMI_CARDS = ("amd-smi", "list", "--json")

TIMEOUT_S = 5.0
#: An answer about cards is shorter.
OUTPUT_BYTES = 16 << 20

#: Plain decimals only: no exponent, no underscore, nothing infinite.
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?")

#: rocm-smi: field and kind of power by key in small letters.
_ROCM_KEYS: Mapping[str, tuple[str, PowerKind | None]] = {
    "gpu use (%)": ("gpu_busy_pct", None),
    "gpu memory use (%)": ("mem_busy_pct", None),
    "gpu memory read/write activity (%)": ("mem_busy_pct", None),
    "average graphics package power (w)": ("power_w", PowerKind.AVERAGE),
    "current socket graphics package power (w)": ("power_w", PowerKind.SOCKET),
    "max graphics package power (w)": ("power_cap_w", None),
    "temperature (sensor edge) (c)": ("temp_edge_c", None),
    "temperature (sensor junction) (c)": ("temp_junction_c", None),
    "temperature (sensor memory) (c)": ("temp_memory_c", None),
    "fan rpm": ("fan_rpm", None),
    "voltage (mv)": ("voltage_mv", None),
    "vram total memory (b)": ("vram_total_bytes", None),
    "vram total used memory (b)": ("vram_used_bytes", None),
    "vis_vram total memory (b)": ("vis_vram_total_bytes", None),
    "vis_vram total used memory (b)": ("vis_vram_used_bytes", None),
    "gtt total memory (b)": ("gtt_total_bytes", None),
    "gtt total used memory (b)": ("gtt_used_bytes", None),
}
_ROCM_CLOCKS: Mapping[str, str] = {"sclk clock speed": "sclk_hz", "mclk clock speed": "mclk_hz"}
_ROCM_CLOCK = re.compile(r"\(?([0-9]{1,7})\s*Mhz\)?", re.IGNORECASE)
_ROCM_LINK = re.compile(r"[0-9]{1,3} \(([0-9]{1,3}(?:\.[0-9])?)GT/s,? x([0-9]{1,2})(?: [^)]*)?\)")

#: amd-smi: where a field may be, the best place first.
_AMD_PLACES: Mapping[str, tuple[str, ...]] = {
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
#: amd-smi: by the end of a field's name, the units it may be told in, each in the schema's unit;
#: the first is that of a bare value. The tool's MB are 2²⁰ bytes.
_AMD_UNITS: Mapping[str, Mapping[str, Number]] = {
    "_pct": {"%": 1},
    "_w": {"w": 1, "mw": 1e-3},
    "_c": {"c": 1, "°c": 1},
    "_rpm": {"rpm": 1},
    "_mv": {"mv": 1, "v": 1_000},
    "_hz": {"mhz": 1_000_000},
    "_bytes": {"mb": 1 << 20, "b": 1, "kb": 1 << 10, "gb": 1 << 30},
    "_gts": {"gt/s": 1},
    "_j": {"j": 1},
    "pcie_width": {"": 1},
}


class ToolError(Exception):
    """A tool gave no answer that can be read; the message says what happened."""


def run(command: Sequence[str], timeout_s: float = TIMEOUT_S) -> str:
    """The output of a command; raises ToolError if it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise ToolError(f"{command[0]} gave no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise ToolError(f"{command[0]}: {error.strerror}") from None
    if done.returncode and not done.stdout.strip():
        raise ToolError(f"{command[0]} ended with {done.returncode}")
    return done.stdout[:OUTPUT_BYTES].decode("utf-8", "replace")


def ask_rocm_smi() -> dict[str, Found]:
    """Every card now, as `parse_rocm_smi`; raises ToolError."""
    return parse_rocm_smi(run(ROCM_SMI))


def ask_amd_smi() -> dict[str, Found]:
    """Every card now, as `parse_amd_smi`; raises ToolError."""
    return parse_amd_smi(run(AMD_SMI_METRICS), run(AMD_SMI_CARDS))


def parse_rocm_smi(text: str) -> dict[str, Found]:
    """The cards by PCI address, or by `card0` where it is missing; raises ToolError.

    Entries that are no card, such as `system`, are left out, and so are values such as `N/A`.
    """
    answer = json_after_warnings(text)
    if not isinstance(answer, dict):
        raise ToolError("rocm-smi: a list, not an object of cards")
    cards = {}
    for card, entry in answer.items():
        if re.fullmatch(r"card[0-9]{1,4}", card) and isinstance(entry, dict):
            facts = {key.strip().rstrip(":").lower(): value for key, value in entry.items()}
            pci = str(facts.get("pci bus", "")).lower()
            cards[pci if PCI.fullmatch(pci) else card] = _of_rocm_smi(facts)
    return cards


def _of_rocm_smi(facts: Mapping[str, Any]) -> Found:
    found = Found()
    for key, value in facts.items():
        if key in _ROCM_KEYS:
            name, kind = _ROCM_KEYS[key]
            if (figure := number_of(value)) is not None:
                found.put(name, figure, f"rocm-smi:{key}", kind)
        elif key in _ROCM_CLOCKS and (clock := _ROCM_CLOCK.fullmatch(str(value).strip())):
            found.put(_ROCM_CLOCKS[key], int(clock[1]) * 1_000_000, f"rocm-smi:{key}")
        elif key == "pcie clock level" and (link := _ROCM_LINK.fullmatch(str(value).strip())):
            found.put("pcie_speed_gts", float(link[1]), f"rocm-smi:{key}")
            found.put("pcie_width", int(link[2]), f"rocm-smi:{key}")
    return found


def parse_amd_smi(metrics: str, cards: str = "[]") -> dict[str, Found]:
    """The cards by PCI address, or by `card0` for the tool's number 0; raises ToolError.

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
            found[key] = _of_amd_smi(entry)
    return found


def _entries(text: str) -> list[dict[str, Any]]:
    answer = json_after_warnings(text)
    if isinstance(answer, dict):
        answer = answer.get("gpu_data", [answer])
    if not isinstance(answer, list):
        raise ToolError("amd-smi: no list of cards")
    return [entry for entry in answer if isinstance(entry, dict)]


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
        units = next(units for end, units in _AMD_UNITS.items() if name.endswith(end))
        usual = next(iter(units))
        for place in places:
            source = f"amd-smi:{place}"
            value, unit = _value_and_unit(_at(entry, place))
            if value is None:
                continue
            unit = unit or usual
            if unit not in units:
                found.fail(name, f"{source}: in {unit}, not in {usual}")
                continue
            kind = None
            if name == "power_w":
                average = place.endswith("average_socket_power")
                kind = PowerKind.AVERAGE if average else PowerKind.SOCKET
            found.put(name, value * units[unit], source, kind)
            break
    return found


def _value_and_unit(told: Any) -> tuple[Number | None, str]:
    """A value and its unit in small letters, which is empty for a bare value."""
    if isinstance(told, dict):
        return number_of(told.get("value")), str(told.get("unit", "")).strip().lower()
    return number_of(told), ""


def json_after_warnings(text: str) -> Any:
    """The first JSON object or list in a text, with any lines before and after it.

    Raises ToolError without one.
    """
    decoder = json.JSONDecoder(parse_constant=lambda name: None)
    for start in _starts(text):
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) or (value and isinstance(value[0], dict)):
            return value
    raise ToolError("no JSON in the answer")


def _starts(text: str) -> Iterator[int]:
    """Where JSON may begin: at a line's first bracket. At most 100 lines are tried."""
    for match, _ in zip(re.finditer(r"(?m)^\s*([{\[])", text), range(100), strict=False):
        yield match.start(1)


def number_of(value: Any) -> float | int | None:
    """A number of JSON, or in a text such as `"39.0"`; None for N/A and the like."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if abs(value) < 1e20 else None
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return None
    text = value.strip()
    return float(text) if "." in text else int(text)
