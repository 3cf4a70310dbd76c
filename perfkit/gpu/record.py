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
#: Files recorded from a card may be padded with NULs to a page.
PADDING = b"\0 \t\r\n"
#: Begins the name of a file in the card's hwmon folder, whose number changes from boot to boot.
HWMON = "hwmon/"

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
            file = self._held[name] = HeldFile(path)
        return file

    @cached_property
    def labels(self) -> Mapping[str, Mapping[str, str]] | None:
        """Sensors by kind and label, as `{"temp": {"edge": "temp1"}}`; None without hwmon."""
        if self._hwmon is None:
            return None
        found: dict[str, dict[str, str]] = {"temp": {}, "in": {}, "freq": {}}
        # The shorter name first: temp2 comes before temp10.
        for file in sorted(os.listdir(self._hwmon), key=lambda name: (len(name), name)):
            match = _LABEL.fullmatch(file)
            if match and (label := read_text(self._hwmon / file)) is not None:
                found[match[2]].setdefault(label.lower(), match[1])
        return found

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
        self._files = files
        #: A file's content, or errno and text: a kept error would keep its frames and open files.
        self._contents: dict[str, bytes | tuple[int | None, str | None]] = {}

    def __getitem__(self, name: str) -> bytes:
        """A file's content; raises OSError if it could not be read."""
        if name not in self._contents:
            try:
                self._contents[name] = self._files.held(name).read()
            except OSError as error:
                self._contents[name] = error.errno, error.strerror
        content = self._contents[name]
        if isinstance(content, tuple):
            raise OSError(*content)
        return content

    @property
    def labels(self) -> Mapping[str, Mapping[str, str]] | None:
        """Sensors by kind and label, as `{"temp": {"edge": "temp1"}}`; None without hwmon."""
        return self._files.labels

    def text(self, name: str) -> str | None:
        """A file's text without padding; None if it can't be read or is empty."""
        try:
            return _text(self[name])
        except OSError:
            return None


def read_text(path: Path) -> str | None:
    """A small file's text without padding; None if it can't be read or is empty."""
    try:
        return _text(HeldFile(path).read())
    except OSError:
        return None


def _text(content: bytes) -> str | None:
    return content.rstrip(PADDING).decode("utf-8", "replace").strip() or None
