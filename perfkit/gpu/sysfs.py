"""The driver's own files in sysfs and hwmon, the first source of every card and kernel.

Which file has which field, in which unit, follows the kernel's "GPU Power/Thermal Controls and
Monitoring" (Documentation/gpu/amdgpu/thermal.rst) and hwmon's sysfs-interface. A field may have
several files, the most trusted first. No file here is slow: `pcie_bw`, which sleeps for a second in
the kernel, is not among them.

The parsers of texts raise ValueError in words and refuse all that is not exactly the format,
because half a number is a wrong number.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from perfkit.gpu.record import HWMON, PADDING, DeviceRecord
from perfkit.gpu.schema import Found, Number, PowerKind, check

Parse: TypeAlias = Callable[[bytes], Number]

_LEVEL = re.compile(rb"\s*(?:\d{1,3}|S)\s*:\s*(\d{1,7})\s*M[Hh]z\s*(\*?)\s*")
_LINK_LEVEL = re.compile(
    rb"\s*\d{1,3}\s*:\s*(\d{1,3}(?:\.\d+)?)\s*GT/s,?\s*x(\d{1,2})(?:\s+\d+\s*M[Hh]z)?\s*(\*?)\s*"
)
_SPEED = re.compile(rb"(\d{1,3}(?:\.\d+)?) GT/s(?: PCIe)?")


class Candidate(NamedTuple):
    """One file that may have a field's value; `file` is its name in a record."""

    file: str
    parse: Parse
    kind: PowerKind | None = None

    @property
    def source(self) -> str:
        """How `GpuSample.source` names the file."""
        inside = self.file.startswith(HWMON)
        return f"hwmon:{self.file.removeprefix(HWMON)}" if inside else f"sysfs:{self.file}"


def parse_number(raw: bytes) -> int:
    """A whole number in decimal, which may be negative."""
    text = raw.rstrip(PADDING)
    if text.isdigit() or (text[:1] == b"-" and text[1:].isdigit()):
        return int(text)
    raise ValueError(f"not a number: {text[:20]!r}" if text else "empty")


def parse_speed(raw: bytes) -> float:
    """A link's speed in GT/s per lane, as `8.0 GT/s PCIe`."""
    text = raw.rstrip(PADDING)
    match = _SPEED.fullmatch(text)
    if match is None:
        raise ValueError(f"not a link speed: {text[:20]!r}")
    return check("pcie_speed_gts", float(match[1]))


def parse_level(raw: bytes, line_format: re.Pattern[bytes] = _LEVEL) -> tuple[float, ...]:
    """The figures of the marked line of a `pp_dpm_*` table: a clock in MHz, or GT/s and lanes.

    Lines are `level: clock *`; `S:` is the clock of deep sleep. Two marks are fine if both stand at
    the same figures, as on cards whose lowest levels are equal.
    """
    lines = [line for line in raw.rstrip(PADDING).splitlines() if line.strip(PADDING)]
    if not lines:
        raise ValueError("no levels")
    marked = set()
    for line in lines:
        match = line_format.fullmatch(line)
        if match is None:
            raise ValueError(f"not a level: {line[:40]!r}")
        *figures, star = match.groups()
        if star:
            marked.add(tuple(map(float, figures)))
    if len(marked) != 1:
        raise ValueError("several levels are marked" if marked else "no level is marked")
    return marked.pop()


def _scaled(name: str, per: int = 1) -> Parse:
    """A parser of a field's number, of which `per` make one of the field's unit."""
    if per == 1:
        return lambda raw: check(name, parse_number(raw))
    return lambda raw: check(name, parse_number(raw) / per)


#: Files in the device's folder that have a field in the schema's unit.
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
_DEVICE: Mapping[str, Candidate] = {
    **{name: Candidate(file, _scaled(name)) for name, file in _PLAIN.items()},
    "pcie_speed_gts": Candidate("current_link_speed", parse_speed),
}
#: Tables of levels, for fields whose file is missing or refuses.
_LEVELS: Mapping[str, Candidate] = {
    "sclk_hz": Candidate("pp_dpm_sclk", lambda raw: int(parse_level(raw)[0]) * 1_000_000),
    "mclk_hz": Candidate("pp_dpm_mclk", lambda raw: int(parse_level(raw)[0]) * 1_000_000),
    "pcie_speed_gts": Candidate("pp_dpm_pcie", lambda raw: parse_level(raw, _LINK_LEVEL)[0]),
    "pcie_width": Candidate("pp_dpm_pcie", lambda raw: int(parse_level(raw, _LINK_LEVEL)[1])),
}
#: Fields of hwmon under fixed names. Linux before 6.6 has the average power, later ones the moment,
#: APUs both; all in µW.
_HWMON: Mapping[str, tuple[Candidate, ...]] = {
    "power_w": tuple(
        Candidate(f"{HWMON}power1_{end}", _scaled("power_w", 1_000_000), kind)
        for end, kind in (("average", PowerKind.AVERAGE), ("input", PowerKind.INSTANT))
    ),
    "power_cap_w": (Candidate(f"{HWMON}power1_cap", _scaled("power_cap_w", 1_000_000)),),
    "fan_rpm": (Candidate(f"{HWMON}fan1_input", _scaled("fan_rpm")),),
}
#: Fields by the label of their sensor: its kind, the label, what follows the sensor's name, and how
#: many of the file's unit make the field's: hwmon tells m°C, mV and Hz.
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
_PARSE = {name: _scaled(name, per) for name, (_, _, _, per) in _LABELLED.items()}
#: What an unlabelled first sensor is, on kernels and drivers that label none.
_FIRST: Mapping[str, str] = {
    "temp_edge_c": "temp1",
    "temp_edge_crit_c": "temp1",
    "voltage_mv": "in0",
    "sclk_hz": "freq1",
}
#: Fields that the driver asks the card for, so that a busy or absent card shows here.
SENSORS = frozenset(
    "gpu_busy_pct mem_busy_pct sclk_hz mclk_hz power_w temp_edge_c temp_junction_c temp_memory_c "
    "voltage_mv fan_rpm".split()
)


def parse_sysfs(record: DeviceRecord, wanted: Collection[str], found: Found) -> None:
    """Add the fields wanted; a file that fails passes its field on to the next one."""
    for name in wanted:
        _parse_field(name, list(candidates(record, name)), record, found)


def candidates(record: DeviceRecord, name: str) -> Iterator[Candidate]:
    """The files that may have a field, most trusted first."""
    if name in _DEVICE:
        yield _DEVICE[name]
    if record.labels is not None:
        yield from _HWMON.get(name, ())
        if name in _LABELLED:
            kind, label, suffix, _ = _LABELLED[name]
            known = record.labels[kind]
            sensor = known.get(label) if known else _FIRST.get(name)
            if sensor is not None:
                yield Candidate(f"{HWMON}{sensor}_{suffix}", _PARSE[name])
    if name in _LEVELS:
        yield _LEVELS[name]


def _parse_field(
    name: str, files: Collection[Candidate], record: DeviceRecord, found: Found
) -> None:
    for candidate in files:
        try:
            value = candidate.parse(record[candidate.file])
        except OSError as error:
            if error.errno != errno.ENOENT:
                found.fail(name, os_error_text(candidate.source, error), error.errno)
        except ValueError as error:
            found.fail(name, f"{candidate.source}: {error}")
        else:
            found.put(name, value, candidate.source, candidate.kind)
            return
    if files and name not in found.troubles:
        first = next(iter(files))
        found.fail(name, f"{first.source}: no such file", errno.ENOENT)


def os_error_text(source: str, error: OSError) -> str:
    """The kernel's error, with the symbol that its documentation uses."""
    symbol = errno.errorcode.get(error.errno or 0, "error")
    return f"{source}: {symbol}, {error.strerror or 'no reason given'}"
