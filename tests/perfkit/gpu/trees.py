"""Made-up cards: small trees of files as the driver would show them, and a kernel that refuses."""

import errno
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from perfkit.gpu.base import GpuSample
from perfkit.gpu.card import Card, Cards

#: A Polaris on Linux 6.6 and later: the moment's power instead of the average.
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
SENSOR_FILES = ("gpu_busy_percent", "mem_busy_percent", "freq", "power1", "temp", "in0", "fan1")


def plant(
    root: Path, files: Mapping[str, str | bytes | None] = POLARIS, card: str = "card0"
) -> Path:
    """Write a card's files below `root`, and return its device folder; None takes a file away."""
    device = root / card / "device"
    for name, content in files.items():
        path = device / name
        path.unlink(missing_ok=True)
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return device


def sample_of(root: Path) -> GpuSample:
    """The one card below `root`, sampled once."""
    (sample,) = Cards(root).sample()
    return sample


def card_of(root: Path) -> Card:
    (card,) = Cards(root)
    return card


class Kernel:
    """What reading a file gives instead of its content: an errno, by the end of its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says: dict[str, int] = {}
        #: names of the files that were read, in order
        self.read: list[str] = []
        pread = os.pread

        def refuse(descriptor: int, count: int, offset: int) -> bytes:
            name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
            self.read.append(name)
            for start, code in self.says.items():
                if name.startswith(start):
                    raise OSError(code, os.strerror(code))
            return pread(descriptor, count, offset)

        monkeypatch.setattr(os, "pread", refuse)

    def refuse_sensors(self, code: int = errno.EBUSY) -> None:
        self.says = dict.fromkeys(SENSOR_FILES, code)


def table_v1_3(**members: int) -> bytes:
    """A `gpu_metrics` table of revision 1.3, all ones but for `members`."""
    offsets = {
        "temperature_edge": (4, "H"),
        "temperature_hotspot": (6, "H"),
        "temperature_mem": (8, "H"),
        "average_gfx_activity": (16, "H"),
        "average_umc_activity": (18, "H"),
        "average_socket_power": (22, "H"),
        "energy_accumulator": (24, "Q"),
        "current_gfxclk": (54, "H"),
        "current_uclk": (58, "H"),
        "throttle_status": (68, "I"),
        "current_fan_speed": (72, "H"),
        "pcie_link_width": (74, "H"),
        "pcie_link_speed": (76, "H"),
        "voltage_gfx": (106, "H"),
        "indep_throttle_status": (112, "Q"),
    }
    data = bytearray(b"\xff" * 120)
    data[:4] = struct.pack("<HBB", 120, 1, 3)
    for name, value in members.items():
        offset, code = offsets[name]
        struct.pack_into(f"<{code}", data, offset, value)
    return bytes(data)
