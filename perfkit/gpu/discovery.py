"""Which cards a machine has: the entries of /sys/class/drm told apart, keyed by PCI address.

The folder also lists connectors (`card0-DP-1`), render nodes, other vendors' cards and virtual
ones. A card's number and its hwmon's change from boot to boot, and when a card comes back; its PCI
address does not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perfkit.gpu.chips import chip
from perfkit.gpu.files import read_text

DRM_ROOT = Path("/sys/class/drm")
AMD = 0x1002

_CARD = re.compile(r"card([0-9]{1,9})")
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


@dataclass(frozen=True)
class CardInfo:
    """A card and where it is now; `device` is its folder in sysfs.

    `driver` may be the old `radeon`, which has a few readings of its own.
    """

    card: str
    device: Path
    pci: str | None
    device_id: int | None
    driver: str | None
    name: str | None

    @property
    def key(self) -> str:
        """The PCI address, or the card's number where a tree does not give it."""
        return self.pci or self.card

    @property
    def pci_id(self) -> str | None:
        """Vendor and device in the usual form, `1002:67df`."""
        return None if self.device_id is None else f"{AMD:04x}:{self.device_id:04x}"

    @property
    def family(self) -> str | None:
        """What a task's `gpu_family` would ask for; None for a chip that is not in the table."""
        found = None if self.device_id is None else chip(self.device_id)
        return found.family if found else None


@dataclass(frozen=True)
class Discovery:
    """The AMD cards below a root, in the order of their numbers, and why other entries are none."""

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
    skipped = {entry: "not a card" for entry in entries if entry not in numbers}
    for entry in sorted(numbers, key=lambda entry: numbers[entry]):
        info = _look_at(root / entry)
        if isinstance(info, str):
            skipped[entry] = info
        elif info.key in cards:
            skipped[entry] = f"another entry of {cards[info.key].card}"
        else:
            cards[info.key] = info
    return Discovery(tuple(cards.values()), skipped)


def no_card_text(root: Path, skipped: Mapping[str, str]) -> str:
    """That there is none, where it was looked for, and what was there instead."""
    others = [f"{name} is {why}" for name, why in skipped.items() if name.startswith("card")]
    entries = [text for text in sorted(others) if not text.endswith("not a card")]
    seen = f" ({'; '.join(entries[:4])})" if entries else ""
    return f"no AMD card below {root}{seen}"


def _look_at(entry: Path) -> CardInfo | str:
    """A card, or why the entry is none of AMD's."""
    device = entry / "device"
    if not os.path.isdir(device):  # unlike Path's, false for what may not be looked at
        return "no device behind it"
    uevent = _uevent(device)
    vendor_id, device_id = _ids(device, uevent)
    if vendor_id is None:
        return "not on a PCI bus"
    if vendor_id != AMD:
        return f"of vendor {vendor_id:#06x}, not AMD"
    return CardInfo(
        card=entry.name,
        device=device,
        pci=_pci(device, uevent),
        device_id=device_id,
        driver=uevent.get("DRIVER") or _link_name(device / "driver"),
        name=read_text(device / "product_name") or _chip_name(device_id),
    )


def _uevent(device: Path) -> dict[str, str]:
    lines = (read_text(device / "uevent") or "").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _ids(device: Path, uevent: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Vendor and device, from files of their own or from the event's `PCI_ID=1002:67DF`."""
    told_vendor, _, told_device = uevent.get("PCI_ID", "").partition(":")
    vendor = read_text(device / "vendor") or told_vendor
    return _hexadecimal(vendor), _hexadecimal(read_text(device / "device") or told_device)


def _hexadecimal(text: str) -> int | None:
    return int(text, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", text) else None


def _pci(device: Path, uevent: Mapping[str, str]) -> str | None:
    for text in (uevent.get("PCI_SLOT_NAME", ""), os.path.basename(os.path.realpath(device))):
        if _PCI.fullmatch(text.lower()):
            return text.lower()
    return None


def _link_name(link: Path) -> str | None:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return None


def _chip_name(device_id: int | None) -> str | None:
    if device_id is None:
        return None
    found = chip(device_id)
    return f"AMD {found.name if found else 'card'} [{AMD:04x}:{device_id:04x}]"
