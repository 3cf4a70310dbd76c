"""The binary table `gpu_metrics`, which newer cards fill in one go.

Its layouts are the C structures `gpu_metrics_v…` of the kernel's kgd_pp_interface.h, naturally
aligned and, on every machine that takes such a card, little-endian. A header says size, format and
content revision; a table is read only when all three belong together, because the same bytes mean
something else in another revision. A field of all ones is not available.

Units differ by format: tables of cards (1.x) have °C, W and %; those of APUs (2.x) hundredths of
°C and of %, and mW; 3.0 has hundredths of °C, %, and mW.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from ctypes import LittleEndianStructure, c_uint8, c_uint16, c_uint32, c_uint64, sizeof
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from perfkit.gpu.record import DeviceRecord
from perfkit.gpu.schema import Found, PowerKind
from perfkit.gpu.sysfs import os_error_text

Revision: TypeAlias = tuple[int, int]

HEADER_BYTES = 4
_INTEGERS = {"8": c_uint8, "16": c_uint16, "32": c_uint32, "64": c_uint64}
_WORD = re.compile(r"(\w+?)(?:\[(\d+)\])?(?::(8|16|32|64))?")

# Members in order, 16 bits wide unless a width follows.
_HEAT_1 = "temperature_edge temperature_hotspot temperature_mem temperature_vr[3] "
_LOAD_1 = "average_gfx_activity average_umc_activity average_mm_activity average_socket_power "
_CLOCKS_1 = (
    "average_gfxclk average_socclk average_uclk average_video_clocks[4] current_gfxclk "
    "current_socclk current_uclk current_video_clocks[4] throttle_status:32 current_fan_speed "
)
_V1_0 = (
    "system_clock_counter:64 "
    + _HEAT_1
    + _LOAD_1
    + "energy_accumulator:32 "
    + _CLOCKS_1
    + "pcie_link_width:8 pcie_link_speed:8"
)
_V1_1 = (
    _HEAT_1
    + _LOAD_1
    + "energy_accumulator:64 system_clock_counter:64 "
    + _CLOCKS_1
    + "pcie_link_width pcie_link_speed padding gfx_activity_acc:32 mem_activity_acc:32 "
    + "temperature_hbm[4]"
)
_V1_2 = _V1_1 + " firmware_timestamp:64"
_V1_3 = _V1_2 + " voltage_soc voltage_gfx voltage_mem padding1 indep_throttle_status:64"

_HEAD_14 = (
    "temperature_hotspot temperature_mem temperature_vrsoc curr_socket_power average_gfx_activity "
    "average_umc_activity vcn_activity[4] "
)
_LINKS_14 = (
    "energy_accumulator:64 system_clock_counter:64 throttle_status:32 gfxclk_lock_status:32 "
    "pcie_link_width pcie_link_speed xgmi_link_width xgmi_link_speed gfx_activity_acc:32 "
    "mem_activity_acc:32 pcie_bandwidth_acc:64 pcie_bandwidth_inst:64 pcie_l0_to_recov_count:64 "
    "pcie_replay_count:64 pcie_replay_rollover_count:64 "
)
_TAIL_14 = (
    "xgmi_read_data_acc[8]:64 xgmi_write_data_acc[8]:64 firmware_timestamp:64 current_gfxclk[8] "
    "current_socclk[4] current_vclk0[4] current_dclk0[4] current_uclk padding"
)
_V1_4 = _HEAD_14 + _LINKS_14 + _TAIL_14
_V1_5 = (
    _HEAD_14
    + "jpeg_activity[32] "
    + _LINKS_14
    + "pcie_nak_sent_count:32 pcie_nak_received_count:32 "
    + _TAIL_14
)

_HEAT_2 = (
    "temperature_gfx temperature_soc temperature_core[8] temperature_l3[2] average_gfx_activity "
    "average_mm_activity "
)
_POWER_2 = (
    "average_socket_power average_cpu_power average_soc_power average_gfx_power "
    "average_core_power[8] average_gfxclk average_socclk average_uclk average_fclk average_vclk "
    "average_dclk current_gfxclk current_socclk current_uclk current_fclk current_vclk "
    "current_dclk current_coreclk[8] current_l3clk[2] throttle_status:32 fan_pwm "
)
_V2_0 = "system_clock_counter:64 " + _HEAT_2 + _POWER_2 + "padding"
_V2_1 = _HEAT_2 + "system_clock_counter:64 " + _POWER_2 + "padding[3]"
_V2_2 = _V2_1 + " indep_throttle_status:64"
_V2_3 = _V2_2 + (
    " average_temperature_gfx average_temperature_soc average_temperature_core[8] "
    "average_temperature_l3[2]"
)
_V2_4 = _V2_3 + (
    " average_cpu_voltage average_soc_voltage average_gfx_voltage average_cpu_current "
    "average_soc_current average_gfx_current"
)
_V3_0 = (
    "temperature_gfx temperature_soc temperature_core[16] temperature_skin average_gfx_activity "
    "average_vcn_activity average_ipu_activity[8] average_core_c0_activity[16] "
    "average_dram_reads average_dram_writes average_ipu_reads average_ipu_writes "
    "system_clock_counter:64 average_socket_power:32 average_ipu_power average_apu_power:32 "
    "average_gfx_power:32 average_dgpu_power:32 average_all_core_power:32 average_core_power[16] "
    "average_sys_power stapm_power_limit current_stapm_power_limit average_gfxclk average_socclk "
    "average_vpeclk average_ipuclk average_fclk average_vclk average_uclk average_mpipuclk "
    "current_coreclk[16] current_core_maxfreq current_gfx_maxfreq throttle_residency[7]:32 "
    "time_filter_alphavalue:32"
)

#: Every revision that is read: its size in bytes and its members.
LAYOUTS: Mapping[Revision, tuple[int, str]] = {
    (1, 0): (80, _V1_0),
    (1, 1): (96, _V1_1),
    (1, 2): (104, _V1_2),
    (1, 3): (120, _V1_3),
    (1, 4): (288, _V1_4),
    (1, 5): (360, _V1_5),
    (2, 0): (120, _V2_0),
    (2, 1): (120, _V2_1),
    (2, 2): (128, _V2_2),
    (2, 3): (152, _V2_3),
    (2, 4): (168, _V2_4),
    (3, 0): (264, _V3_0),
}

#: By field the members that may have it, and their unit in the schema's. The first one available
#: counts, and the first element of a list: each partition has clocks of its own.
FieldMembers: TypeAlias = Mapping[str, tuple[tuple[str, ...], float]]

_CARD: FieldMembers = {
    "gpu_busy_avg_pct": (("average_gfx_activity",), 1),
    "gpu_busy_pct": (("average_gfx_activity",), 1),
    "mem_busy_pct": (("average_umc_activity",), 1),
    "power_w": (("average_socket_power", "curr_socket_power"), 1),
    "temp_edge_c": (("temperature_edge",), 1),
    "temp_junction_c": (("temperature_hotspot",), 1),
    "temp_memory_c": (("temperature_mem",), 1),
    "sclk_hz": (("current_gfxclk", "average_gfxclk"), 1_000_000),
    "mclk_hz": (("current_uclk", "average_uclk"), 1_000_000),
    "fan_rpm": (("current_fan_speed",), 1),
    "voltage_mv": (("voltage_gfx",), 1),
    "pcie_width": (("pcie_link_width",), 1),
    "pcie_speed_gts": (("pcie_link_speed",), 0.1),
    "throttle_bits": (("indep_throttle_status", "throttle_status"), 1),
}
_APU: FieldMembers = {
    "gpu_busy_avg_pct": (("average_gfx_activity",), 0.01),
    "gpu_busy_pct": (("average_gfx_activity",), 0.01),
    "power_w": (("average_socket_power",), 0.001),
    "temp_edge_c": (("temperature_gfx",), 0.01),
    "sclk_hz": (("current_gfxclk", "average_gfxclk"), 1_000_000),
    "mclk_hz": (("current_uclk", "average_uclk"), 1_000_000),
    "voltage_mv": (("average_gfx_voltage",), 1),
    "throttle_bits": (("indep_throttle_status", "throttle_status"), 1),
}
#: Up to firmware 0x5d4600 its utilisation is in hundredths; such a value above 100 is refused.
_APU_3: FieldMembers = {
    **_APU,
    "gpu_busy_avg_pct": (("average_gfx_activity",), 1),
    "gpu_busy_pct": (("average_gfx_activity",), 1),
}
#: The accumulator counts 2⁻¹⁶ J. The header says so from 1.4 on only; a Navi 21's counts mJ.
_ENERGY: FieldMembers = {"energy_j": (("energy_accumulator",), 2.0**-16)}
#: The fields that some revision has.
METRICS_FIELDS = frozenset(_CARD.keys() | _APU.keys() | _ENERGY.keys())
#: The driver leaves zero for unknown: no chip is at 0 °C, 0 V or on no lane.
_NEVER_ZERO = frozenset(
    "temp_edge_c temp_junction_c temp_memory_c voltage_mv pcie_width pcie_speed_gts".split()
)
#: Some Renoirs tell W where others tell mW; a value below this may be either.
_POWER_MW_MIN = 500


class MetricsError(ValueError):
    """A table that can't be read; the message says what is wrong with it."""


class MetricsTable(NamedTuple):
    """A table's revision and members by name; None, alone or in a list, is not available."""

    revision: Revision
    members: Mapping[str, int | tuple[int | None, ...] | None]

    @property
    def source(self) -> str:
        """How `GpuSample.source` names the table."""
        return "gpu_metrics:v{}.{}".format(*self.revision)


@cache
def structure(revision: Revision) -> type[LittleEndianStructure]:
    """The layout of a revision as a ctypes structure, its header included."""
    members: list[tuple[str, Any]] = [("size", c_uint16), ("format", c_uint8), ("content", c_uint8)]
    for word in LAYOUTS[revision][1].split():
        match = _WORD.fullmatch(word)
        assert match is not None, word
        name, count, width = match.groups()
        integer = _INTEGERS[width or "16"]
        members.append((name, integer * int(count) if count else integer))
    name = "GpuMetrics{}_{}".format(*revision)
    return type(name, (LittleEndianStructure,), {"_fields_": members})


def parse_table(data: bytes) -> MetricsTable:
    """Read a table; what follows it in `data` is padding.

    Raises MetricsError for one that is too short, of an unknown revision, of another size than its
    revision has, or all zero.
    """
    if len(data) < HEADER_BYTES:
        raise MetricsError(f"{len(data)} bytes, less than a header")
    size, revision = int.from_bytes(data[:2], "little"), (data[2], data[3])
    if revision not in LAYOUTS:
        raise MetricsError("revision {}.{} is not known".format(*revision))
    expected = LAYOUTS[revision][0]
    if size != expected:
        raise MetricsError("{} bytes where v{}.{} has {}".format(size, *revision, expected))
    if len(data) < size:
        raise MetricsError(f"cut off after {len(data)} of {size} bytes")
    if not any(data[HEADER_BYTES:size]):
        raise MetricsError("all zero")
    layout = structure(revision)
    raw = layout.from_buffer_copy(data[:size])
    return MetricsTable(
        revision,
        {
            name: _available(getattr(raw, name), kind)
            for name, kind, *_ in layout._fields_[3:]  # behind the header
        },
    )


def _available(value: Any, kind: Any) -> int | tuple[int | None, ...] | None:
    if isinstance(value, int):
        return None if value == (1 << 8 * sizeof(kind)) - 1 else value
    return tuple(_available(each, kind._type_) for each in value)  # type: ignore[misc]


def interpret(table: MetricsTable, wanted: Collection[str], found: Found) -> None:
    """Add the fields wanted that the table has, in the schema's units."""
    fields = _CARD if table.revision[0] == 1 else _APU if table.revision[0] == 2 else _APU_3
    if table.revision in ((1, 4), (1, 5)):
        fields = {**fields, **_ENERGY}
    for name in wanted:
        members, unit = fields.get(name, ((), 1))
        for member in members:
            value = table.members.get(member)
            if isinstance(value, tuple):
                value = next((each for each in value if each is not None), None)
            if value is None or (value == 0 and name in _NEVER_ZERO):
                continue
            if name == "power_w" and table.revision[0] == 2 and value < _POWER_MW_MIN:
                found.fail(name, f"{table.source}: {value}, which may be W or mW")
                continue
            kind = PowerKind.SOCKET if name == "power_w" else None
            exact = value if unit == 1 else round(value * unit, 6)
            found.put(name, exact, f"{table.source}:{member}", kind)
            break


def parse_metrics(record: DeviceRecord, wanted: Collection[str], found: Found) -> None:
    """Add the fields wanted that the record's table has; a card without one has no trouble."""
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
        interpret(table, wanted, found)
        return
    for name in wanted:
        found.fail(name, text, code)


def revision_of(record: DeviceRecord) -> Revision | None:
    """The revision of the record's table; None without one that can be read."""
    try:
        return parse_table(record["gpu_metrics"]).revision
    except (OSError, MetricsError):
        return None
