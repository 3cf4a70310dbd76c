"""Cards that were read wrongly: small trees made after public reports, each with what is right."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from typer.testing import CliRunner

from perfkit.cli import app
from perfkit.gpu.card import Cards
from perfkit.gpu.device.schema import SAMPLED_FIELDS
from tests.perfkit.gpu.trees import RECORDINGS

CASES = RECORDINGS / "cases"
#: By case and field what is right, and a part of the reason where None is.
RIGHT: Mapping[str, Mapping[str, Any]] = {
    "dpm_offtable": {
        "mclk_hz": 333_000_000, "sclk_hz": 900_000_000, "family": "navi2", "is_apu": True,
    },
    "d3cold_unsupported": {
        "state": "suspended", "vram_total_bytes": 8 << 30, "temp_edge_c": "not woken",
        "gpu_busy_pct": "not woken", "vram_used_bytes": "not woken", "family": "navi2",
    },
    "suspended": {
        "state": "suspended", "vram_total_bytes": 8 << 30, "power_w": "not woken",
        "family": "navi2",
    },
    "no_hwmon": {
        "state": "active", "gpu_busy_pct": 37, "sclk_hz": 900_000_000,
        "power_w": "hwmon: the card has no such folder",
        "temp_edge_c": "hwmon: the card has no such folder",
        "fan_rpm": "hwmon: the card has no such folder",
        "throttle_bits": "no source", "ras_corrected_n": "sysfs:ras",
    },
    "nonutf8": {"name": "RX\ufffd\ufffd580\\u001b[31m", "gpu_busy_pct": 37},
    "pcie_gb": {"pcie_speed_gts": 8.0, "pcie_gen": 3, "pcie_width": 16},
    "xcp": {
        "card": "card1", "compute_partition": "DPX", "memory_partition": "NPS1", "family": "cdna",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_a_card_of_the_cases_is_read_right(case: str) -> None:
    root = CASES / case / "drm"
    if not root.is_dir():
        pytest.skip(f"no cases in {CASES}")
    answer = CliRunner().invoke(app, ["gpu", "--drm-root", str(root), "--json", "-"])
    assert answer.exit_code == 0, answer.output
    (sample,) = json.loads(answer.stdout)
    for field, right in RIGHT[case].items():
        if sample[field] is None:
            assert right in sample["errors"][field], field
        else:
            assert sample[field] == right, field


def test_the_partitions_of_the_case_are_told_as_such() -> None:
    root = CASES / "xcp" / "drm"
    if not root.is_dir():
        pytest.skip(f"no cases in {CASES}")
    assert {name: why for name, why in Cards(root).skipped.items() if name.startswith("card")} == {
        "card2": "a partition of card1",
        "card3": "a partition of card1",
    }


@pytest.mark.parametrize(
    "root", sorted(CASES.glob("*/drm")), ids=lambda root: str(root.parent.name)
)
def test_every_case_with_cards_is_shown(root: Any) -> None:
    answer = CliRunner().invoke(app, ["gpu", "--drm-root", str(root)])
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.replace("\n", "").isprintable()
    cards = Cards(root)
    assert len(cards) > 0
    for sample in cards.sample():
        told = sample.to_dict()
        assert [n for n in SAMPLED_FIELDS if told[n] is None and n not in sample.errors] == []
