"""The time that this process has used of each AMD card, as the kernel's driver counts it.

That is the proof that a card did the work, whatever a library says of itself. The keys are those of
the kernel's "DRM client usage stats" (https://docs.kernel.org/gpu/drm-usage-stats.html).
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from cluster.models.repository.manifest import ModelError

PROCESS = Path("/proc/self")
DESCRIPTORS_MAX = 4096
_ENGINE = re.compile(r"^drm-engine-(?!capacity-)\S+:\s*([0-9]{1,18}) ns\s*$", re.MULTILINE)


class CardUnused(ModelError):
    """The card that was asked for did not do the work, as far as the kernel tells."""


def engine_times_ns(process: Path = PROCESS) -> dict[str, int]:
    """Nanoseconds of all engines by PCI address, for each card that the process has open.

    Descriptors of one client count once.
    """
    found: dict[tuple[str, str], int] = {}
    with suppress(OSError):
        for descriptor in os.listdir(process / "fdinfo")[:DESCRIPTORS_MAX]:
            with suppress(OSError):
                text = (process / "fdinfo" / descriptor).read_text(errors="replace")
                if _fact(text, "drm-driver") == "amdgpu" and (pci := _fact(text, "drm-pdev")):
                    client = _fact(text, "drm-client-id") or f"descriptor {descriptor}"
                    found[pci.lower(), client] = sum(map(int, _ENGINE.findall(text)))
    times: dict[str, int] = {}
    for (pci, _), time_ns in found.items():
        times[pci] = times.get(pci, 0) + time_ns
    return times


def check_used(pci: str | None, before: dict[str, int], after: dict[str, int]) -> None:
    """Raise CardUnused unless the card at ``pci`` has worked between two looks at its time."""
    used = {it: time_ns - before.get(it, 0) for it, time_ns in after.items()}
    if pci is not None and used.get(pci, 0) > 0:
        return
    others = [it for it, time_ns in used.items() if time_ns > 0]
    if others:
        seen = f"{', '.join(others)} did; PERFKIT_CARD names the card that is wanted"
    elif after:
        seen = f"this process has {', '.join(after)} open, and no engine of it has worked"
    else:
        seen = (
            "this process has no card of amdgpu's open (/proc/self/fdinfo; the kernel must be "
            "Linux 5.19 or newer)"
        )
    raise CardUnused(f"the card at {pci or 'an unknown address'} did not do the work: {seen}")


def _fact(text: str, key: str) -> str:
    found = re.search(rf"^{key}:\s*(\S+)\s*$", text, re.MULTILINE)
    return found[1] if found else ""
