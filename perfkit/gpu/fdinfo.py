"""The use of the cards by each process, from the kernel's fdinfo; read on request only.

Reading it means opening every descriptor of every process; only root sees those of other users. The
keys are those of the kernel's "DRM client usage stats". A client that several descriptors share
counts once.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perfkit.gpu.record import HeldFile, read_text

#: Bytes read of one descriptor.
TEXT_BYTES = 16_384
DESCRIPTORS_MAX = 100_000

_SIZE = re.compile(r"([0-9]{1,18})(?: (KiB|MiB|GiB))?")
_UNITS = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NS = re.compile(r"([0-9]{1,18}) ns")


@dataclass(frozen=True)
class DrmClient:
    """The use of a card through one open file: bytes, and nanoseconds by engine."""

    pci: str
    client: int | None
    vram_bytes: int | None
    gtt_bytes: int | None
    engine_ns: Mapping[str, int]


@dataclass(frozen=True)
class ProcessUse:
    """The use of one card by one process; `engine_ns` counts up since its files were opened."""

    pid: int
    name: str | None
    pci: str
    vram_bytes: int | None
    gtt_bytes: int | None
    engine_ns: Mapping[str, int]


def parse(text: str) -> DrmClient | None:
    """The client in a descriptor's fdinfo; None if it is not one of amdgpu's.

    Memory is `drm-resident-…`, or `drm-memory-…` of kernels before it; an odd value is unknown.
    """
    pairs = (line.partition(":") for line in text.splitlines())
    facts = {key: value.strip() for key, _, value in pairs}
    if facts.get("drm-driver") != "amdgpu" or "drm-pdev" not in facts:
        return None
    client = facts.get("drm-client-id", "")
    engines = {
        key.removeprefix("drm-engine-"): int(match[1])
        for key, value in facts.items()
        if key.startswith("drm-engine-") and (match := _NS.fullmatch(value))
    }
    return DrmClient(
        pci=facts["drm-pdev"].lower(),
        client=int(client) if re.fullmatch(r"[0-9]{1,20}", client) else None,
        vram_bytes=_bytes(facts, "vram"),
        gtt_bytes=_bytes(facts, "gtt"),
        engine_ns=engines,
    )


def _bytes(facts: Mapping[str, str], region: str) -> int | None:
    for key in (f"drm-resident-{region}", f"drm-memory-{region}"):
        match = _SIZE.fullmatch(facts.get(key, ""))
        if match is not None:
            return int(match[1]) * _UNITS[match[2]]
    return None


def processes(proc: Path = Path("/proc")) -> list[ProcessUse]:
    """Every process that can be seen to use a card, one row for each card it uses."""
    uses = []
    for pid in sorted(int(name) for name in os.listdir(proc) if re.fullmatch("[0-9]+", name)):
        by_card: dict[str, dict[object, DrmClient]] = {}
        for descriptor, client in _clients(proc / str(pid) / "fdinfo"):
            # Without an id a client can't be told from another, and counts for itself.
            identity = descriptor if client.client is None else client.client
            by_card.setdefault(client.pci, {})[identity] = client
        name = read_text(proc / str(pid) / "comm") if by_card else None
        for pci, clients in by_card.items():
            uses.append(_sum(pid, name, pci, list(clients.values())))
    return uses


def _clients(folder: Path) -> Iterator[tuple[str, DrmClient]]:
    try:
        descriptors = os.listdir(folder)[:DESCRIPTORS_MAX]
    except OSError:  # it ended, or is another user's
        return
    for descriptor in descriptors:
        try:
            content = HeldFile(folder / descriptor).read(TEXT_BYTES)
        except OSError:
            continue
        client = parse(content.decode("utf-8", "replace"))
        if client is not None:
            yield descriptor, client


def _sum(pid: int, name: str | None, pci: str, clients: list[DrmClient]) -> ProcessUse:
    engine_ns: Counter[str] = Counter()
    for client in clients:
        engine_ns.update(client.engine_ns)
    vram = [c.vram_bytes for c in clients if c.vram_bytes is not None]
    gtt = [c.gtt_bytes for c in clients if c.gtt_bytes is not None]
    return ProcessUse(
        pid, name, pci, sum(vram) if vram else None, sum(gtt) if gtt else None, dict(engine_ns)
    )
