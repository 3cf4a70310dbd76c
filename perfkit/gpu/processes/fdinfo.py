"""The use of the cards by each process, from the kernel's fdinfo and from ROCm's own list.

Looked for on request only: it means opening every descriptor of every process, and only root sees
those of other users. The keys are those of the kernel's "DRM client usage stats"
(Documentation/gpu/drm-usage-stats.rst), and before Linux 5.19 amdgpu's own (amdgpu_fdinfo.c).

Nothing counts twice. A client that several descriptors share, in one process or in several, counts
once, for the first process. What ROCm's list says of a process's memory is in its fdinfo too on new
kernels, so the larger figure stands.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cluster.vocabulary.printable import printable
from perfkit.gpu.device.discovery import PCI
from perfkit.gpu.device.record import HeldFile, read_text
from perfkit.gpu.processes.kfd import KFD_ROOT, KfdUse, kfd_uses, numbers_as_host

PROC = Path("/proc")
#: Bytes read of one descriptor.
TEXT_BYTES = 16_384
DESCRIPTORS_MAX = 100_000
#: The same for the own process, which is looked at with each heartbeat.
OWN_DESCRIPTORS_MAX = 4_096

#: Without a unit it is bytes. Linux before 5.19 writes kB and means KiB.
_SIZE = re.compile(r"([0-9]{1,18})(?:\s*(KiB|MiB|GiB|TiB|kB))?")
_UNITS = {None: 1, "kB": 1 << 10, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_NS = re.compile(r"([0-9]{1,18})\s*ns")
_ENGINE, _CAPACITY = "drm-engine-", "drm-engine-capacity-"


@dataclass(frozen=True)
class DrmClient:
    """The use of a card through one open file: bytes, and nanoseconds by engine.

    Memory is what is in the card's now. `vram_shared_bytes` of it is shared with other clients,
    which count it too; `vram_evicted_bytes` had to leave it.
    """

    pci: str
    client: int | None
    vram_bytes: int | None
    gtt_bytes: int | None
    engine_ns: Mapping[str, int]
    vram_shared_bytes: int | None = None
    vram_evicted_bytes: int | None = None


@dataclass(frozen=True)
class ProcessUse:
    """The use of one card by one process; `engine_ns` counts up since its files were opened.

    `shared_with` has the other processes that hold the same open files; what is used through those
    counts here and not there. `sdma_ns` is the time of ROCm's copies, `cu_n` the number of compute
    units that it fills now; `source` says who told: fdinfo, kfd (ROCm's part of it) or both.
    """

    pid: int
    name: str | None
    pci: str
    vram_bytes: int | None
    gtt_bytes: int | None
    engine_ns: Mapping[str, int]
    vram_shared_bytes: int | None = None
    vram_evicted_bytes: int | None = None
    sdma_ns: int | None = None
    cu_n: int | None = None
    shared_with: tuple[int, ...] = ()
    source: str = "fdinfo"


@dataclass(frozen=True)
class Processes:
    """What could be seen, and in `notes` what could not and why."""

    uses: tuple[ProcessUse, ...]
    notes: tuple[str, ...] = ()


def parse(text: str) -> DrmClient | None:
    """The client in a descriptor's fdinfo; None if it is not one of amdgpu's.

    Memory is `drm-resident-…`, or `drm-memory-…` of kernels before it, which is the same; the
    `drm-total-…` includes what was evicted. An odd value is unknown.
    """
    pairs = (line.partition(":") for line in text.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    if "drm-driver" not in facts and "vram mem" in facts:  # Linux 5.14 to 5.18
        facts = {"drm-driver": "amdgpu", "drm-pdev": facts.get("pdev", ""), **facts}
    pci = facts.get("drm-pdev", "").lower()
    pci = f"0000:{pci}" if pci.count(":") == 1 else pci
    if facts.get("drm-driver") != "amdgpu" or not PCI.fullmatch(pci):
        return None
    client = facts.get("drm-client-id", facts.get("pasid", ""))
    engines = {
        key.removeprefix(_ENGINE): int(match[1])
        for key, value in facts.items()
        if key.startswith(_ENGINE)
        and not key.startswith(_CAPACITY)
        and (match := _NS.fullmatch(value))
    }
    return DrmClient(
        pci=pci,
        client=int(client) if re.fullmatch(r"[0-9]{1,20}", client) else None,
        vram_bytes=_bytes(facts, "drm-resident-vram", "drm-memory-vram", "vram mem"),
        gtt_bytes=_bytes(facts, "drm-resident-gtt", "drm-memory-gtt", "gtt mem"),
        engine_ns=engines,
        vram_shared_bytes=_bytes(facts, "drm-shared-vram"),
        vram_evicted_bytes=_bytes(facts, "amd-evicted-vram"),
    )


def _bytes(facts: Mapping[str, str], *keys: str) -> int | None:
    for key in keys:
        match = _SIZE.fullmatch(facts.get(key, ""))
        if match is not None:
            return int(match[1]) * _UNITS[match[2]]
    return None


def look(proc: Path = PROC, kfd: Path = KFD_ROOT) -> Processes:
    """Every process that can be seen to use a card, one row for each card it uses."""
    everyone = sorted(int(name) for name in os.listdir(proc) if re.fullmatch("[0-9]+", name))
    rocm = kfd_uses(kfd)
    notes = []
    if rocm and not numbers_as_host(proc):
        notes.append("ROCm's own list is left out: it has the host's process ids, not those here")
        rocm = []
    held, refused_n = _held(proc, everyone, {use.pid for use in rocm})
    if refused_n:
        who = "1 other process" if refused_n == 1 else f"{refused_n:,} other processes"
        advice = "; root sees more" if os.geteuid() else ""
        notes.append(f"{who} can't be looked into, for lack of permission{advice}")
    uses = {(pid, pci): _use(proc, pid, pci, clients) for (pid, pci), clients in held.items()}
    for use in rocm:
        _add(uses, use, proc)
    return Processes(tuple(uses[key] for key in sorted(uses)), tuple(notes))


#: A client and every process that holds it.
_Held = tuple[DrmClient, list[int]]


def _held(
    proc: Path, pids: list[int], rocm_pids: Collection[int]
) -> tuple[dict[tuple[int, str], list[_Held]], int]:
    """Each client once, by process and card, and how many processes refused to be looked into.

    Of the processes that share a client the one that ROCm's list has comes first, as its memory is
    in there too, and then the lowest number.
    """
    clients: dict[object, _Held] = {}
    refused_n = 0
    for pid in pids:
        try:
            for descriptor, client in _clients(proc / str(pid) / "fdinfo"):
                # Without an id a client can't be told from another, and counts for itself.
                own = (pid, descriptor) if client.client is None else client.client
                _, holders = clients.setdefault((client.pci, own), (client, []))
                if pid not in holders:
                    holders.append(pid)
        except PermissionError:
            refused_n += 1
    owned: dict[tuple[int, str], list[_Held]] = {}
    for client, holders in clients.values():
        owner = min(holders, key=lambda pid: (pid not in rocm_pids, pid))
        owned.setdefault((owner, client.pci), []).append((client, holders))
    return owned, refused_n


def _clients(folder: Path) -> Iterator[tuple[str, DrmClient]]:
    """The clients of a process that still is; raises PermissionError if it is another user's."""
    try:
        descriptors = os.listdir(folder)[:DESCRIPTORS_MAX]
    except PermissionError:
        raise
    except OSError:  # it ended
        return
    for descriptor in descriptors:
        try:
            content = HeldFile(folder / descriptor).read(TEXT_BYTES)
        except OSError:
            continue
        client = parse(content.decode("utf-8", "replace"))
        if client is not None:
            yield descriptor, client


def _use(proc: Path, pid: int, pci: str, held: list[_Held]) -> ProcessUse:
    engine_ns: Counter[str] = Counter()
    for client, _ in held:
        engine_ns.update(client.engine_ns)
    clients = [client for client, _ in held]
    return ProcessUse(
        pid=pid,
        name=_name(proc, pid),
        pci=pci,
        vram_bytes=_sum([client.vram_bytes for client in clients]),
        gtt_bytes=_sum([client.gtt_bytes for client in clients]),
        engine_ns=dict(engine_ns),
        vram_shared_bytes=_sum([client.vram_shared_bytes for client in clients]),
        vram_evicted_bytes=_sum([client.vram_evicted_bytes for client in clients]),
        shared_with=tuple(sorted({other for _, pids in held for other in pids} - {pid})),
    )


def _add(uses: dict[tuple[int, str], ProcessUse], rocm: KfdUse, proc: Path) -> None:
    """Add what ROCm's list says of a process."""
    use = uses.get((rocm.pid, rocm.pci))
    if use is None:
        name = _name(proc, rocm.pid)
        use = ProcessUse(rocm.pid, name, rocm.pci, None, None, {}, source="kfd")
    told = [size for size in (use.vram_bytes, rocm.vram_bytes) if size is not None]
    uses[rocm.pid, rocm.pci] = replace(
        use,
        vram_bytes=max(told, default=None),
        sdma_ns=rocm.sdma_ns,
        cu_n=rocm.cu_n,
        source="kfd" if use.source == "kfd" else "fdinfo, kfd",
    )


def _name(proc: Path, pid: int) -> str | None:
    name = read_text(proc / str(pid) / "comm")
    return None if name is None else printable(name)


def _sum(told: Sequence[int | None]) -> int | None:
    known = [value for value in told if value is not None]
    return sum(known) if known else None


class OwnUse(NamedTuple):
    """What this process uses of a card: memory, and the time of all engines; None is unknown."""

    vram_bytes: int | None = None
    gtt_bytes: int | None = None
    engine_ns: int | None = None

    def memory_bytes(self, is_apu: bool) -> int | None:
        """The memory that counts: video memory, and an APU's share of the host's."""
        return _sum([self.vram_bytes, self.gtt_bytes]) if is_apu else self.vram_bytes


NO_USE = OwnUse()


def own_use(process: Path = Path("/proc/self")) -> dict[str, OwnUse]:
    """The use of each card by this process, by PCI address; only its own descriptors are read."""
    clients: dict[object, DrmClient] = {}
    try:
        descriptors = os.listdir(process / "fd")[:OWN_DESCRIPTORS_MAX]
    except OSError:
        return {}
    for descriptor in descriptors:
        try:
            if not os.readlink(process / "fd" / descriptor).startswith("/dev/dri/"):
                continue
            content = HeldFile(process / "fdinfo" / descriptor).read(TEXT_BYTES)
        except OSError:
            continue
        client = parse(content.decode("utf-8", "replace"))
        if client is not None:
            clients[client.pci, descriptor if client.client is None else client.client] = client
    uses: dict[str, OwnUse] = {}
    for client in clients.values():
        use = uses.get(client.pci, NO_USE)
        uses[client.pci] = OwnUse(
            _sum([use.vram_bytes, client.vram_bytes]),
            _sum([use.gtt_bytes, client.gtt_bytes]),
            _sum([use.engine_ns, *client.engine_ns.values()]),
        )
    return uses
