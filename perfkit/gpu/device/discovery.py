"""Which cards a machine has: the entries of /sys/class/drm told apart, keyed by PCI address.

The folder also lists connectors (`card0-DP-1`), render nodes, other vendors' cards, virtual ones,
and the compute partitions of a divided card, which are devices of the platform bus (the driver's
amdxcp/amdgpu_xcp_drv.c). A card's number changes from boot to boot, and when a card comes back; its
PCI address does not. `product_name` is empty on most cards, so a table of device ids names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.vocabulary.printable import printable
from perfkit.gpu.device.chips import Chip, chip, family_of_core
from perfkit.gpu.device.record import PCI as PCI
from perfkit.gpu.device.record import DeviceFiles, DeviceRecord, read_text

DRM_ROOT = Path("/sys/class/drm")
AMD = 0x1002

_CARD = re.compile(r"card([0-9]{1,9})")
_PARTITION = re.compile(r"amdgpu_xcp[._][0-9]{1,4}")
_CORE = "ip_discovery/die/0/GC/0"


@dataclass(frozen=True)
class CardInfo:
    """A card and where it is now; `device` is its folder in sysfs.

    `driver` may be the old `radeon`, which tells a few fields only.
    """

    card: str
    device: Path
    pci: str | None
    device_id: int | None
    driver: str | None
    name: str | None
    chip: Chip | None

    @property
    def key(self) -> str:
        """The PCI address, or the card's number where a tree does not give it."""
        return self.pci or self.card

    @property
    def pci_id(self) -> str | None:
        """Vendor and device in the usual form, `1002:67df`."""
        return None if self.device_id is None else f"{AMD:04x}:{self.device_id:04x}"


@dataclass(frozen=True)
class Discovery:
    """The AMD cards below a root, by number, and why the other entries were skipped."""

    cards: tuple[CardInfo, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)


def discover(root: Path = DRM_ROOT) -> Discovery:
    """Look at every entry of `root`; a root that is not there has no cards."""
    try:
        entries = os.listdir(root)
    except OSError as error:
        return Discovery(skipped={str(root): error.strerror or "can't be listed"})
    numbers = {entry: int(match[1]) for entry in entries if (match := _CARD.fullmatch(entry))}
    cards: dict[str, CardInfo] = {}
    partitions: list[str] = []
    skipped = {entry: "not a card" for entry in entries if entry not in numbers}
    for entry in sorted(numbers, key=lambda entry: numbers[entry]):
        device = _followed(root / entry / "device")
        if not os.path.isdir(device):  # unlike Path's, false for what may not be looked at
            skipped[entry] = "no device behind it"
            continue
        if _PARTITION.fullmatch(_place(device)):
            partitions.append(entry)
            continue
        info = identify(entry, device, DeviceFiles(device).read())
        if isinstance(info, str):
            skipped[entry] = info
        elif info.key in cards:
            skipped[entry] = f"another entry of {cards[info.key].card}"
        else:
            cards[info.key] = info
    skipped |= dict.fromkeys(partitions, f"a partition of {_divided(cards.values())}")
    return Discovery(tuple(cards.values()), skipped)


def no_card_text(root: Path, skipped: Mapping[str, str]) -> str:
    """A sentence for a root without cards, with the other entries it has."""
    others = [f"{name} is {why}" for name, why in skipped.items() if name.startswith("card")]
    entries = [text for text in sorted(others) if not text.endswith("not a card")]
    seen = f" ({'; '.join(entries[:4])})" if entries else ""
    return f"no AMD card below {root}{seen}"


def _divided(cards: Iterable[CardInfo]) -> str:
    """The cards that may own a partition: sysfs does not say which one does."""
    modes = {info.card: read_text(info.device / "current_compute_partition") for info in cards}
    owners = [card for card, mode in modes.items() if mode not in (None, "SPX")]
    return " or ".join(owners or [card for card, mode in modes.items() if mode] or ["a card"])


def identify(card: str, device: Path, record: DeviceRecord) -> CardInfo | str:
    """The card behind a device folder, or why it is none of AMD's."""
    lines = (record.text("uevent") or "").splitlines()
    uevent = dict(line.split("=", 1) for line in lines if "=" in line)
    # The ids have files of their own, or are in the event as `PCI_ID=1002:67DF`.
    told_vendor, _, told_device = uevent.get("PCI_ID", "").partition(":")
    vendor_id = _hexadecimal(record.text("vendor") or told_vendor)
    device_id = _hexadecimal(record.text("device") or told_device)
    if vendor_id is None:
        return "not on a PCI bus"
    if vendor_id != AMD:
        return f"of vendor {vendor_id:#06x}, not AMD"
    addresses = (uevent.get("PCI_SLOT_NAME", ""), _place(device))
    known = chip(device_id, _hexadecimal(record.text("revision") or ""))
    driver = uevent.get("DRIVER") or _link_name(device / "driver")
    name = " ".join((record.text("product_name") or "").split())
    return CardInfo(
        card=card,
        device=device,
        pci=next((a.lower() for a in addresses if PCI.fullmatch(a.lower())), None),
        device_id=device_id,
        driver=printable(driver) if driver else None,
        name=printable(name) if name else _chip_name(device_id, known),
        chip=known or _chip_by_core(record),
    )


def _followed(link: Path) -> Path:
    """A device's folder; in a recording without links, a file has the text of the link."""
    target = read_text(link) if os.path.isfile(link) else None
    return link if target is None else link.parent / target


def _place(device: Path) -> str:
    """The name of a device on its bus, which is its PCI address if that is PCI."""
    return os.path.basename(os.path.realpath(device))


def _chip_by_core(record: DeviceRecord) -> Chip | None:
    """A chip without an entry in the table, by the version of its graphics core."""
    parts = [record.text(f"{_CORE}/{part}") for part in ("major", "minor", "revision")]
    if not all(part is not None and re.fullmatch("[0-9]{1,3}", part) for part in parts):
        return None
    family = family_of_core(*(int(part) for part in parts if part is not None))
    return Chip(family, "card", None) if family else None


def _hexadecimal(text: str) -> int | None:
    return int(text, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", text) else None


def _link_name(link: Path) -> str | None:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return None


def _chip_name(device_id: int | None, known: Chip | None) -> str | None:
    if device_id is None:
        return None
    return f"AMD {known.name if known else 'card'} [{AMD:04x}:{device_id:04x}]"
