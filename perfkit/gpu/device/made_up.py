"""A made-up card: a small tree of files such as the driver would show, for machines without one.

Its figures were never measured. It stands in where a page or a measurement needs some card.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cluster.scratch import ScratchFolder

#: A Polaris on Linux 6.6 and later, which tells the moment's power instead of the average.
POLARIS: Mapping[str, str] = {
    "vendor": "0x1002\n",
    "device": "0x67df\n",
    "uevent": "DRIVER=amdgpu\nPCI_ID=1002:67DF\nPCI_SLOT_NAME=0000:0A:00.0\n",
    "power/runtime_status": "active\n",
    "gpu_busy_percent": "37\n",
    "mem_busy_percent": "12\n",
    "mem_info_vram_used": "1073741824\n",
    "mem_info_vram_total": "8589934592\n",
    "mem_info_vis_vram_used": "1048576\n",
    "mem_info_vis_vram_total": "268435456\n",
    "mem_info_gtt_used": "20971520\n",
    "mem_info_gtt_total": "8342712320\n",
    "pp_dpm_sclk": "0: 300Mhz \n1: 608Mhz *\n2: 1340Mhz \n",
    "pp_dpm_mclk": "0: 300Mhz \n1: 2000Mhz *\n",
    "pp_dpm_pcie": "0: 2.5GT/s, x8 \n1: 8.0GT/s, x16 *\n",
    "current_link_speed": "8.0 GT/s PCIe\n",
    "current_link_width": "16\n",
    "hwmon/hwmon2/name": "amdgpu\n",
    "hwmon/hwmon2/power1_input": "83021000\n",
    "hwmon/hwmon2/power1_cap": "145000000\n",
    "hwmon/hwmon2/temp1_input": "61000\n",
    "hwmon/hwmon2/temp1_label": "edge\n",
    "hwmon/hwmon2/temp1_crit": "94000\n",
    "hwmon/hwmon2/in0_input": "900\n",
    "hwmon/hwmon2/in0_label": "vddgfx\n",
    "hwmon/hwmon2/freq1_input": "611000000\n",
    "hwmon/hwmon2/freq1_label": "sclk\n",
    "hwmon/hwmon2/freq2_input": "2000000000\n",
    "hwmon/hwmon2/freq2_label": "mclk\n",
    "hwmon/hwmon2/fan1_input": "1210\n",
}


def plant(
    root: Path, files: Mapping[str, str | bytes | None] = POLARIS, card: str = "card0"
) -> Path:
    """Write a card's files below `root`, and return its device folder; None removes a file."""
    device = root / card / "device"
    for name, content in files.items():
        path = device / name
        path.unlink(missing_ok=True)
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return device


@contextmanager
def made_up_card() -> Iterator[Path]:
    """A temporary folder that stands in for /sys/class/drm, with one card."""
    with ScratchFolder("gpu-card-") as folder:
        plant(Path(folder))
        yield Path(folder)
