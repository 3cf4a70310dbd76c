"""The `amdsmi` module that comes with ROCm, where it can be imported.

Its functions raise for what a card lacks, or answer "N/A" or all ones, so each is asked on its own.
Answers are parsed apart from asking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from perfkit.gpu.schema import Found, Number, PowerKind
from perfkit.gpu.smi import ToolError, number_of

#: A 16- or 32-bit figure of all ones is not available.
_NOT_AVAILABLE = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)

#: Field, function, key of its answer ("" for the answer itself), and unit in the field's own.
_ANSWERS: tuple[tuple[str, str, str, Number], ...] = (
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
)


def ask() -> dict[str, Found]:
    """Every card now, by PCI address; raises ToolError without the module."""
    try:
        module = import_module("amdsmi")
    except Exception as error:  # it loads a shared library, which fails in many ways
        raise ToolError(f"amdsmi can't be imported: {error}") from None
    return ask_module(module)


def ask_module(module: ModuleType | Any) -> dict[str, Found]:
    """Every card of a module that answers as amdsmi does; raises ToolError."""
    try:
        module.amdsmi_init()
        handles = list(module.amdsmi_get_processor_handles())
    except Exception as error:  # its exceptions are its own
        raise ToolError(f"amdsmi: {error}") from None
    try:
        cards = {}
        for handle in handles:
            pci = _answer(partial(module.amdsmi_get_gpu_device_bdf, handle))
            if isinstance(pci, str):
                cards[pci.lower()] = parse(_answers(module, handle))
        return cards
    finally:
        _answer(module.amdsmi_shut_down)


def parse(answers: Mapping[str, Any]) -> Found:
    """What the functions answered, by the short names of `_ANSWERS`."""
    found = Found()
    for name, function, key, unit in _ANSWERS:
        answer = answers.get(function)
        told = answer.get(key) if key and isinstance(answer, dict) else None if key else answer
        value = number_of(told)
        if value is not None and value not in _NOT_AVAILABLE:
            kind = None
            if name == "power_w":
                kind = PowerKind.AVERAGE if key.startswith("average") else PowerKind.SOCKET
            found.put(name, value * unit, f"amdsmi:{function}.{key}".rstrip("."), kind)
    return found


def _answers(module: Any, handle: Any) -> dict[str, Any]:
    def temperature(sensor: str) -> Any:
        kind = getattr(module.AmdSmiTemperatureType, sensor)
        current = module.AmdSmiTemperatureMetric.CURRENT
        return module.amdsmi_get_temp_metric(handle, kind, current)

    def clock(kind: str) -> Any:
        return module.amdsmi_get_clock_info(handle, getattr(module.AmdSmiClkType, kind))

    questions: Mapping[str, Callable[[], Any]] = {
        "activity": lambda: module.amdsmi_get_gpu_activity(handle),
        "power": lambda: module.amdsmi_get_power_info(handle),
        "vram": lambda: module.amdsmi_get_gpu_vram_usage(handle),
        "edge": lambda: temperature("EDGE"),
        "junction": lambda: temperature("JUNCTION"),
        "memory": lambda: temperature("VRAM"),
        "sclk": lambda: clock("GFX"),
        "mclk": lambda: clock("MEM"),
    }
    return {name: _answer(question) for name, question in questions.items()}


def _answer(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception:  # what a card can't tell is unknown; each release raises its own
        return None
