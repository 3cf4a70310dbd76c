"""Which cards a machine has: the entries of /sys/class/drm told apart, keyed by PCI address.

The folder also lists connectors (`card0-DP-1`), render nodes, other vendors' cards and virtual
ones. A card's number changes from boot to boot, and when a card comes back; its PCI address does
not. The driver knows the chip and does not show it in sysfs, and `product_name` is empty on most
cards, so a table of device ids names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from perfkit.gpu.record import DeviceFiles, DeviceRecord

DRM_ROOT = Path("/sys/class/drm")
AMD = 0x1002

_CARD = re.compile(r"card([0-9]{1,9})")
PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


class Chip(NamedTuple):
    """A chip: the family as a task's `gpu_family` names it, and the chip's own name."""

    family: str
    name: str
    is_apu: bool


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

    @property
    def key(self) -> str:
        """The PCI address, or the card's number where a tree does not give it."""
        return self.pci or self.card

    @property
    def pci_id(self) -> str | None:
        """Vendor and device in the usual form, `1002:67df`."""
        return None if self.device_id is None else f"{AMD:04x}:{self.device_id:04x}"

    @property
    def chip(self) -> Chip | None:
        """The chip, with the family that a task's `gpu_family` asks for; None if unknown."""
        return chip(self.device_id)


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
    skipped = {entry: "not a card" for entry in entries if entry not in numbers}
    for entry in sorted(numbers, key=lambda entry: numbers[entry]):
        device = root / entry / "device"
        if not os.path.isdir(device):  # unlike Path's, false for what may not be looked at
            skipped[entry] = "no device behind it"
            continue
        info = identify(entry, device, DeviceFiles(device).read())
        if isinstance(info, str):
            skipped[entry] = info
        elif info.key in cards:
            skipped[entry] = f"another entry of {cards[info.key].card}"
        else:
            cards[info.key] = info
    return Discovery(tuple(cards.values()), skipped)


def no_card_text(root: Path, skipped: Mapping[str, str]) -> str:
    """A sentence for a root without cards, with the other entries it has."""
    others = [f"{name} is {why}" for name, why in skipped.items() if name.startswith("card")]
    entries = [text for text in sorted(others) if not text.endswith("not a card")]
    seen = f" ({'; '.join(entries[:4])})" if entries else ""
    return f"no AMD card below {root}{seen}"


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
    addresses = (uevent.get("PCI_SLOT_NAME", ""), os.path.basename(os.path.realpath(device)))
    return CardInfo(
        card=card,
        device=device,
        pci=next((a.lower() for a in addresses if PCI.fullmatch(a.lower())), None),
        device_id=device_id,
        driver=uevent.get("DRIVER") or _link_name(device / "driver"),
        name=record.text("product_name") or _chip_name(device_id),
    )


def _hexadecimal(text: str) -> int | None:
    return int(text, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", text) else None


def _link_name(link: Path) -> str | None:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return None


def _chip_name(device_id: int | None) -> str | None:
    if device_id is None:
        return None
    known = chip(device_id)
    return f"AMD {known.name if known else 'card'} [{AMD:04x}:{device_id:04x}]"


#: Family, name, first and last device id, from the public PCI id list and amdgpu's device table.
_CARDS = (
    ("si", "Oland", 0x6600, 0x6631),
    ("ci", "Bonaire", 0x6640, 0x665F),
    ("si", "Hainan", 0x6660, 0x666F),
    ("vega", "Vega 20", 0x66A0, 0x66AF),
    ("si", "Tahiti", 0x6780, 0x679F),
    ("ci", "Hawaii", 0x67A0, 0x67BE),
    ("polaris", "Polaris 10", 0x67C0, 0x67DF),
    ("polaris", "Polaris 11", 0x67E0, 0x67FF),
    ("si", "Pitcairn", 0x6800, 0x681F),
    ("si", "Cape Verde", 0x6820, 0x683F),
    ("vega", "Vega 10", 0x6860, 0x687F),
    ("vi", "Topaz", 0x6900, 0x6907),
    ("vi", "Tonga", 0x6920, 0x693F),
    ("polaris", "Vega M", 0x694C, 0x694F),
    ("polaris", "Polaris 12", 0x6980, 0x699F),
    ("vega", "Vega 12", 0x69A0, 0x69AF),
    ("vi", "Fiji", 0x7300, 0x730F),
    ("navi1", "Navi 10", 0x7310, 0x731F),
    ("navi1", "Navi 14", 0x7340, 0x734F),
    ("navi1", "Navi 12", 0x7360, 0x7362),
    ("cdna", "Arcturus MI100", 0x7388, 0x7390),
    ("navi2", "Navi 21", 0x73A0, 0x73BF),
    ("navi2", "Navi 22", 0x73C0, 0x73DF),
    ("navi2", "Navi 23", 0x73E0, 0x73FF),
    ("cdna", "Aldebaran MI200", 0x7408, 0x7410),
    ("navi2", "Navi 24", 0x7420, 0x743F),
    ("navi3", "Navi 31", 0x7440, 0x745F),
    ("navi3", "Navi 32", 0x7460, 0x747F),
    ("navi3", "Navi 33", 0x7480, 0x749F),
    ("cdna", "Aqua Vanjaram MI300", 0x74A1, 0x74BF),
    ("navi4", "Navi 48", 0x7550, 0x755F),
    ("navi4", "Navi 44", 0x7590, 0x759F),
    ("cdna", "MI350", 0x75A0, 0x75BF),
)
_APUS = (
    ("ci", "Kaveri", 0x1304, 0x131D),
    ("ci", "Kabini", 0x9830, 0x983F),
    ("ci", "Mullins", 0x9850, 0x985F),
    ("vi", "Carrizo", 0x9870, 0x9877),
    ("vi", "Stoney", 0x98E4, 0x98E4),
    ("vega", "Picasso", 0x15D8, 0x15D8),
    ("vega", "Raven", 0x15DD, 0x15DD),
    ("vega", "Barcelo", 0x15E7, 0x15E7),
    ("vega", "Renoir", 0x1636, 0x1636),
    ("vega", "Cezanne", 0x1638, 0x1638),
    ("vega", "Lucienne", 0x164C, 0x164C),
    ("navi1", "Cyan Skillfish", 0x13FE, 0x13FE),
    ("navi2", "Van Gogh", 0x163F, 0x163F),
    ("navi2", "Rembrandt", 0x164D, 0x164D),
    ("navi2", "Rembrandt", 0x1681, 0x1681),
    ("navi2", "Raphael", 0x164E, 0x164E),
    ("navi2", "Mendocino", 0x1506, 0x1506),
    ("navi2", "Granite Ridge", 0x13C0, 0x13C0),
    ("navi3", "Phoenix", 0x15BF, 0x15BF),
    ("navi3", "Phoenix 2", 0x15C8, 0x15C8),
    ("navi3", "Hawk Point", 0x1900, 0x1901),
    ("navi3", "Strix", 0x150E, 0x150E),
    ("navi3", "Strix Halo", 0x1586, 0x1586),
    ("navi3", "Krackan", 0x1114, 0x1114),
    ("cdna", "Aqua Vanjaram MI300A", 0x74A0, 0x74A0),
)


def chip(device_id: int | None) -> Chip | None:
    """The chip behind an AMD PCI device id; None for one that is not in the table."""
    if device_id is None:
        return None
    for table, is_apu in ((_CARDS, False), (_APUS, True)):
        for family, name, first, last in table:
            if first <= device_id <= last:
                return Chip(family, name, is_apu)
    return None
