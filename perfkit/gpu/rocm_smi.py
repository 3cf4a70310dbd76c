"""rocm-smi's JSON, whose keys changed with nearly every release.

Keys are compared without case and without the colon that some end in. `GPU memory use (%)` is how
busy the memory controller is, not how full the memory: later releases split it into two keys that
say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perfkit.gpu.base import Found, PowerKind
from perfkit.gpu.tools import ToolError, json_after_warnings, number_of, run

COMMAND = ("rocm-smi", "-a", "--json")

#: Field, kind of power, by key in small letters.
_KEYS: Mapping[str, tuple[str, PowerKind | None]] = {
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
_CLOCKS: Mapping[str, str] = {"sclk clock speed": "sclk_hz", "mclk clock speed": "mclk_hz"}
_CLOCK = re.compile(r"\(?([0-9]{1,7})\s*Mhz\)?", re.IGNORECASE)
_LINK = re.compile(r"[0-9]{1,3} \(([0-9]{1,3}(?:\.[0-9])?)GT/s,? x([0-9]{1,2})(?: [^)]*)?\)")
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def ask() -> dict[str, Found]:
    """The readings of every card now; raises ToolError."""
    return parse(run(COMMAND))


def parse(text: str) -> dict[str, Found]:
    """The readings by PCI address, or by `card0` where it is missing; raises ToolError.

    Entries that are no card, such as `system`, and values such as `N/A` are left out.
    """
    answer = json_after_warnings(text)
    if not isinstance(answer, dict):
        raise ToolError("rocm-smi: a list, not an object of cards")
    cards = {}
    for card, entry in answer.items():
        if re.fullmatch(r"card[0-9]{1,4}", card) and isinstance(entry, dict):
            facts = {key.strip().rstrip(":").lower(): value for key, value in entry.items()}
            pci = str(facts.get("pci bus", "")).lower()
            cards[pci if _PCI.fullmatch(pci) else card] = _readings(facts)
    return cards


def _readings(facts: Mapping[str, Any]) -> Found:
    found = Found()
    for key, value in facts.items():
        if key in _KEYS:
            name, kind = _KEYS[key]
            if (figure := number_of(value)) is not None:
                found.put(name, figure, f"rocm-smi:{key}", kind)
        elif key in _CLOCKS and (clock := _CLOCK.fullmatch(str(value).strip())):
            found.put(_CLOCKS[key], int(clock[1]) * 1_000_000, f"rocm-smi:{key}")
        elif key == "pcie clock level" and (link := _LINK.fullmatch(str(value).strip())):
            found.put("pcie_speed_gts", float(link[1]), f"rocm-smi:{key}")
            found.put("pcie_width", int(link[2]), f"rocm-smi:{key}")
    return found
