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

from perfkit.gpu.device.record import HWMON, PADDING, DeviceRecord
from perfkit.gpu.device.schema import PLAUSIBLE_RANGES, Found, Number, PowerKind, Trouble, check

Parse: TypeAlias = Callable[[bytes], Number]

#: A clock between levels has no number.
_LEVEL = re.compile(rb"\s*(?:(?:\d{1,3}|S)\s*:)?\s*(\d{1,7})\s*MHz\s*(\*)[^*\d]*", re.IGNORECASE)
_RAS_LINE = re.compile(rb"\s*([a-z]{2})\s*:\s*(\d{1,20})\s*")
_PARTITION = re.compile(r"[SDTQC]PX|NPS[0-9]{1,2}")
PARTITION_FIELDS = ("compute_partition", "memory_partition")


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


def parse_level(raw: bytes, line_format: re.Pattern[bytes] = _LEVEL) -> tuple[float, ...]:
    """The figures of the marked line of a `pp_dpm_*` table: a clock in MHz, or GT/s and lanes.

    Lines are `level: clock *`; `S:` is the clock of deep sleep, and a clock between levels, as APUs
    have, stands on a line without a level (`renoir_print_clk_levels`). Two marks are fine if both
    stand at the same figures, as on cards whose lowest levels are equal.
    """
    lines = [line for line in raw.rstrip(PADDING).splitlines() if line.strip(PADDING)]
    if not lines:
        raise ValueError("no levels")
    marked = set()
    for line in lines:
        if b"*" in line:
            match = line_format.fullmatch(line)
            if match is None:
                raise ValueError(f"not a level: {line[:40]!r}")
            marked.add(tuple(map(float, match.groups()[:-1])))
    if len(marked) != 1:
        raise ValueError("several levels are marked" if marked else "no level is marked")
    return marked.pop()


def scaled(name: str, per: int = 1) -> Parse:
    """A parser of a field's number, of which `per` make one of the field's unit."""
    low, high = PLAUSIBLE_RANGES[name]
    least, most = max(1, low * per), high * per

    def parse(raw: bytes) -> Number:
        text = raw.rstrip(PADDING)
        value = int(text) if text.isdigit() else parse_number(raw)
        # Zero may stand for unknown, which `check` knows.
        if not least <= value <= most:
            check(name, value / per if per > 1 else value)
        return value / per if per > 1 else value

    return parse


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
}
_DEVICE: Mapping[str, Candidate] = {
    name: Candidate(file, scaled(name)) for name, file in _PLAIN.items()
}
#: Tables of levels, for fields whose file is missing or refuses.
_LEVELS: Mapping[str, Candidate] = {
    "sclk_hz": Candidate("pp_dpm_sclk", lambda raw: int(parse_level(raw)[0]) * 1_000_000),
    "mclk_hz": Candidate("pp_dpm_mclk", lambda raw: int(parse_level(raw)[0]) * 1_000_000),
}
#: Fields of hwmon under fixed names. Linux before 6.6 has the average power, later ones the moment,
#: APUs both; all in µW, and the energy in µJ.
_HWMON: Mapping[str, tuple[Candidate, ...]] = {
    "power_w": tuple(
        Candidate(f"{HWMON}power1_{end}", scaled("power_w", 1_000_000), kind)
        for end, kind in (("average", PowerKind.AVERAGE), ("input", PowerKind.INSTANT))
    ),
    "power_cap_w": (Candidate(f"{HWMON}power1_cap", scaled("power_cap_w", 1_000_000)),),
    "fan_rpm": (Candidate(f"{HWMON}fan1_input", scaled("fan_rpm")),),
    "energy_j": (Candidate(f"{HWMON}energy1_input", scaled("energy_j", 1_000_000)),),
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
_PARSE = {name: scaled(name, per) for name, (_, _, _, per) in _LABELLED.items()}
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
        parse_field(name, list(candidates(record, name)), record, found)
    _parse_ras(record, wanted, found)


def no_source(record: DeviceRecord, name: str) -> str:
    """Why a field has no value where no source has a file for it."""
    if name not in _HWMON and name not in _LABELLED:
        return "no source of this card tells it"
    if record.labels is None:
        return "hwmon: the card has no such folder"
    return f"hwmon: no sensor labelled {_LABELLED[name][1]}"


def candidates(record: DeviceRecord, name: str) -> Iterator[Candidate]:
    """The files that may have a field, most trusted first."""
    if name in _DEVICE:
        yield _DEVICE[name]
    if (name in _HWMON or name in _LABELLED) and record.labels is not None:
        yield from _HWMON.get(name, ())
        if name in _LABELLED:
            kind, label, suffix, _ = _LABELLED[name]
            known = record.labels[kind]
            sensor = known.get(label) if known else _FIRST.get(name)
            if sensor is not None:
                yield Candidate(f"{HWMON}{sensor}_{suffix}", _PARSE[name])
    if name in _LEVELS:
        yield _LEVELS[name]


def parse_field(
    name: str, files: Collection[Candidate], record: DeviceRecord, found: Found
) -> None:
    """Add a field from the first file that has it, or why the first one has none."""
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


#: The fields that sum up the chip's parts, by the line of each part's file.
_RAS: Mapping[str, bytes] = {"ras_uncorrected_n": b"ue", "ras_corrected_n": b"ce"}


def _parse_ras(record: DeviceRecord, wanted: Collection[str], found: Found) -> None:
    """Add the errors that the chip counted since the driver was loaded, summed over its parts.

    A file has the lines `ue: N` and `ce: N`, and newer ones `de: N`, errors that nothing has used
    yet (amdgpu_ras.c, `amdgpu_ras_sysfs_read` and `amdgpu_ras_aca_sysfs_read`). During a reset it
    has a sentence instead. A sum without one of its parts would be too small, so there is none.
    """
    names = [name for name in _RAS if name in wanted]
    if not names:
        return
    counts: list[Mapping[bytes, int]] = []
    trouble = Trouble("sysfs:ras: no such folder", errno.ENOENT)
    for file in record.files.ras:
        try:
            counts.append(_error_counts(record[file]))
        except OSError as error:
            trouble = Trouble(os_error_text(f"sysfs:{file}", error), error.errno)
        except ValueError as error:
            trouble = Trouble(f"sysfs:{file}: {error}")
    is_whole = counts and len(counts) == len(record.files.ras)
    for name in names:
        if is_whole:
            found.put(name, sum(count[_RAS[name]] for count in counts), "sysfs:ras")
        else:
            found.fail(name, *trouble)


def _error_counts(raw: bytes) -> Mapping[bytes, int]:
    counts = {}
    for line in raw.rstrip(PADDING).splitlines():
        match = _RAS_LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"not a count of errors: {line[:40]!r}")
        counts[match[1]] = int(match[2])
    if not counts.keys() >= set(_RAS.values()):
        raise ValueError("the counts ue and ce are not both there")
    return counts


def partitions(record: DeviceRecord) -> dict[str, str]:
    """How a card is divided, as `SPX` and `NPS1`; a card that can't be has neither field."""
    told = {name: record.text(f"current_{name}") for name in PARTITION_FIELDS}
    return {name: mode for name, mode in told.items() if mode and _PARTITION.fullmatch(mode)}


def os_error_text(source: str, error: OSError) -> str:
    """The kernel's error, with the symbol that its documentation uses."""
    symbol = errno.errorcode.get(error.errno or 0, "error")
    return f"{source}: {symbol}, {error.strerror or 'no reason given'}"
