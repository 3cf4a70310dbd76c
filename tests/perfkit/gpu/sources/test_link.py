"""The link of the slot and not the one inside the card, whichever files tell it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from perfkit.gpu.card import FastReader
from perfkit.gpu.device.made_up import POLARIS, plant
from tests.perfkit.gpu.trees import card_of, sample_of, table_v1_3

NAVI = {
    "vendor": "0x1002\n",
    "device": "0x73ff\n",
    "uevent": "DRIVER=amdgpu\nPCI_ID=1002:73FF\nPCI_SLOT_NAME=0000:03:00.0\n",
    "current_link_speed": "16.0 GT/s PCIe\n",
    "current_link_width": "16\n",
}
TABLE = {"pp_dpm_pcie": "0: 2.5GT/s, x1 310Mhz \n1: 8.0GT/s, x8 619Mhz *\n"}
METRICS = {"gpu_metrics": table_v1_3(pcie_link_speed=50, pcie_link_width=4)}
ROOT_PORT, UP, DOWN = ("0x1022", "0x1483"), ("0x1002", "0x1478"), ("0x1002", "0x1479")


def plant_on_bus(
    root: Path, bridges: list[tuple[str, str]], files: Mapping[str, str | bytes | None]
) -> None:
    """A card below bridges, the topmost first, whose links become slower from the card upwards."""
    place = root / "devices/pci0000:00"
    for number, (vendor, device) in enumerate(bridges):
        place /= f"0000:{number:02x}:00.0"
        place.mkdir(parents=True)
        (place / "vendor").write_text(f"{vendor}\n")
        (place / "device").write_text(f"{device}\n")
        speed = (2.5, 5.0, 8.0, 16.0)[4 - len(bridges) + number]
        (place / "current_link_speed").write_text(f"{speed} GT/s PCIe\n")
        (place / "current_link_width").write_text(f"{1 << number}\n")
    place.mkdir(parents=True, exist_ok=True)
    card = plant(place, files, card="planted")
    address = place / "0000:03:00.0"
    card.rename(address)
    (root / "drm/card0").mkdir(parents=True)
    (root / "drm/card0/device").symlink_to(address)


@pytest.mark.parametrize(
    ("bridges", "link"),
    [
        ([ROOT_PORT, UP, DOWN], (8.0, 2)),
        ([ROOT_PORT, ("0x10b5", "0x8747"), UP, DOWN], (8.0, 4)),
        ([UP, DOWN], (8.0, 1)),
        ([ROOT_PORT, ("0x1022", "0x1470"), ("0x1022", "0x1471")], (8.0, 2)),
        ([ROOT_PORT, ("0x1002", "0x15f0"), ("0x1002", "0x15f1")], (8.0, 2)),
        # RD890, an old chipset of that vendor, has its ports on the root bus.
        ([("0x1002", "0x5a16")], (None, None)),
        ([("0x1002", "0x5a16"), UP, DOWN], (8.0, 2)),
        ([ROOT_PORT], (None, None)),
        ([], (None, None)),
    ],
)
def test_the_last_bridge_of_the_card_has_the_link_of_the_slot(
    tmp_path: Path, bridges: list[tuple[str, str]], link: tuple[float | None, int | None]
) -> None:
    plant_on_bus(tmp_path, bridges, NAVI)
    sample = sample_of(tmp_path / "drm")
    assert (sample.pcie_speed_gts, sample.pcie_width) == link
    if link[0] is None:
        assert sample.errors["pcie_width"].endswith("16, which is the link inside the card")
    else:
        assert sample.source["pcie_width"] == "sysfs:upstream_port/current_link_width"
        assert "pcie_width" not in sample.errors
    fast = FastReader(card_of(tmp_path / "drm"), ["pcie_speed_gts", "pcie_width"])
    assert fast.read().values == fast.read().values == link


@pytest.mark.parametrize(
    ("files", "link", "source"),
    [
        (TABLE | METRICS, (8.0, 8), "sysfs:pp_dpm_pcie"),
        (METRICS, (5.0, 4), "gpu_metrics:v1.3:pcie_link_speed"),
        ({"pp_dpm_pcie": "\n"} | METRICS, (5.0, 4), "gpu_metrics:v1.3:pcie_link_speed"),
        ({"pp_dpm_pcie": "0: 2.5GT/s, x1 310Mhz \n"}, (None, None), None),
        ({"device": "0xfff0\n"}, (16.0, 16), "sysfs:current_link_speed"),
        ({"device": "0xfff0\n"} | TABLE, (8.0, 8), "sysfs:pp_dpm_pcie"),
        ({"device": "0x74a1\n"}, (16.0, 16), "sysfs:current_link_speed"),
    ],
)
def test_without_a_bridge_the_driver_tells_the_link(
    tmp_path: Path,
    files: Mapping[str, str | bytes | None],
    link: tuple[float | None, int | None],
    source: str | None,
) -> None:
    plant(tmp_path, {**NAVI, **files})
    sample = sample_of(tmp_path)
    assert (sample.pcie_speed_gts, sample.pcie_width) == link
    assert sample.source.get("pcie_speed_gts") == source


def test_sources_that_disagree_are_named_and_the_first_stays(tmp_path: Path) -> None:
    plant_on_bus(tmp_path, [ROOT_PORT, UP, DOWN], {**NAVI, **TABLE, **METRICS})
    sample = sample_of(tmp_path / "drm")
    assert (sample.pcie_gen, sample.pcie_width) == (3, 2)
    assert sample.errors["pcie_width"] == (
        "sysfs:upstream_port/current_link_width says 2, sysfs:pp_dpm_pcie 8, "
        "gpu_metrics:v1.3:pcie_link_width 4"
    )
    assert sample.errors["pcie_speed_gts"] == (
        "sysfs:upstream_port/current_link_speed says 8, gpu_metrics:v1.3:pcie_link_speed 5"
    )


def test_a_device_that_disagrees_with_the_driver_is_named(tmp_path: Path) -> None:
    plant(tmp_path, {**NAVI, **TABLE})
    assert sample_of(tmp_path).errors["pcie_width"] == (
        "sysfs:pp_dpm_pcie says 8, sysfs:current_link_width, which may be inside the card, 16"
    )


def test_a_port_that_does_not_know_gives_way_to_the_driver(tmp_path: Path) -> None:
    plant_on_bus(tmp_path, [ROOT_PORT, UP, DOWN], {**NAVI, **TABLE})
    (tmp_path / "devices/pci0000:00/0000:00:00.0/0000:01:00.0/current_link_speed").write_text(
        "Unknown\n"
    )
    sample = sample_of(tmp_path / "drm")
    assert (sample.pcie_speed_gts, sample.pcie_width) == (8.0, 2)
    assert sample.source["pcie_speed_gts"] == "sysfs:pp_dpm_pcie"


def test_a_card_without_a_switch_shows_the_slot_itself(tmp_path: Path) -> None:
    # The lanes of a Polaris' table are fixed texts.
    plant(tmp_path, {**POLARIS, "pp_dpm_pcie": "0: 2.5GT/s, x8 *\n1: 8.0GT/s, x16 \n"})
    sample = sample_of(tmp_path)
    assert (sample.pcie_speed_gts, sample.pcie_width) == (8.0, 16)
    assert "pcie_width" not in sample.errors


@pytest.mark.parametrize(
    "files", [{"device": "0x1681\n"}, {"device": "0xfff0\n", "hwmon/hwmon0/in1_label": "vddnb\n"}]
)
def test_an_apu_has_no_slot(tmp_path: Path, files: Mapping[str, str]) -> None:
    plant(tmp_path, {**NAVI, "hwmon/hwmon0/name": "amdgpu\n", **files})
    sample = sample_of(tmp_path)
    assert (sample.is_apu, sample.pcie_gen, sample.pcie_width) == (True, 4, 16)
    assert sample.errors["pcie_width"] == "an APU has no slot; this is a link inside the chip"


@pytest.mark.parametrize(
    ("table", "link"),
    [
        ("0: 2.5GB, x8 \n1: 5.0GB, x16 *\n", (5.0, 16)),
        ("0: 2.5GB, x8 *\r\n1: 5.0GB, x16 \r\n", (2.5, 8)),
        ("0: 2.5gt/s, x1 310mhz \n1: 32.0gt/s, x16 619mhz *\n", (32.0, 16)),
        ("0: 8.0GT/s, x16 *\n1: 8.0GT/s, x16 *\n", (8.0, 16)),
        ("0: 8.0GT/s, x16 310Mhz *\n1: 8.0GT/s, x16 619Mhz *\n", (8.0, 16)),
        ("0: 2.5GT/s, x1 \n1:   619Mhz \n2: 16.0GT/s, x12 619Mhz *\n", (16.0, 12)),
        ("0: 2.5GT/s, x1 *\n1: 8.0GT/s, x16 *\n", (None, None)),
        ("0:  *\n", (None, None)),
        ("0: 5.0GB *\n", (None, None)),
        ("0: 2.5GT/s, x8\n", (None, None)),
    ],
)
def test_every_way_to_write_the_levels_of_a_link(
    tmp_path: Path, table: str, link: tuple[float | None, int | None]
) -> None:
    own = dict.fromkeys(["current_link_speed", "current_link_width"])
    plant(tmp_path, {**POLARIS, **own, "pp_dpm_pcie": table})
    sample = sample_of(tmp_path)
    assert (sample.pcie_speed_gts, sample.pcie_width) == link
