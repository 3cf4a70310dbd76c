"""Which chip a PCI device id is: its family for the scheduler, its name, whether it is an APU.

The driver has a table of its own and does not show it in sysfs, and `product_name` is empty on
most cards. The ids are those of the public PCI id list and of amdgpu's device table.
"""

from __future__ import annotations

from typing import NamedTuple


class Chip(NamedTuple):
    """A chip: the family as a task's `gpu_family` names it, and the chip's own name."""

    family: str
    name: str
    is_apu: bool


#: family, name, first and last device id
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


def chip(device_id: int) -> Chip | None:
    """The chip behind an AMD PCI device id; None for one that is not in the table."""
    for table, is_apu in ((_CARDS, False), (_APUS, True)):
        for family, name, first, last in table:
            if first <= device_id <= last:
                return Chip(family, name, is_apu)
    return None
