"""Writes what is right of the recordings, so that `perfkit bench gpu --recorded` can compare:

    python -m tests.perfkit.gpu.right FOLDER && perfkit bench gpu --recorded FOLDER

The folder has a link to each recording's tree or files, and a `right.json` beside it. What is right
was read from the files by hand; it stands in the tests, and here where no test has it as data.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.perfkit.gpu.test_recorded_cards import EXPECTED
from tests.perfkit.gpu.trees import RECORDINGS

Right = Mapping[str, Any]


def card(pci: str, **fields: Any) -> Right:
    """What is right of one card."""
    return {"gpu": {f"0000:{pci}": fields}}


def file(name: str, *kernels: Right, **parts: Any) -> Right:
    """What is right of one profile: of each of its kernels, or of other parts."""
    return {"kernels": {name: {"kernels": list(kernels), **parts}}}


AWAKE = {"state": "active", "gpu_busy_pct": 37}
ASLEEP = {"state": "suspended", "gpu_busy_pct": None, "power_w": None, "temp_edge_c": None}
COUNTED = {"fetched_bytes": 32 * 10 + 64 * 20 + 128 * 1_000}
#: What is right of the cases, as CASES.md says, where it is a figure of a card or of a profile.
CASES: Mapping[str, Right] = {
    "rpc_long_multigpu": file(
        "pmc_perf.csv",
        {"duration_ns": 2_000, "counters": {"SQ_WAVES": 64}},
        {"duration_ns": 2_200, "counters": {"SQ_WAVES": 64}},
    ),
    "rocpd_two_nodes": file(
        "counter_collection.csv", {"duration_ns": 2_000}, {"duration_ns": 8_000}
    ),
    "rpc_half_ns": file("pmc_perf.csv", {"duration_ns": 21_762}, {}),
    "v2_rocm60_columns": file(
        "results_7.csv",
        {"grid": [4096], "workgroup": [64], "counters": {}, "duration_ns": 2_000},
    ),
    "v2_hsa_ops_csv": file("async_copy_trace.csv", transfers=[{"duration_ns": 3_000}]),
    "v2_plugin_v1_short": file("results_0.csv", *[{"duration_ns": 50}] * 3),
    "v2_plugin_v1_short_one": file("results_0.csv", {"duration_ns": 50}),
    "name_160k": file("kernel_trace.csv", {"name": "k(int)", "duration_ns": 100}, {}),
    "gfx12_fetch": file("counter_collection.csv", COUNTED),
    "gfx11_fetch": file("counter_collection.csv", COUNTED),
    "latin1": file("kernel_trace.csv", {"duration_ns": 20}),
    "json_badbyte": file("results.json", {"name": "good", "duration_ns": 2_000}),
    "torch_trace": file(
        "trace.json", {"grid": [16, 1, 1], "workgroup": [256, 1, 1], "device": "2", "counters": {}}
    ),
    "rocpd": file("results.db"),
    "mem_temp_zero": card("04:00.0", **AWAKE, temp_memory_c=None, voltage_mv=None),
    "mi50_v10": card("0a:00.0", **AWAKE, power_w=61.234),
    "mi50_v10_nopower": card("0a:00.0", **AWAKE, power_w=None),
    "dpm_offtable": card("04:00.0", **AWAKE, mclk_hz=333_000_000),
    "vangogh_activity": card("04:00.0", gpu_busy_pct=97, gpu_busy_avg_pct=97),
    "raven_100": card("06:00.0", state="active", sclk_hz=200_000_000, power_w=3.0),
    "d3cold_unsupported": card("03:00.0", **ASLEEP),
    "suspended": card("03:00.0", **ASLEEP),
    "strix_halo": card("c5:00.0", **AWAKE, is_apu=True, gtt_total_bytes=115_964_116_992),
    "igpu_dgpu": {
        "gpu": {
            "0000:03:00.0": {"gpu_busy_pct": 100, "vram_used_bytes": 24_696_061_952},
            "0000:7a:00.0": {"gpu_busy_pct": 0, "is_apu": True},
        }
    },
    "apu_hot": card("c4:00.0", **AWAKE, temp_edge_c=96.0, temp_edge_crit_c=None),
    "no_hwmon": card("03:00.0", **AWAKE, temp_edge_c=None, power_w=None),
    "nonutf8": card("03:00.0", **AWAKE),
    "pcie_gb": card("03:00.0", **AWAKE, pcie_speed_gts=8.0, pcie_width=16),
    "xcp": card("05:00.0", **AWAKE, compute_partition="DPX", memory_partition="NPS1"),
    "mi300_v1_6": card("05:00.0", **AWAKE),
}


def by_recording() -> Mapping[str, Right]:
    """The content of `right.json` by the recording's folder below RECORDINGS."""
    cards = {
        f"sysfs/{name}": {"gpu": {fields["pci"]: dict(fields)}} for name, fields in EXPECTED.items()
    }
    return cards | {f"cases/{name}": right for name, right in CASES.items()}


def write(folder: Path) -> int:
    """Write a folder for each recording that is there; returns how many."""
    written = 0
    for name, right in by_recording().items():
        source = RECORDINGS / name
        if not source.is_dir():
            continue
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        links = {name: source / name for name in right.get("kernels", ())}
        if "gpu" in right:
            links["drm"] = source / "drm" if (source / "drm").is_dir() else source
        for link, target in links.items():
            (place / link).unlink(missing_ok=True)
            (place / link).symlink_to(target.resolve())
        (place / "right.json").write_text(json.dumps(right, indent=1))
        written += 1
    return written


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1]))} recordings")
