"""The driver's own files in sysfs and hwmon: the first to be asked, on every card and kernel.

Which file has which field, in which unit, follows the kernel's "GPU Power/Thermal Controls and
Monitoring" (Documentation/gpu/amdgpu/thermal.rst) and hwmon's sysfs-interface. A field may have
several files, in the order in which they are believed. No file here is slow: `pcie_bw`, which
sleeps for a second in the kernel, is not among them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from perfkit.gpu.base import Found, Number, PowerKind, check
from perfkit.gpu.files import (
    HeldFile,
    parse_level,
    parse_link_level,
    parse_number,
    parse_speed,
    read_text,
)

Parse: TypeAlias = Callable[[bytes], Number]


class Candidate(NamedTuple):
    """One file that may have a field's value."""

    file: HeldFile
    source: str
    parse: Parse
    kind: PowerKind | None = None


def scaled(name: str, per: int = 1) -> Parse:
    """A parser of a field's number, of which `per` make one of the field's unit."""
    if per == 1:
        return lambda raw: check(name, parse_number(raw))
    return lambda raw: check(name, parse_number(raw) / per)


#: Fields with a file of their own in the device's folder, all in the schema's units.
_PLAIN: Mapping[str, str] = {
    "gpu_busy_pct": "gpu_busy_percent",
    "mem_busy_pct": "mem_busy_percent",
    "vram_used_bytes": "mem_info_vram_used",
    "vram_total_bytes": "mem_info_vram_total",
    "vis_vram_used_bytes": "mem_info_vis_vram_used",
    "vis_vram_total_bytes": "mem_info_vis_vram_total",
    "gtt_used_bytes": "mem_info_gtt_used",
    "gtt_total_bytes": "mem_info_gtt_total",
    "pcie_width": "current_link_width",
}
#: Fields by the label of their sensor: its kind, what follows its number, and how many of the
#: file's unit make the field's: hwmon tells m°C, mV and Hz.
_LABELLED: Mapping[str, tuple[str, str, str, int]] = {
    "temp_edge_c": ("temp", "edge", "input", 1_000),
    "temp_junction_c": ("temp", "junction", "input", 1_000),
    "temp_memory_c": ("temp", "mem", "input", 1_000),
    "temp_edge_crit_c": ("temp", "edge", "crit", 1_000),
    "temp_junction_crit_c": ("temp", "junction", "crit", 1_000),
    "temp_memory_crit_c": ("temp", "mem", "crit", 1_000),
    "voltage_mv": ("in", "vddgfx", "input", 1),
    "sclk_hz": ("freq", "sclk", "input", 1),
    "mclk_hz": ("freq", "mclk", "input", 1),
}
#: What an unlabelled first sensor is, on kernels and drivers that label none.
_FIRST: Mapping[str, str] = {
    "temp_edge_c": "temp1",
    "temp_edge_crit_c": "temp1",
    "voltage_mv": "in0",
    "sclk_hz": "freq1",
}
_SENSORS_MAX = 16
#: Linux before 6.6 has the average, later ones the moment, APUs both; all in µW.
_POWER = (("power1_average", PowerKind.AVERAGE), ("power1_input", PowerKind.INSTANT))
#: What the driver asks the card for, so that a busy or absent card shows here.
SENSORS = frozenset(
    "gpu_busy_pct mem_busy_pct sclk_hz mclk_hz power_w temp_edge_c temp_junction_c temp_memory_c "
    "voltage_mv fan_rpm".split()
)


class SysfsBackend:
    """One card's files below its device folder, found when they are first asked for."""

    def __init__(self, device: Path) -> None:
        self.device = device
        self._candidates: Mapping[str, list[Candidate]] | None = None

    @property
    def candidates(self) -> Mapping[str, list[Candidate]]:
        """By field, the files that may have it, most trusted first."""
        if self._candidates is None:
            self._candidates = _candidates(self.device)
        return self._candidates

    def read(self, wanted: Collection[str], found: Found) -> None:
        """Read the fields wanted; a file that fails passes its field on to the next one."""
        for name in wanted:
            candidates = self.candidates.get(name)
            if candidates:
                _read_field(name, candidates, found)

    def close(self) -> None:
        """Close every file; hwmon's number is found anew afterwards."""
        for candidates in (self._candidates or {}).values():
            for candidate in candidates:
                candidate.file.close()
        self._candidates = None


def _read_field(name: str, candidates: list[Candidate], found: Found) -> None:
    for file, source, parse, kind in candidates:
        try:
            found.put(name, parse(file.read()), source, kind)
            return
        except OSError as error:
            if error.errno != errno.ENOENT:
                found.fail(name, os_error_text(source, error), error.errno)
        except ValueError as error:
            found.fail(name, f"{source}: {error}")
    if name not in found.troubles:
        found.fail(name, f"{candidates[0].source}: no such file", errno.ENOENT)


def os_error_text(source: str, error: OSError) -> str:
    """What the kernel said, with the name that its documentation uses."""
    symbol = errno.errorcode.get(error.errno or 0, "error")
    return f"{source}: {symbol}, {error.strerror or 'no reason given'}"


def hwmon_folder(device: Path) -> Path | None:
    """The card's own hwmon folder: by the name in it, since its number moves."""
    try:
        folders = sorted((device / "hwmon").iterdir())
    except OSError:
        return None
    return next((f for f in folders if read_text(f / "name") in ("amdgpu", "radeon")), None)


def labels(hwmon: Path, kind: str) -> dict[str, str]:
    """Sensor by label, as `{"edge": "temp1"}`; labels without a reading count as well."""
    found: dict[str, str] = {}
    for number in range(_SENSORS_MAX):
        label = read_text(hwmon / f"{kind}{number}_label")
        if label is not None:
            found.setdefault(label.lower(), f"{kind}{number}")
    return found


def _candidates(device: Path) -> dict[str, list[Candidate]]:
    """Every field's files; hwmon's clocks and links come before the tables of levels."""
    found: dict[str, list[Candidate]] = {}
    for name, file in _PLAIN.items():
        found[name] = [_sysfs(device, file, scaled(name))]
    found["pcie_speed_gts"] = [
        _sysfs(device, "current_link_speed", lambda raw: check("pcie_speed_gts", parse_speed(raw)))
    ]
    hwmon = hwmon_folder(device)
    if hwmon is not None:
        for name, candidate in _hwmon(hwmon):
            found.setdefault(name, []).append(candidate)
    for name, file, parse in (
        ("sclk_hz", "pp_dpm_sclk", lambda raw: parse_level(raw) * 1_000_000),
        ("mclk_hz", "pp_dpm_mclk", lambda raw: parse_level(raw) * 1_000_000),
        ("pcie_speed_gts", "pp_dpm_pcie", lambda raw: parse_link_level(raw)[0]),
        ("pcie_width", "pp_dpm_pcie", lambda raw: parse_link_level(raw)[1]),
    ):
        found.setdefault(name, []).append(_sysfs(device, file, parse))
    return found


def _sysfs(device: Path, file: str, parse: Parse) -> Candidate:
    return Candidate(HeldFile(device / file), f"sysfs:{file}", parse)


def _hwmon(hwmon: Path) -> Iterator[tuple[str, Candidate]]:
    sensors = {kind: labels(hwmon, kind) for kind in ("temp", "in", "freq")}
    for name, (kind, label, suffix, per) in _LABELLED.items():
        sensor = sensors[kind].get(label)
        if sensor is None and not sensors[kind]:
            sensor = _FIRST.get(name)
        if sensor is not None:
            yield name, _sensor(hwmon, name, f"{sensor}_{suffix}", per)
    for file, power in _POWER:
        yield "power_w", _sensor(hwmon, "power_w", file, 1_000_000)._replace(kind=power)
    yield "power_cap_w", _sensor(hwmon, "power_cap_w", "power1_cap", 1_000_000)
    yield "fan_rpm", _sensor(hwmon, "fan_rpm", "fan1_input")


def _sensor(hwmon: Path, name: str, file: str, per: int = 1) -> Candidate:
    return Candidate(HeldFile(hwmon / file), f"hwmon:{file}", scaled(name, per))
