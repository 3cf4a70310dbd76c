"""A device's files in sysfs, read once into a record that every source parses.

Opening a file costs several times what reading it does, so a descriptor stays open and is read at
offset 0 again and again: the kernel writes the text afresh each time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

#: No file of sysfs gives more.
PAGE_BYTES = 4096
#: A file with one number or word gives less; reading a page takes a tenth longer.
WORD_BYTES = 64
#: Files recorded from a card may be padded with NULs to a page.
PADDING = b"\0 \t\r\n"
#: Begins the name of a file in the card's hwmon folder, whose number changes from boot to boot.
HWMON = "hwmon/"
#: Begins the name of a file of the port that joins a card's own PCIe switch to its slot.
PORT = "upstream_port/"
#: A device's address on PCI buses.
PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")

#: Ends the names of files with the error counts of one part of the chip; newer drivers begin them.
_RAS_ENDS, _RAS_BEGINS = "_err_count", "aca_"
_ROOT_BUS = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")
#: Vendor and device of the bridges within a card (pci.ids): Navi's and later ones, and Vega 10's.
_SWITCHES = frozenset({(0x1002, 0x1478), (0x1002, 0x1479), (0x1022, 0x1470), (0x1022, 0x1471)})
_LABEL = re.compile(r"((temp|in|freq)\d{1,2})_label", re.ASCII)


class HeldFile:
    """A file that is opened by its first read and stays open until `close`.

    It closes when dropped too: a process that makes many cards would run out of descriptors.
    """

    __slots__ = ("fd", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1

    def read(self, limit: int = PAGE_BYTES) -> bytes:
        """Its first `limit` bytes as they are now; raises OSError, and reopens after one."""
        try:
            if self.fd < 0:
                # Without O_NONBLOCK a pipe in its place would wait for a writer.
                self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            return os.pread(self.fd, limit, 0)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the descriptor if there is one."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    __del__ = close


class DeviceFiles:
    """The files of one device, held open from record to record."""

    def __init__(self, device: Path) -> None:
        self.device = device
        self._held: dict[str, HeldFile] = {}

    def read(self) -> DeviceRecord:
        """A new record of the device."""
        return DeviceRecord(self)

    def held(self, name: str) -> HeldFile:
        """The file of a name, which need not exist."""
        file = self._held.get(name)
        if file is None:
            path = self.device / name
            if name.startswith(HWMON) and self._hwmon is not None:
                path = self._hwmon / name.removeprefix(HWMON)
            elif name.startswith(PORT) and self.port is not None:
                path = self.port / name.removeprefix(PORT)
            file = self._held[name] = HeldFile(path)
        return file

    @cached_property
    def labels(self) -> Mapping[str, Mapping[str, str]] | None:
        """Sensors by kind and label, as `{"temp": {"edge": "temp1"}}`; None without hwmon."""
        if self._hwmon is None:
            return None
        found: dict[str, dict[str, str]] = {"temp": {}, "in": {}, "freq": {}}
        # The shorter name first: temp2 comes before temp10.
        for file in sorted(_names(self._hwmon), key=lambda name: (len(name), name)):
            match = _LABEL.fullmatch(file)
            if match and (label := read_text(self._hwmon / file)) is not None:
                found[match[2]].setdefault(label.lower(), match[1])
        return found

    @cached_property
    def port(self) -> Path | None:
        """The upstream port of the card's own PCIe switch; None if the bus shows none."""
        return upstream_port(self.device)

    @cached_property
    def ras(self) -> tuple[str, ...]:
        """The files with the error counts of the chip's parts, in order of their names."""
        names = [f"ras/{name}" for name in sorted(_names(self.device / "ras"))]
        counts = tuple(name for name in names if name.endswith(_RAS_ENDS))
        return counts or tuple(name for name in names if name.startswith(f"ras/{_RAS_BEGINS}"))

    @cached_property
    def _hwmon(self) -> Path | None:
        """The card's hwmon folder, told from others by the name in it."""
        try:
            folders = sorted((self.device / "hwmon").iterdir())
        except OSError:
            return None
        return next((f for f in folders if read_text(f / "name") in ("amdgpu", "radeon")), None)

    def close(self) -> None:
        """Close every file."""
        for file in self._held.values():
            file.close()


class DeviceRecord:
    """A device's files at one moment, by their names below its folder.

    A file is read once, when a parser first asks for it: asking a sensor costs the card time.
    """

    def __init__(self, files: DeviceFiles) -> None:
        self.files = files
        #: A file's content, or errno and text: a kept error would keep its frames and open files.
        self._contents: dict[str, bytes | tuple[int | None, str | None]] = {}

    def __getitem__(self, name: str) -> bytes:
        """A file's content; raises OSError if it could not be read."""
        if name not in self._contents:
            try:
                self._contents[name] = self.files.held(name).read()
            except OSError as error:
                self._contents[name] = error.errno, error.strerror
        content = self._contents[name]
        if isinstance(content, tuple):
            raise OSError(*content)
        return content

    @property
    def labels(self) -> Mapping[str, Mapping[str, str]] | None:
        """Sensors by kind and label, as `{"temp": {"edge": "temp1"}}`; None without hwmon."""
        return self.files.labels

    def text(self, name: str) -> str | None:
        """A file's text without padding; None if it can't be read or is empty."""
        try:
            return _text(self[name])
        except OSError:
            return None


def upstream_port(device: Path) -> Path | None:
    """The port that joins a card's own switch to its slot: the last of the bridges on the card.

    The driver takes every bridge of vendor 1002 for a part of the card (amdgpu_device.c,
    `amdgpu_device_partner_bandwidth`). Here those on the root bus are not: AMD's chipsets of old,
    such as RD890, have ports of that vendor.
    """
    port = None
    bridge = Path(os.path.realpath(device)).parent
    while PCI.fullmatch(bridge.name) and _is_switch(bridge):
        port, bridge = bridge, bridge.parent
    return port


def _is_switch(bridge: Path) -> bool:
    try:
        vendor, device = (int(read_text(bridge / n) or "", 16) for n in ("vendor", "device"))
    except ValueError:
        return False
    on_root_bus = _ROOT_BUS.fullmatch(bridge.parent.name) is not None
    return (vendor, device) in _SWITCHES or (vendor == 0x1002 and not on_root_bus)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def read_text(path: Path) -> str | None:
    """A small file's text without padding; None if it can't be read or is empty."""
    try:
        return _text(HeldFile(path).read())
    except OSError:
        return None


def _text(content: bytes) -> str | None:
    return content.rstrip(PADDING).decode("utf-8", "replace").strip() or None
