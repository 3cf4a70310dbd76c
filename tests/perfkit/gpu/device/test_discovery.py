"""Which entries of /sys/class/drm are AMD's cards, and what the others are."""

import os
from pathlib import Path

import pytest

from perfkit.gpu.card import Cards
from perfkit.gpu.device.discovery import chip, discover
from perfkit.gpu.device.made_up import plant

AT = "DRIVER=amdgpu\nPCI_ID=1002:67DF\nPCI_SLOT_NAME=0000:{:02x}:00.0\n"


def test_cards_are_told_from_connectors_render_nodes_and_other_vendors(tmp_path: Path) -> None:
    plant(tmp_path, {"vendor": "0x1002\n", "uevent": AT.format(9)}, card="card10")
    plant(tmp_path, {"vendor": "0x1002\n", "uevent": AT.format(3)}, card="card2")
    plant(tmp_path, {"vendor": "0x10de\n"}, card="card0")
    plant(tmp_path, {"uevent": "DRIVER=simple-framebuffer\n"}, card="card1")
    plant(tmp_path, {"vendor": "0x1002\n", "uevent": AT.format(9)}, card="card11")
    for name in ("card10-DP-1", "renderD128", "card3", "cardboard"):
        (tmp_path / name).mkdir()
    (tmp_path / "version").write_text("drm 1.1.0\n")
    found = discover(tmp_path)
    assert [(info.card, info.pci) for info in found.cards] == [
        ("card2", "0000:03:00.0"),
        ("card10", "0000:09:00.0"),
    ]
    assert found.skipped == {
        "card0": "of vendor 0x10de, not AMD",
        "card1": "not on a PCI bus",
        "card3": "no device behind it",
        "card11": "another entry of card10",
        "card10-DP-1": "not a card",
        "renderD128": "not a card",
        "cardboard": "not a card",
        "version": "not a card",
    }


def test_the_old_driver_is_named(tmp_path: Path) -> None:
    plant(tmp_path, {"vendor": "0x1002\n", "uevent": "DRIVER=radeon\nPCI_ID=1002:6818\n"})
    (info,) = discover(tmp_path).cards
    assert (info.driver, info.pci, info.key) == ("radeon", None, "card0")
    assert info.chip is not None
    assert info.chip.family == "si"


def test_links_stand_in_for_a_missing_event(tmp_path: Path) -> None:
    device = tmp_path / "devices" / "0000:0b:00.0"
    (tmp_path / "drm" / "card0").mkdir(parents=True)
    (tmp_path / "drivers" / "amdgpu").mkdir(parents=True)
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x1002")
    (device / "device").write_text("garbage\n")
    (device / "product_name").write_text("Radeon Pro WX 7100\n")
    os.symlink("../../drivers/amdgpu", device / "driver")
    os.symlink(device, tmp_path / "drm" / "card0" / "device")
    (info,) = discover(tmp_path / "drm").cards
    assert (info.pci, info.driver, info.pci_id) == ("0000:0b:00.0", "amdgpu", None)
    assert (info.name, info.chip) == ("Radeon Pro WX 7100", None)


def test_a_root_that_is_not_there_has_no_cards(tmp_path: Path) -> None:
    found = discover(tmp_path / "drm")
    assert found.cards == ()
    assert [*found.skipped.values()] == ["No such file or directory"]


def test_a_card_that_is_plugged_in_is_found_by_the_next_look(tmp_path: Path) -> None:
    cards = Cards(tmp_path)
    assert (len(cards), cards.sample()) == (0, [])
    plant(tmp_path)
    cards.refresh()
    before = [*cards]
    cards.refresh()
    assert len(cards) == 1
    assert [*cards] == before


@pytest.mark.parametrize(
    ("device_id", "family", "is_apu"),
    [
        (0x67DF, "polaris", False),
        (0x67EF, "polaris", False),
        (0x687F, "vega", False),
        (0x66AF, "vega", False),
        (0x73BF, "navi2", False),
        (0x744C, "navi3", False),
        (0x738C, "cdna", False),
        (0x740F, "cdna", False),
        (0x74A1, "cdna", False),
        (0x74A0, "cdna", True),
        (0x164E, "navi2", True),
        (0x1681, "navi2", True),
        (0x15BF, "navi3", True),
        (0x1636, "vega", True),
        (0x679A, "si", False),
        (0x67B0, "ci", False),
    ],
)
def test_a_chip_is_known_by_its_id(device_id: int, family: str, is_apu: bool) -> None:
    found = chip(device_id)
    assert found is not None
    assert (found.family, found.is_apu) == (family, is_apu)
