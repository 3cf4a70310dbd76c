"""The sources of a card beyond the driver's files, in the order in which they are asked.

They are asked only on request. Most cards lack a sensor or two, so the tools would run at every
look, each for a second of processor time; and they ask all cards, which wakes those that sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perfkit.gpu import amd_smi, amdsmi, rocm_smi
from perfkit.gpu.base import Backend
from perfkit.gpu.discovery import CardInfo
from perfkit.gpu.tools import Tool, ToolBackend


def vendor_tools() -> Callable[[CardInfo], Sequence[Backend]]:
    """For each card the module amdsmi, then rocm-smi, then amd-smi; one answer serves all cards."""
    tools = [Tool(amdsmi.ask), Tool(rocm_smi.ask), Tool(amd_smi.ask)]
    return lambda info: [ToolBackend(tool, (info.pci, info.card)) for tool in tools]
