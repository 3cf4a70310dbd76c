"""Made-up cards, tables of `gpu_metrics`, and a kernel that refuses to answer."""

import errno
import os
import struct
from pathlib import Path

import pytest

from perfkit.gpu.card import Card, Cards
from perfkit.gpu.device.schema import GpuSample

#: Where recordings of real cards and tools are; tests skip without them.
RECORDINGS = Path(
    os.environ.get("PERFKIT_GPU_RECORDINGS", Path(__file__).parents[4] / "shared/gpu")
)
SENSOR_FILES = ("gpu_busy_percent", "mem_busy_percent", "freq", "power1", "temp", "in0", "fan1")


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


def table_of(revision: tuple[int, int], size: int, members: list[tuple[int, str, int]]) -> bytes:
    """A table of a revision, all ones but for members given by offset and code of `struct`."""
    data = bytearray(b"\xff" * size)
    struct.pack_into("<HBB", data, 0, size, *revision)
    for offset, code, value in members:
        struct.pack_into(f"<{code}", data, offset, value)
    return bytes(data)


def table_v1_9(
    *attributes: tuple[int, int, int, str, list[int]], count: int | None = None
) -> bytes:
    """A table of attributes by unit, type, id, code of the type, and values."""
    body = b""
    for unit, kind, attribute, code, values in attributes:
        encoding = unit << 24 | kind << 20 | attribute << 10 | len(values)
        body += struct.pack(f"<Q{len(values)}{code}", encoding, *values)
    count = len(attributes) if count is None else count
    return struct.pack("<HBBi", 8 + len(body), 1, 9, count) + body
