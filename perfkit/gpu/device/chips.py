"""Which chip is behind a PCI device id of AMD's.

The driver knows the chip and does not show it in sysfs, and a family has ids in many places: an RX
580 with 2,048 shaders is 6FDF, far from the 67DF of the others. So this is a table of facts: the
ids of the kernel's driver (`pciidlist` in drivers/gpu/drm/amd/amdgpu/amdgpu_drv.c, and for GCN 1
also include/drm/drm_pciids.h), those of libdrm's data/amdgpu.ids, and those of pci.ids. Since Linux
5.15 the driver takes new chips without an id, by the version of their graphics core, which it shows
below `ip_discovery`; so does `family_of_core`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple


class Chip(NamedTuple):
    """A chip: the family as a task's `gpu_family` names it, and the chip's own name.

    `is_apu` is None for a chip that is only known by its graphics core.
    """

    family: str
    name: str
    is_apu: bool | None


#: Family, name and ids, where `6600-6631` is a range that no other chip has an id in.
_CARDS = (
    ("si", "Tahiti", "6780-679F"),
    ("si", "Pitcairn", "6800-681F 684C"),
    ("si", "Cape Verde", "6820-683F"),
    ("si", "Oland", "6600-6631"),
    ("si", "Hainan", "6660-666F"),
    ("ci", "Bonaire", "6640-665F"),
    ("ci", "Hawaii", "67A0-67BE"),
    ("vi", "Topaz", "6900-6907"),
    ("vi", "Tonga", "6920-693F"),
    ("vi", "Fiji", "7300-730F"),
    ("polaris", "Polaris 10", "67C0-67DF 6FDF"),
    ("polaris", "Polaris 11", "67E0-67FF"),
    ("polaris", "Polaris 12", "6980-699F"),
    ("polaris", "Vega M", "694C-694F"),
    ("vega", "Vega 10", "6860-687F"),
    ("vega", "Vega 12", "69A0-69AF"),
    ("vega", "Vega 20", "66A0-66AF"),
    ("cdna", "Arcturus MI100", "7388-7390"),
    ("cdna", "Aldebaran MI200", "7408-7410"),
    ("cdna", "Aqua Vanjaram MI300", "74A1-74BF"),
    ("cdna", "MI350", "75A0-75BF"),
    ("navi1", "Navi 10", "7310-731F"),
    ("navi1", "Navi 12", "7360-7362"),
    ("navi1", "Navi 14", "7340-734F"),
    ("navi2", "Navi 21", "73A0-73BF"),
    ("navi2", "Navi 22", "73C0-73DF"),
    ("navi2", "Navi 23", "73E0-73FF"),
    ("navi2", "Navi 24", "7420-743F"),
    ("navi3", "Navi 31", "7440-745F"),
    ("navi3", "Navi 32", "7460-747F"),
    ("navi3", "Navi 33", "7480-749F"),
    ("navi4", "Navi 44", "7590-759F"),
    ("navi4", "Navi 48", "7550-755F"),
)
_APUS = (
    ("ci", "Kaveri", "1304-1307 1309-1313 1315-1318 131B-131D"),
    ("ci", "Kabini", "9830-983F"),
    ("ci", "Mullins", "9850-985F"),
    ("vi", "Carrizo", "9870 9874-9877"),
    ("vi", "Stoney", "98E4"),
    ("vega", "Raven", "15DD"),
    ("vega", "Picasso", "15D8"),
    ("vega", "Renoir", "1636"),
    ("vega", "Lucienne", "164C"),
    ("vega", "Cezanne", "1638"),
    ("vega", "Barcelo", "15E7"),
    ("cdna", "Aqua Vanjaram MI300A", "74A0"),
    ("navi1", "Cyan Skillfish", "13DB 13F9-13FC 13FE 143F"),
    ("navi2", "Van Gogh", "163F 1435"),
    ("navi2", "Rembrandt", "164D 1681"),
    ("navi2", "Raphael", "164E"),
    ("navi2", "Granite Ridge", "13C0"),
    ("navi2", "Mendocino", "1506"),
    ("navi3", "Phoenix", "15BF 164F"),
    ("navi3", "Phoenix 2", "15C8"),
    ("navi3", "Hawk Point", "1900"),
    ("navi3", "Hawk Point 2", "1901"),
    ("navi3", "Strix", "150E"),
    ("navi3", "Strix Halo", "1586"),
    ("navi3", "Krackan", "1114"),
    ("navi3", "Krackan 2", "1902"),
)
#: Chips that share an id with another one and differ by revision (amdgpu_drv.c `asic_type_quirks`).
_BY_REVISION: Mapping[tuple[int, int], Chip] = {
    (0x67FF, revision): Chip("polaris", "Polaris 10", is_apu=False)
    for revision in (0xE3, 0xE7, 0xF3, 0xF7)
}
#: By major and minor version of the graphics core, or all three (amdgpu_discovery.c).
_CORES: Mapping[tuple[int, ...], str] = {
    (9, 0): "vega",
    (9, 1): "vega",
    (9, 2): "vega",
    (9, 3): "vega",
    (9, 4, 0): "vega",
    (9, 4): "cdna",
    (9, 5): "cdna",
    (10, 1): "navi1",
    (10, 3): "navi2",
    (11, 0): "navi3",
    (11, 5): "navi3",
    (12, 0): "navi4",
}


def chip(device_id: int | None, revision: int | None = None) -> Chip | None:
    """The chip behind an AMD PCI device id; None for one that is not in the table."""
    if device_id is None:
        return None
    return _BY_REVISION.get((device_id, revision or 0)) or _by_id().get(device_id)


def family_of_core(major: int, minor: int, revision: int) -> str | None:
    """The family of a version of the graphics core; None for one that is not known."""
    return _CORES.get((major, minor, revision)) or _CORES.get((major, minor))


@cache
def _by_id() -> Mapping[int, Chip]:
    found: dict[int, Chip] = {}
    for table, is_apu in ((_CARDS, False), (_APUS, True)):
        for family, name, ids in table:
            for word in ids.split():
                first, _, last = word.partition("-")
                for device_id in range(int(first, 16), int(last or first, 16) + 1):
                    found[device_id] = Chip(family, name, is_apu)
    return found
