"""The `amdsmi` module that comes with ROCm, where it can be imported.

Its functions raise for a missing sensor, or answer "N/A" or all ones, so each is asked on its own.
Answers are parsed apart from asking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from perfkit.gpu.device.schema import Found, Number, PowerKind
from perfkit.gpu.sources.asking import ToolError
from perfkit.gpu.sources.documents import number_of, shown

#: A 16- or 32-bit figure of all ones is not available.
_NOT_AVAILABLE = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)

#: By the name of its answer, what to ask of a card.
_QUESTIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "activity": lambda module, card: module.amdsmi_get_gpu_activity(card),
    "power": lambda module, card: module.amdsmi_get_power_info(card),
    "vram": lambda module, card: module.amdsmi_get_gpu_vram_usage(card),
    "edge": lambda module, card: _temperature(module, card, "EDGE"),
    "junction": lambda module, card: _temperature(module, card, "JUNCTION"),
    "memory": lambda module, card: _temperature(module, card, "VRAM"),
    "sclk": lambda module, card: module.amdsmi_get_clock_info(card, module.AmdSmiClkType.GFX),
    "mclk": lambda module, card: module.amdsmi_get_clock_info(card, module.AmdSmiClkType.MEM),
    "fan": lambda module, card: module.amdsmi_get_gpu_fan_rpms(card, 0),
    "vis_vram_total": lambda module, card: _memory(module, card, "total", "VIS_VRAM"),
    "vis_vram_used": lambda module, card: _memory(module, card, "usage", "VIS_VRAM"),
    "gtt_total": lambda module, card: _memory(module, card, "total", "GTT"),
    "gtt_used": lambda module, card: _memory(module, card, "usage", "GTT"),
}
#: Field, answer, key in it ("" for the answer itself), and its unit in the field's.
_FIELDS: tuple[tuple[str, str, str, Number], ...] = (
    ("gpu_busy_pct", "activity", "gfx_activity", 1),
    ("mem_busy_pct", "activity", "umc_activity", 1),
    ("power_w", "power", "socket_power", 1),
    ("power_w", "power", "current_socket_power", 1),
    ("power_w", "power", "average_socket_power", 1),
    ("voltage_mv", "power", "gfx_voltage", 1),
    ("vram_total_bytes", "vram", "vram_total", 1 << 20),
    ("vram_used_bytes", "vram", "vram_used", 1 << 20),
    ("temp_edge_c", "edge", "", 1),
    ("temp_junction_c", "junction", "", 1),
    ("temp_memory_c", "memory", "", 1),
    ("sclk_hz", "sclk", "clk", 1_000_000),
    ("sclk_hz", "sclk", "cur_clk", 1_000_000),
    ("mclk_hz", "mclk", "clk", 1_000_000),
    ("mclk_hz", "mclk", "cur_clk", 1_000_000),
    ("fan_rpm", "fan", "", 1),
    ("vis_vram_total_bytes", "vis_vram_total", "", 1),
    ("vis_vram_used_bytes", "vis_vram_used", "", 1),
    ("gtt_total_bytes", "gtt_total", "", 1),
    ("gtt_used_bytes", "gtt_used", "", 1),
)


def ask() -> dict[str, Found]:
    """Every card now, by PCI address; raises ToolError without the module."""
    try:
        module = import_module("amdsmi")
    except (Exception, SystemExit) as error:  # it loads a library, which fails in many ways
        raise ToolError(f"amdsmi can't be imported: {shown(error)}") from None
    return ask_module(module)


def ask_module(module: ModuleType | Any) -> dict[str, Found]:
    """Every card of a module that answers as amdsmi does; raises ToolError."""
    try:
        module.amdsmi_init()
        handles = list(module.amdsmi_get_processor_handles())
    except Exception as error:  # its exceptions are its own
        raise ToolError(f"amdsmi: {shown(error)}") from None
    try:
        cards: dict[str, Found] = {}
        for handle in handles:
            pci = _answer(module.amdsmi_get_gpu_device_bdf, handle)
            if isinstance(pci, str):
                told = {name: _answer(ask, module, handle) for name, ask in _QUESTIONS.items()}
                # Memory partitions share their card's address, and may tell nothing.
                if pci.lower() not in cards or not cards[pci.lower()].values:
                    cards[pci.lower()] = parse(told)
        return cards
    finally:
        _answer(module.amdsmi_shut_down)


def parse(answers: Mapping[str, Any]) -> Found:
    """The fields in a card's answers, by the names of `_QUESTIONS`."""
    found = Found()
    for name, question, key, unit in _FIELDS:
        told = answers.get(question)
        if key:
            told = told.get(key) if isinstance(told, dict) else None
        value = number_of(told)
        if value is None or value in _NOT_AVAILABLE:
            if told is not None:
                found.fail(name, f"amdsmi:{question}: {shown(told)}")
        else:
            kind = None
            if name == "power_w":
                kind = PowerKind.AVERAGE if key.startswith("average") else PowerKind.SOCKET
            found.put(name, value * unit, f"amdsmi:{question}.{key}".rstrip("."), kind)
    return found


def _temperature(module: Any, card: Any, sensor: str) -> Any:
    kind = getattr(module.AmdSmiTemperatureType, sensor)
    return module.amdsmi_get_temp_metric(card, kind, module.AmdSmiTemperatureMetric.CURRENT)


def _memory(module: Any, card: Any, what: str, region: str) -> Any:
    ask = getattr(module, f"amdsmi_get_gpu_memory_{what}")
    return ask(card, getattr(module.AmdSmiMemoryType, region))


def _answer(question: Callable[..., Any], *about: Any) -> Any:
    try:
        return question(*about)
    except Exception:  # each release raises its own for a missing sensor
        return None
