"""Cards of public reports whose table or zeros were read wrongly; skipped without the files."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.perfkit.gpu.trees import RECORDINGS, sample_of

#: By folder: fields as they are right, and what the errors say of some.
CASES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "mem_temp_zero": (
        {"temp_memory_c": None, "voltage_mv": None, "temp_edge_c": 51, "temp_junction_c": 48},
        {"temp_memory_c": "temp3_input: 0,", "voltage_mv": "in0_input: 0,"},
    ),
    "mi50_v10": (
        {"power_w": 61.234, "sclk_hz": 900_000_000, "temp_edge_c": 51, "gpu_busy_pct": 37,
         "gpu_busy_avg_pct": None, "throttle_bits": None, "throttle_reasons": None},
        {"gpu_busy_avg_pct": "average_gfx_activity: 0,", "throttle_bits": "throttle_status: 0,"},
    ),
    "mi50_v10_nopower": (
        {"power_w": None, "power_kind": None, "sclk_hz": None, "gpu_busy_avg_pct": None},
        {"power_w": "average_socket_power: 0,", "sclk_hz": "current_gfxclk: 0,"},
    ),
    "vangogh_activity": (
        {"gpu_busy_pct": 97, "gpu_busy_avg_pct": 97, "throttle_bits": 0, "throttle_reasons": ()},
        {},
    ),
    "strix_old_fw": (
        {"gpu_busy_pct": 0, "gpu_busy_avg_pct": 0.79, "throttle_reasons": None},
        {"throttle_bits": "counters of throttled time"},
    ),
    "raven_100": ({"gpu_busy_pct": 100}, {"gpu_busy_pct": "100 % at 200 MHz and 3.0 W"}),
    "mi300_v1_6": (
        {"power_w": 180, "power_kind": "socket", "energy_j": 1e9 / 65_536, "mem_busy_pct": 12,
         "gpu_busy_pct": 37, "gpu_busy_avg_pct": 63, "temp_junction_c": 55, "temp_memory_c": 48,
         "throttle_bits": None},
        {"throttle_bits": "whether or not the card is throttled"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_reported_card_is_read_right(name: str) -> None:
    tree = RECORDINGS / "cases" / name / "drm"
    if not tree.is_dir():
        pytest.skip(f"no cases in {RECORDINGS}")
    expected, reasons = CASES[name]
    sample = sample_of(tree)
    assert {field: getattr(sample, field) for field in expected} == expected
    for field, text in reasons.items():
        assert text in sample.errors[field]
