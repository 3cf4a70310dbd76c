"""What a card's files may hold: levels, error counts, partitions, energy, names."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from perfkit.gpu.card import Cards
from perfkit.gpu.device.discovery import discover
from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.gpu.device.schema import SAMPLED_FIELDS
from perfkit.gpu.sources.sysfs import parse_level
from tests.perfkit.gpu.trees import sample_of


@pytest.mark.parametrize(
    ("levels", "mhz"),
    [
        # A clock between levels, as on Renoir and Van Gogh.
        (b"0: 400Mhz \n1: 600Mhz \n   333Mhz *\n", 333),
        (b"0: 400Mhz \r\n1: 600Mhz *\r\n", 600),
        (b"0: 400MHz \n1: 600MHz *\n", 600),
        (b"0: 400mhz \n1: 600MHZ*\n", 600),
        (b"S: 132Mhz *\n0: 500Mhz \n", 132),
        (b"0: 0Mhz *\n1: 0Mhz *\n", 0),
        (b"0: 96Mhz *\n1: 96Mhz *\n2: 456Mhz \n", 96),
        # Only the marked line is a figure; another one may have none.
        (b"0: 300Mhz \n1: \n2: 608Mhz *\n", 608),
        (b"0: 300Mhz \n1: 608Mhz * (boost)\n", 608),
        (b"0: 300Mhz 608Mhz *\n", None),
        (b"0: 300Mhz \n1: 608Mhz * 900Mhz\n", None),
        (b"0: 300 *\n", None),
        (b"0: 300Mhz *\n   333Mhz *\n", None),
        (b"0: 300Mhz \n1: 60", None),
    ],
)
def test_the_marked_level_is_the_clock(levels: bytes, mhz: int | None) -> None:
    if mhz is None:
        with pytest.raises(ValueError, match="level"):
            parse_level(levels)
    else:
        assert parse_level(levels) == (mhz,)


@pytest.mark.parametrize(
    ("files", "corrected", "uncorrected"),
    [
        ({"umc_err_count": "ue: 1\nce: 20\n", "gfx_err_count": "ue: 2\nce: 3\n"}, 23, 3),
        ({"umc_err_count": "ue: 0\nce: 0\n"}, 0, 0),
        ({"umc_err_count": "ue: 0\r\nce: 7\r\n", "features": "feature mask: 0x1\n"}, 7, 0),
        ({"aca_umc": "ue: 1\nce: 2\nde: 9\n", "version": "ras version: 1\n"}, 2, 1),
        ({"umc_err_count": "Query currently inaccessible\n"}, None, None),
        ({"umc_err_count": "ue: 1\nce: 1\n", "gfx_err_count": "ue: 1\n"}, None, None),
        ({"umc_err_count": "ue: 1\nce: -1\n"}, None, None),
        ({"umc_err_count": ""}, None, None),
        ({"features": "feature mask: 0x1\n"}, None, None),
    ],
)
def test_the_errors_of_all_parts_are_summed(
    tmp_path: Path, files: Mapping[str, str], corrected: int | None, uncorrected: int | None
) -> None:
    plant(tmp_path, {**POLARIS, **{f"ras/{name}": text for name, text in files.items()}})
    sample = sample_of(tmp_path)
    assert (sample.ras_corrected_n, sample.ras_uncorrected_n) == (corrected, uncorrected)
    assert ("ras_corrected_n" in sample.errors) == (corrected is None)
    assert ("sysfs:ras" in sample.source.values()) == (corrected is not None)


def test_a_counter_of_energy_is_in_joules(tmp_path: Path) -> None:
    plant(tmp_path, {**POLARIS, "hwmon/hwmon2/energy1_input": "1234567890\n"})
    sample = sample_of(tmp_path)
    assert (sample.energy_j, sample.source["energy_j"]) == (1234.56789, "hwmon:energy1_input")


@pytest.mark.parametrize(
    ("files", "modes"),
    [
        ({"current_compute_partition": "CPX\n", "current_memory_partition": "NPS4\n"},
         ("CPX", "NPS4")),
        ({"current_compute_partition": "SPX\n"}, ("SPX", None)),
        ({"current_compute_partition": "UNKNOWN\n"}, (None, None)),
        ({}, (None, None)),
    ],
)  # fmt: skip
def test_a_divided_card_tells_how(
    tmp_path: Path, files: Mapping[str, str], modes: tuple[str | None, str | None]
) -> None:
    plant(tmp_path, {**POLARIS, **files})
    sample = sample_of(tmp_path)
    assert (sample.compute_partition, sample.memory_partition) == modes


@pytest.mark.parametrize(
    ("modes", "owner"),
    [
        ({"card1": "DPX"}, "card1"),
        ({"card1": "SPX", "card9": "CPX"}, "card9"),
        ({"card1": "CPX", "card9": "CPX"}, "card1 or card9"),
        ({"card1": "SPX"}, "card1"),
        ({}, "a card"),
    ],
)
def test_an_entry_on_the_platform_bus_is_a_partition(
    tmp_path: Path, modes: Mapping[str, str], owner: str
) -> None:
    for number, (card, mode) in enumerate(modes.items()):
        event = f"PCI_ID=1002:74A1\nPCI_SLOT_NAME=0000:{number:02x}:00.0\n"
        files = {"uevent": event, "current_compute_partition": f"{mode}\n"}
        plant(tmp_path / "drm", files, card=card)
    for card, place in (("card4", "amdgpu_xcp.0"), ("card5", "amdgpu_xcp_1")):
        partition = tmp_path / "devices" / "platform" / place
        partition.mkdir(parents=True)
        (partition / "uevent").write_text("MODALIAS=platform:amdgpu_xcp\n")
        (tmp_path / "drm" / card).mkdir(parents=True)
    (tmp_path / "drm" / "card4" / "device").symlink_to("../../devices/platform/amdgpu_xcp.0")
    # As an archive without links has it.
    (tmp_path / "drm" / "card5" / "device").write_text("../../devices/platform/amdgpu_xcp_1")
    found = discover(tmp_path / "drm")
    assert [info.card for info in found.cards] == [*modes]
    assert found.skipped == dict.fromkeys(("card4", "card5"), f"a partition of {owner}")


def test_a_name_can_not_steer_a_terminal(tmp_path: Path) -> None:
    name = "RX\xff 580\x1b[31m\r\n\x07\u202eX\n".encode("latin-1", "replace")
    plant(tmp_path, {**POLARIS, "product_name": name + "\u202e\u009b".encode()})
    (card,) = Cards(tmp_path)
    assert card.info.name is not None
    assert card.info.name.isprintable()
    assert card.info.name.startswith("RX\ufffd 580\\u001b[31m")


@pytest.mark.parametrize("drop", ["hwmon", "power", "pp_dpm", "mem_info", ""])
def test_each_unknown_field_has_a_reason(tmp_path: Path, drop: str) -> None:
    kept = {name: text for name, text in POLARIS.items() if drop and not name.startswith(drop)}
    plant(tmp_path, {"vendor": "0x1002\n", **kept})
    sample = sample_of(tmp_path)
    unknown = {name for name in SAMPLED_FIELDS if getattr(sample, name) is None}
    assert unknown
    assert unknown <= set(sample.errors)
    assert all(sample.errors[name] for name in unknown)


def test_a_chip_that_is_not_in_the_table_is_a_card_like_others(tmp_path: Path) -> None:
    event = "DRIVER=amdgpu\nPCI_ID=1002:FFF0\nPCI_SLOT_NAME=0000:0A:00.0\n"
    plant(tmp_path, {**POLARIS, "device": "0xfff0\n", "uevent": event})
    sample = sample_of(tmp_path)
    assert (sample.family, sample.name) == (None, "AMD card [1002:fff0]")
    assert (sample.gpu_busy_pct, sample.vram_total_bytes, sample.pcie_width) == (37, 8 << 30, 16)
