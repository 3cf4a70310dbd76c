"""Every id of the driver's and libdrm's lists is known as its chip, and no other one is."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from perfkit.gpu.device.chips import _APUS, _CARDS, chip, family_of_core
from perfkit.gpu.device.made_up import POLARIS, plant
from tests.perfkit.gpu.trees import sample_of

#: Family, chip, and its ids one by one, from the kernel's amdgpu_drv.c (`pciidlist`), libdrm's
#: amdgpu.ids and pci.ids: facts that are written down apart from the table, which has ranges.
CARDS = """
si Tahiti: 6780 6784 6788 678A 6790 6791 6792 6798 6799 679A 679B 679E 679F
si Pitcairn: 6800 6801 6802 6806 6808 6809 6810 6811 6816 6817 6818 6819 684C
si Cape Verde: 6820 6821 6822 6823 6824 6825 6826 6827 6828 6829 682A 682B 682C 682D 682F 6830 6831
si Cape Verde: 6835 6837 6838 6839 683B 683D 683F
si Oland: 6600 6601 6602 6603 6604 6605 6606 6607 6608 6609 6610 6611 6613 6617 6620 6621 6623 6631
si Hainan: 6660 6663 6664 6665 6666 6667 666F
ci Bonaire: 6640 6641 6646 6647 6649 664D 6650 6651 6658 665C 665D 665F
ci Hawaii: 67A0 67A1 67A2 67A8 67A9 67AA 67B0 67B1 67B8 67B9 67BA 67BE
vi Topaz: 6900 6901 6902 6903 6907
vi Tonga: 6920 6921 6928 6929 692B 692F 6930 6938 6939 693B
vi Fiji: 7300 730F
polaris Polaris 10: 67C0 67C1 67C2 67C4 67C7 67C8 67C9 67CA 67CC 67CF 67D0 67D4 67D7 67DF 6FDF
polaris Polaris 11: 67E0 67E1 67E3 67E7 67E8 67E9 67EB 67EF 67FF
polaris Polaris 12: 6980 6981 6985 6986 6987 698F 6995 6997 699F
polaris Vega M: 694C 694E 694F
vega Vega 10: 6860 6861 6862 6863 6864 6867 6868 6869 686A 686B 686C 686D 686E 686F 687F
vega Vega 12: 69A0 69A1 69A2 69A3 69AF
vega Vega 20: 66A0 66A1 66A2 66A3 66A4 66A7 66AF
cdna Arcturus MI100: 7388 738C 738E 7390
cdna Aldebaran MI200: 7408 740C 740F 7410
cdna Aqua Vanjaram MI300: 74A1 74A2 74A5 74A8 74A9 74B5 74B6 74B9 74BD
cdna MI350: 75A0 75A3 75B0 75B3
navi1 Navi 10: 7310 7312 7318 7319 731A 731B 731E 731F
navi1 Navi 12: 7360 7362
navi1 Navi 14: 7340 7341 7347 734F
navi2 Navi 21: 73A0 73A1 73A2 73A3 73A5 73A8 73A9 73AB 73AC 73AD 73AE 73AF 73BF
navi2 Navi 22: 73C0 73C1 73C3 73CE 73DA 73DB 73DC 73DD 73DE 73DF
navi2 Navi 23: 73E0 73E1 73E2 73E3 73E8 73E9 73EA 73EB 73EC 73ED 73EF 73FF
navi2 Navi 24: 7420 7421 7422 7423 7424 743F
navi3 Navi 31: 7448 7449 744A 744B 744C 745E
navi3 Navi 32: 7460 7461 7470 747E
navi3 Navi 33: 7480 7481 7483 7489 7499
navi4 Navi 44: 7590
navi4 Navi 48: 7550 7551
"""
APUS = """
ci Kaveri: 1304 1305 1306 1307 1309 130A 130B 130C 130D 130E 130F 1310 1311 1312 1313 1315 1316
ci Kaveri: 1317 1318 131B 131C 131D
ci Kabini: 9830 9831 9832 9833 9834 9835 9836 9837 9838 9839 983A 983B 983C 983D 983E 983F
ci Mullins: 9850 9851 9852 9853 9854 9855 9856 9857 9858 9859 985A 985B 985C 985D 985E 985F
vi Carrizo: 9870 9874 9875 9876 9877
vi Stoney: 98E4
vega Raven: 15DD
vega Picasso: 15D8
vega Renoir: 1636
vega Lucienne: 164C
vega Cezanne: 1638
vega Barcelo: 15E7
cdna Aqua Vanjaram MI300A: 74A0
navi1 Cyan Skillfish: 13DB 13F9 13FA 13FB 13FC 13FE 143F
navi2 Van Gogh: 163F 1435
navi2 Rembrandt: 164D 1681
navi2 Raphael: 164E
navi2 Granite Ridge: 13C0
navi2 Mendocino: 1506
navi3 Phoenix: 15BF
navi3 Phoenix 2: 15C8
navi3 Hawk Point: 1900
navi3 Hawk Point 2: 1901
navi3 Strix: 150E
navi3 Strix Halo: 1586
navi3 Krackan: 1114
navi3 Krackan 2: 1902
"""
#: Neighbours that are something else: sound, USB and bridges of cards, and chips before GCN.
OTHERS = "1308 1314 1478 1479 6779 6840 6843 68F9 7314F 9802 98C0 9990 AB28 FFFF"
LIBDRM_IDS = Path("/usr/share/libdrm/amdgpu.ids")


def facts() -> list[tuple[int, str, str, bool]]:
    return [
        (int(word, 16), family, name, is_apu)
        for text, is_apu in ((CARDS, False), (APUS, True))
        for family, name, ids in re.findall(r"^(\w+) (.+): (.+)$", text, re.MULTILINE)
        for word in ids.split()
    ]


def test_every_id_of_the_lists_is_its_chip() -> None:
    wrong = [
        (f"{device_id:04X}", chip(device_id), name)
        for device_id, family, name, is_apu in facts()
        if chip(device_id) != (family, name, is_apu)
    ]
    assert wrong == []
    kinds = Counter("APU" if is_apu else "card" for *_, is_apu in facts())
    assert kinds == {"card": 273, "APU": 89}
    assert len({device_id for device_id, *_ in facts()}) == 362


def test_no_two_ranges_share_an_id_and_no_other_device_is_a_chip() -> None:
    words = [word.split("-") for *_, ids in (*_CARDS, *_APUS) for word in ids.split()]
    spans = sorted((int(word[0], 16), int(word[-1], 16)) for word in words)
    assert all(last < first for (_, last), (first, _) in pairwise(spans))
    assert [word for word in OTHERS.split() if chip(int(word, 16))] == []
    assert chip(None) is None


def test_libdrm_names_no_card_that_is_unknown_here() -> None:
    if not LIBDRM_IDS.is_file():
        pytest.skip(f"no {LIBDRM_IDS}")
    ids = re.findall(r"^([0-9A-F]{4}),", LIBDRM_IDS.read_text(), re.MULTILINE)
    assert len(ids) > 100
    assert [device_id for device_id in ids if chip(int(device_id, 16)) is None] == []


@pytest.mark.parametrize(("revision", "name"), [("0xe7", "Polaris 10"), ("0xcf", "Polaris 11")])
def test_a_revision_tells_two_chips_of_one_id_apart(
    tmp_path: Path, revision: str, name: str
) -> None:
    event = "DRIVER=amdgpu\nPCI_ID=1002:67FF\n"
    plant(tmp_path, {"device": "0x67ff\n", "uevent": event, "revision": f"{revision}\n"} | VENDOR)
    sample = sample_of(tmp_path)
    assert (sample.name, sample.family) == (f"AMD {name} [1002:67ff]", "polaris")


VENDOR = {"vendor": "0x1002\n"}


@pytest.mark.parametrize(
    ("core", "family"),
    [
        ((9, 0, 1), "vega"), ((9, 3, 0), "vega"), ((9, 4, 0), "vega"), ((9, 4, 3), "cdna"),
        ((9, 5, 0), "cdna"), ((10, 1, 10), "navi1"), ((10, 3, 7), "navi2"), ((11, 0, 1), "navi3"),
        ((11, 5, 3), "navi3"), ((12, 0, 1), "navi4"), ((13, 0, 0), None),
    ],
)  # fmt: skip
def test_the_graphics_core_tells_the_family_of_a_chip_without_an_entry(
    tmp_path: Path, core: tuple[int, int, int], family: str | None
) -> None:
    parts = zip(("major", "minor", "revision"), core, strict=True)
    files = {f"ip_discovery/die/0/GC/0/{part}": f"{n}\n" for part, n in parts}
    plant(tmp_path, {**POLARIS, "device": "0xfff0\n", **files})
    sample = sample_of(tmp_path)
    assert (sample.family, sample.name) == (family, "AMD card [1002:fff0]")
    assert family_of_core(*core) == family
    assert (sample.is_apu, sample.gpu_busy_pct) == (False, 37)
