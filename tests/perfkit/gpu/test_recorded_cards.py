"""What recorded cards say, read by hand from the files of each.

The recordings are not part of the project, the figures below are. None means that no file of the
card has the field, so a value there would be made up.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.perfkit.gpu.trees import RECORDINGS, sample_of

#: By folder and field.
EXPECTED: Mapping[str, Mapping[str, Any]] = {
    "rx580": {
        "pci": "0000:09:00.0", "driver": "amdgpu", "state": "active", "is_apu": False,
        "gpu_busy_pct": 11, "mem_busy_pct": 2,
        "vram_used_bytes": 536870912, "vram_total_bytes": 4294967296,
        "vis_vram_used_bytes": 150302720, "vis_vram_total_bytes": 268435456,
        "gtt_used_bytes": 92377088, "gtt_total_bytes": 8342712320,
        "sclk_hz": 798080000, "mclk_hz": 1750000000,
        "power_w": 41.045, "power_kind": "average", "power_cap_w": 155.0,
        "temp_edge_c": 44.0, "temp_junction_c": None, "temp_memory_c": None,
        "fan_rpm": 595, "voltage_mv": 975, "pcie_gen": 3, "pcie_width": 16,
        "throttle_bits": None, "energy_j": None,
    },
    "vega56": {
        "pci": "0000:0b:00.0", "driver": "amdgpu", "state": "active", "is_apu": False,
        "gpu_busy_pct": 0, "mem_busy_pct": None,
        "vram_used_bytes": 16613376, "vram_total_bytes": 8573157376,
        "vis_vram_used_bytes": 16613376, "vis_vram_total_bytes": 268435456,
        "gtt_used_bytes": 12337152, "gtt_total_bytes": 8342863872,
        "sclk_hz": 26000000, "mclk_hz": 167000000,
        "power_w": 8.0, "power_kind": "average", "power_cap_w": 260.0,
        "temp_edge_c": 38.0, "temp_junction_c": 38.0, "temp_memory_c": 39.0,
        "fan_rpm": 5, "voltage_mv": 762, "pcie_gen": 3, "pcie_width": 16,
        "throttle_bits": None, "energy_j": None,
    },
    "hd7870": {
        "pci": "0000:01:00.0", "driver": "radeon", "state": "active", "is_apu": False,
        "gpu_busy_pct": None, "mem_busy_pct": None,
        "vram_used_bytes": None, "vram_total_bytes": None,
        "vis_vram_used_bytes": None, "vis_vram_total_bytes": None,
        "gtt_used_bytes": None, "gtt_total_bytes": None,
        "sclk_hz": 300000000, "mclk_hz": None,
        "power_w": None, "power_kind": None, "power_cap_w": None,
        "temp_edge_c": 27.0, "temp_junction_c": None, "temp_memory_c": None,
        "fan_rpm": None, "voltage_mv": None, "pcie_gen": 3, "pcie_width": 1,
        "throttle_bits": None, "energy_j": None,
    },
    "r9-280": {
        "pci": "0000:01:00.0", "driver": "amdgpu", "state": "active", "is_apu": False,
        "gpu_busy_pct": None, "mem_busy_pct": None,
        "vram_used_bytes": None, "vram_total_bytes": None,
        "vis_vram_used_bytes": None, "vis_vram_total_bytes": None,
        "gtt_used_bytes": None, "gtt_total_bytes": None,
        "sclk_hz": 300000000, "mclk_hz": 150000000,
        "power_w": None, "power_kind": None, "power_cap_w": None,
        "temp_edge_c": 37.0, "temp_junction_c": None, "temp_memory_c": None,
        "fan_rpm": None, "voltage_mv": None, "pcie_gen": 2, "pcie_width": 8,
        "throttle_bits": None, "energy_j": None,
    },
    "rx6900xt": {
        "pci": "0000:0c:00.0", "driver": "amdgpu", "state": "active", "is_apu": False,
        "gpu_busy_pct": 3, "gpu_busy_avg_pct": 3, "mem_busy_pct": 0,
        "vram_used_bytes": 668274688, "vram_total_bytes": 17163091968,
        "vis_vram_used_bytes": 668274688, "vis_vram_total_bytes": 17163091968,
        "gtt_used_bytes": 62369792, "gtt_total_bytes": 16786171904,
        "sclk_hz": 500000000, "mclk_hz": 1000000000,
        "power_w": 36.0, "power_kind": "average", "power_cap_w": 289.0,
        "temp_edge_c": 56.0, "temp_junction_c": 59.0, "temp_memory_c": 54.0,
        "fan_rpm": 0, "voltage_mv": 775, "pcie_gen": 4, "pcie_width": 16,
        "throttle_bits": 0, "energy_j": None,
    },
    "phoenix": {
        "pci": "0000:64:00.0", "driver": "amdgpu", "state": "active", "is_apu": True,
        "gpu_busy_pct": 0, "gpu_busy_avg_pct": 0.79, "mem_busy_pct": None,
        "vram_used_bytes": 1272893440, "vram_total_bytes": 4294967296,
        "vis_vram_used_bytes": 1272893440, "vis_vram_total_bytes": 4294967296,
        "gtt_used_bytes": 211398656, "gtt_total_bytes": 31433977856,
        "sclk_hz": 800000000, "mclk_hz": 400000000,
        "power_w": 3.103, "power_kind": "average", "power_cap_w": None,
        "temp_edge_c": 25.0, "temp_junction_c": None, "temp_memory_c": None,
        "fan_rpm": None, "voltage_mv": 814, "pcie_gen": 4, "pcie_width": 16,
        "throttle_bits": 0, "energy_j": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_card_is_sampled_as_its_files_were_read_by_hand(name: str) -> None:
    tree = RECORDINGS / "sysfs" / name
    if not tree.is_dir():
        pytest.skip(f"no recorded cards in {RECORDINGS}")
    sample = sample_of(tree)
    assert {field: getattr(sample, field) for field in EXPECTED[name]} == EXPECTED[name]
