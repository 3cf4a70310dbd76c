"""The binary table `gpu_metrics`, which newer cards fill in one go, as fields of the schema.

Units differ by format, by the comments of the kernel's kgd_pp_interface.h: tables of cards (1.x)
have °C, W and %; those of APUs (2.x) hundredths of °C and of %, and mW; 3.0 has %, mW and, as its
driver shows, hundredths of °C. Some firmware does not keep to it. Where a number may be in either
unit, the driver's own file decides, then what the driver's source does for that chip, and else the
value is unknown with a reason. Zeros that stand for unknown are refused likewise.

A card in partitions is as busy as the table says of the whole card, or else as its partitions are
in the mean. Percentages are never added up, and partitions that differ are told one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from perfkit.gpu.device.record import DeviceRecord
from perfkit.gpu.device.schema import Found, Number, PowerKind
from perfkit.gpu.metrics.layouts import Revision
from perfkit.gpu.metrics.table import MetricsError, MetricsTable, parse_table
from perfkit.gpu.sources.sysfs import os_error_text, parse_number

#: Stands for the mean of the partitions, where a table has no figure for the whole card.
PARTITIONS = "partitions"
#: By field the members that may have it, most trusted first. Of a list the first number that is not
#: zero counts, as each partition has clocks of its own.
FieldMembers: TypeAlias = Mapping[str, tuple[str, ...]]

_EVERY: FieldMembers = {
    "gpu_busy_avg_pct": ("average_gfx_activity", PARTITIONS),
    "gpu_busy_pct": ("average_gfx_activity", PARTITIONS),
    "power_w": ("average_socket_power", "curr_socket_power"),
    "sclk_hz": ("current_gfxclk", "average_gfxclk"),
    "mclk_hz": ("current_uclk", "average_uclk"),
    "throttle_bits": ("indep_throttle_status", "throttle_status"),
}
_CARD: FieldMembers = {
    **_EVERY,
    "mem_busy_pct": ("average_umc_activity",),
    "temp_edge_c": ("temperature_edge",),
    "temp_junction_c": ("temperature_hotspot",),
    "temp_memory_c": ("temperature_mem",),
    "fan_rpm": ("current_fan_speed",),
    "voltage_mv": ("voltage_gfx",),
    "pcie_width": ("pcie_link_width",),
    "pcie_speed_gts": ("pcie_link_speed",),
    "energy_j": ("energy_accumulator",),
}
_APU: FieldMembers = {
    **_EVERY,
    "temp_edge_c": ("temperature_gfx",),
    "voltage_mv": ("average_gfx_voltage",),
}
#: The fields that some revision has.
METRICS_FIELDS = frozenset(_CARD.keys() | _APU.keys())

#: The driver's own file of a utilisation, which is in percent.
_PERCENT_FILES: Mapping[str, str] = {
    "gpu_busy_pct": "gpu_busy_percent",
    "gpu_busy_avg_pct": "gpu_busy_percent",
    "mem_busy_pct": "mem_busy_percent",
}
#: The file and the table are read a moment apart.
_SAME_PCT = 5.0
#: Partitions further apart than this are told one by one.
_APART_PCT = 25
#: Chips whose 2.x tables have hundredths of a percent, as their drivers divide by 100 for the file:
#: renoir_ppt.c, yellow_carp_ppt.c, smu_v13_0_4_ppt.c and smu_v13_0_5_ppt.c in the kernel's
#: drivers/gpu/drm/amd/pm/swsmu.
_SMU_12 = ("Renoir", "Lucienne", "Cezanne", "Barcelo")
_HUNDREDTHS = (*_SMU_12, "Rembrandt", "Raphael", "Granite Ridge", "Mendocino", "Phoenix", "Hawk")
#: vangogh_ppt.c takes the number as it is.
_PERCENT = ("Van Gogh",)
#: Renoir's firmware tells mW, and W from 0x40000f or 0x373200 on (renoir_ppt.c). A number below
#: this may be either.
_POWER_MW_MIN = 500
#: Hundredths of °C below this would be an APU close to freezing, and are likelier whole °C.
_CENTI_CELSIUS_MIN = 300
#: smu_v13_0_6_ppt.c fills the accumulator of both 1.8, where the header gives the unit, and 1.9.
_SMU_13_0_6 = ("Aqua Vanjaram", "MI3")


class Unclear(ValueError):
    """A number whose meaning is not certain; the message is the number and why."""


class Told(NamedTuple):
    """A field's number in a table, and what helps to understand it.

    `chip` is the chip's name, empty if unknown; `percent` reads the driver's own file.
    """

    name: str
    value: float
    revision: Revision
    chip: str
    percent: Callable[[str], float | None]


def _percent(told: Told) -> float:
    """A utilisation. Headers say % from 1.4 on. Before, and for APUs, the driver's file is the same
    figure rounded down, so that the closer unit is right where one is close.
    """
    value, (format_, _) = told.value, told.revision
    units = (value, value / 100)
    if value == 0 or (1, 4) <= told.revision < (2, 0):
        return value
    file = told.percent(_PERCENT_FILES[told.name])
    if file is not None:
        closer = min(units, key=lambda unit: abs(unit - file))
        if abs(closer - file) <= _SAME_PCT:
            return closer
    if format_ == 1 or (format_ == 2 and told.chip.startswith(_PERCENT) and value <= 100):
        return value
    if value > 100 or (format_ == 2 and told.chip.startswith(_HUNDREDTHS)):
        return value / 100
    raise Unclear(f"{value:g}, which may be % or hundredths of %")


def _watts(told: Told) -> float:
    if told.revision[0] == 1:
        return told.value
    may_be_watts = not told.chip or told.chip.startswith(_SMU_12)
    if told.revision[0] == 2 and may_be_watts and 0 < told.value < _POWER_MW_MIN:
        raise Unclear(f"{told.value:g}, which may be W or mW")
    return told.value / 1_000


def _celsius(told: Told) -> float:
    if told.revision[0] == 1:
        return told.value
    if 0 < told.value < _CENTI_CELSIUS_MIN:
        raise Unclear(f"{told.value:g}, which may be °C or hundredths of °C")
    return told.value / 100


def _hertz(told: Told) -> int:
    if told.value == 0:
        raise Unclear("0, which a table also says for a clock that it does not fill")
    return int(told.value) * 1_000_000


def _joules(told: Told) -> float:
    """Energy, counted in 2⁻¹⁶ J. Before 1.4 the header gives no unit; a Navi 21 has another."""
    documented = (1, 4) <= told.revision < (1, 9)
    if not documented and not told.chip.startswith(_SMU_13_0_6):
        raise Unclear(f"{told.value:,} in a unit that is not documented")
    return told.value / 65_536


def _throttle_bits(told: Told) -> float:
    """The driver of 1.4 and later writes 0 in place of a status (smu_v13_0_6_ppt.c)."""
    if told.value == 0 and (1, 4) <= told.revision < (2, 0):
        raise Unclear("0, which the driver says whether or not the card is throttled")
    return told.value


_READ: Mapping[str, Callable[[Told], Number]] = {
    "gpu_busy_avg_pct": _percent,
    "gpu_busy_pct": _percent,
    "mem_busy_pct": _percent,
    "power_w": _watts,
    "temp_edge_c": _celsius,
    "temp_junction_c": _celsius,
    "temp_memory_c": _celsius,
    "sclk_hz": _hertz,
    "mclk_hz": _hertz,
    "pcie_speed_gts": lambda told: told.value / 10,
    "energy_j": _joules,
    "throttle_bits": _throttle_bits,
}
#: One of these is not zero in a chip that runs.
_SIGNS_OF_LIFE = (
    "temperature_edge temperature_hotspot temperature_gfx average_socket_power curr_socket_power "
    "current_gfxclk"
).split()


def interpret(
    table: MetricsTable,
    wanted: Collection[str],
    found: Found,
    chip: str = "",
    percent: Callable[[str], float | None] = lambda file: None,
) -> None:
    """Add the fields wanted that the table has, in the schema's units.

    `percent` gives the content of the driver's own file of a utilisation, None without one.
    """
    fields = _CARD if table.revision[0] == 1 else _APU
    signs = [number for sign in _SIGNS_OF_LIFE for number in table.numbers(sign)]
    is_hollow = bool(signs) and not any(signs)
    for name in wanted:
        for member in fields.get(name, ()):
            value = _number(table, member)
            if value is None:
                continue
            source = f"{table.source}:{member}"
            try:
                if value == 0 and is_hollow:
                    raise Unclear("0, as in all of a table that is not filled")
                told = Told(name, value, table.revision, chip, percent)
                exact = _READ[name](told) if name in _READ else value
            except Unclear as error:
                found.fail(name, f"{source}: {error}")
                continue
            found.put(name, exact, source, PowerKind.SOCKET if name == "power_w" else None)
            if name in found.values:
                break
    _say_what_is_missing(table, wanted, found)


def _number(table: MetricsTable, member: str) -> float | None:
    if member == PARTITIONS:
        dies = [die for partition in table.partitions() for die in partition]
        return sum(dies) / len(dies) if dies else None
    numbers = table.numbers(member)
    return next((number for number in numbers if number), numbers[0] if numbers else None)


def _say_what_is_missing(table: MetricsTable, wanted: Collection[str], found: Found) -> None:
    """Add what a table says in another way than a field could."""
    if "throttle_bits" in wanted and ((1, 6) <= table.revision < (2, 0) or table.revision[0] == 3):
        text = "counters of throttled time, which say nothing of this moment"
        found.fail("throttle_bits", f"{table.source}: {text}")
    each = [sum(dies) / len(dies) for dies in table.partitions()]
    if "gpu_busy_avg_pct" in wanted and each and max(each) - min(each) > _APART_PCT:
        parts = "partitions" if "xcp_stats" in table.members else "compute dies"
        shares = ", ".join(f"{share:.0f}" for share in each)
        found.fail("gpu_busy_avg_pct", f"{table.source}: {parts} are busy {shares} %")


def parse_metrics(
    record: DeviceRecord, wanted: Collection[str], found: Found, chip: str = ""
) -> None:
    """Add the fields wanted that the record's table has; a card without one has no trouble.

    `chip` is the chip's name, empty if unknown.
    """
    wanted = METRICS_FIELDS.intersection(wanted)
    if not wanted:
        return
    try:
        table = parse_table(record["gpu_metrics"])
    except FileNotFoundError:
        return
    except OSError as error:
        text, code = os_error_text("gpu_metrics", error), error.errno
    except MetricsError as error:
        text, code = f"gpu_metrics: {error}", None
    else:
        interpret(table, wanted, found, chip, lambda file: _percent_in(record, file))
        return
    for name in wanted:
        found.fail(name, text, code)


def _percent_in(record: DeviceRecord, file: str) -> float | None:
    with suppress(OSError, ValueError):
        value = parse_number(record[file])
        return value if 0 <= value <= 100 else None
    return None


def revision_of(record: DeviceRecord) -> Revision | None:
    """The revision of the record's table; None without one that can be read."""
    try:
        return parse_table(record["gpu_metrics"]).revision
    except (OSError, MetricsError):
        return None
