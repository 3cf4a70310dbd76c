"""ROCm's processes from /sys/class/kfd/kfd: jobs of its own queues, whose time no fdinfo has.

Which file is where, and in which unit, follows the kernel's kfd_process.c and kfd_topology.c
(drivers/gpu/drm/amd/amdkfd): `proc/<pid>/vram_<gpuid>` is in bytes, `sdma_<gpuid>` in µs of copying
by the process's queues since they were made, and `stats_<gpuid>/cu_occupancy` the number of compute
units that its waves fill now. A process is numbered as the host numbers it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perfkit.gpu.device.discovery import DRM_ROOT, PCI
from perfkit.gpu.device.record import read_text

KFD_ROOT = Path("/sys/class/kfd/kfd")
#: The kernel's fixed number of the host's process namespace (include/linux/proc_ns.h).
HOST_PIDS = "pid:[4026531836]"

_WHOLE = re.compile(r"[0-9]{1,20}")
_ENTRY = re.compile(r"(?:vram|sdma|stats)_([0-9]{1,10})")


@dataclass(frozen=True)
class KfdUse:
    """The use of a card by a ROCm process; `pci` is `kfd:<gpuid>` where the place is unknown."""

    pid: int
    pci: str
    vram_bytes: int | None
    sdma_ns: int | None
    cu_n: int | None


def numbers_as_host(proc: Path) -> bool:
    """Whether `proc` numbers processes as the driver does; not so in a container."""
    try:
        return os.readlink(proc / "self/ns/pid") == HOST_PIDS
    except OSError:
        return True


def kfd_uses(root: Path = KFD_ROOT, drm: Path = DRM_ROOT) -> list[KfdUse]:
    """Every ROCm process, a row for each card; empty without ROCm's part of the driver."""
    places = gpu_places(root, drm)
    uses = []
    for pid in sorted(int(name) for name in _names(root / "proc") if _WHOLE.fullmatch(name)):
        folder = root / "proc" / str(pid)
        ids = {int(match[1]) for name in _names(folder) if (match := _ENTRY.fullmatch(name))}
        by_card: dict[str, list[int]] = {}
        for gpu_id in sorted(ids):
            by_card.setdefault(places.get(gpu_id, f"kfd:{gpu_id}"), []).append(gpu_id)
        for pci, partitions in by_card.items():
            sdma_us = _sum(folder, "sdma_{}", partitions)
            uses.append(
                KfdUse(
                    pid,
                    pci,
                    _sum(folder, "vram_{}", partitions),
                    None if sdma_us is None else sdma_us * 1_000,
                    _sum(folder, "stats_{}/cu_occupancy", partitions),
                )
            )
    return uses


def gpu_places(root: Path = KFD_ROOT, drm: Path = DRM_ROOT) -> dict[int, str]:
    """PCI addresses by the ids in ROCm's names of files; partitions have that of their card."""
    places: dict[int, str] = {}
    for node in _names(root / "topology/nodes"):
        folder = root / "topology/nodes" / node
        gpu_id = _whole(folder / "gpu_id")
        if gpu_id:  # a processor has 0
            lines = (read_text(folder / "properties") or "").splitlines()
            facts = dict(line.split(None, 1) for line in lines if len(line.split(None, 1)) == 2)
            place = _place(facts, drm)
            if place is not None:
                places[gpu_id] = place
    # Linux 6.5 to 6.7 put a partition's number where the PCI function is.
    known = set(places.values())
    return {
        gpu_id: first if (first := f"{place[:-1]}0") in known else place
        for gpu_id, place in places.items()
    }


def _place(facts: Mapping[str, str], drm: Path) -> str | None:
    location, domain = facts.get("location_id", ""), facts.get("domain", "")
    if _WHOLE.fullmatch(location) and _WHOLE.fullmatch(domain):
        bus, device, function = int(location) >> 8 & 0xFF, int(location) >> 3 & 0x1F, int(location)
        return f"{int(domain):04x}:{bus:02x}:{device:02x}.{function & 7}"
    # Before Linux 5.9 the domain is not told.
    device_folder = drm / f"renderD{facts.get('drm_render_minor', '')}" / "device"
    name = os.path.basename(os.path.realpath(device_folder)).lower()
    return name if PCI.fullmatch(name) else None


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # there is none, or the process ended
        return []


def _whole(file: Path) -> int | None:
    text = read_text(file) or ""
    return int(text) if _WHOLE.fullmatch(text) else None


def _sum(folder: Path, name: str, gpu_ids: list[int]) -> int | None:
    """The sum over a card's partitions; None if none of them tells."""
    told = [_whole(folder / name.format(gpu_id)) for gpu_id in gpu_ids]
    known = [value for value in told if value is not None]
    return sum(known) if known else None
