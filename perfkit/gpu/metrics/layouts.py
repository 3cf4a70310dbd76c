"""Where each member of a `gpu_metrics` table is, revision by revision.

The layouts are the C structures `gpu_metrics_v…` and `amdgpu_xcp_metrics…` of the kernel's
drivers/gpu/drm/amd/include/kgd_pp_interface.h, naturally aligned and, on every machine that takes
such a card, little-endian. Since 1.9 a table of a card describes itself: see `ATTRIBUTES`.

A member is 16 bits wide unless a width follows. Revision 1.6 exists twice: a short one of May
2024 (commit d24c43b1e319, reverted later), and one with partitions since September 2024. Their
sizes tell them apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ctypes import LittleEndianStructure, c_uint8, c_uint16, c_uint32, c_uint64
from functools import cache
from typing import Any, NamedTuple, TypeAlias

Revision: TypeAlias = tuple[int, int]

HEADER_BYTES = 4
#: What members begin with that have no meaning, or none that is used.
UNUSED = ("padding", "rest")
_INTEGERS = {"8": c_uint8, "16": c_uint16, "32": c_uint32, "64": c_uint64}
_WORD = re.compile(r"(\w+?)(?:\[(\d+)\])?(?::(\w+))?")

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
    "average_umc_activity "
)
_VIDEO_14 = "vcn_activity[4] "
_VIDEO_15 = _VIDEO_14 + "jpeg_activity[32] "
_ENERGY_14 = "energy_accumulator:64 system_clock_counter:64 "
_RESIDENCIES = (
    "accumulation_counter:32 prochot_residency_acc:32 ppt_residency_acc:32 "
    "socket_thm_residency_acc:32 vr_thm_residency_acc:32 hbm_thm_residency_acc:32 "
)
_STATUS = "throttle_status:32 "
_LINKS_14 = (
    "gfxclk_lock_status:32 pcie_link_width pcie_link_speed xgmi_link_width xgmi_link_speed "
    "gfx_activity_acc:32 mem_activity_acc:32 pcie_bandwidth_acc:64 pcie_bandwidth_inst:64 "
    "pcie_l0_to_recov_count:64 pcie_replay_count:64 pcie_replay_rollover_count:64 "
)
_NAKS = "pcie_nak_sent_count:32 pcie_nak_received_count:32 "
_XGMI = "xgmi_read_data_acc[8]:64 xgmi_write_data_acc[8]:64 "
_CLOCKS_14 = (
    "firmware_timestamp:64 current_gfxclk[8] current_socclk[4] current_vclk0[4] current_dclk0[4] "
    "current_uclk "
)
_V1_4 = _HEAD_14 + _VIDEO_14 + _ENERGY_14 + _STATUS + _LINKS_14 + _XGMI + _CLOCKS_14 + "padding"
_V1_5 = (
    _HEAD_14 + _VIDEO_15 + _ENERGY_14 + _STATUS + _LINKS_14 + _NAKS + _XGMI + _CLOCKS_14 + "padding"
)
_V1_6_SHORT = (
    _HEAD_14 + _VIDEO_15 + _ENERGY_14 + _RESIDENCIES + _STATUS + _LINKS_14 + _NAKS + _XGMI
    + _CLOCKS_14 + "padding"
)  # fmt: skip
_PARTITIONS = "num_partition xcp_stats[8]:{} pcie_lc_perf_other_end_recovery:32"
_V1_6 = (
    _HEAD_14 + _ENERGY_14 + _RESIDENCIES + _LINKS_14 + _NAKS + _XGMI + _CLOCKS_14
    + _PARTITIONS.format("xcp")
)  # fmt: skip
_V1_7 = (
    _HEAD_14 + "mem_max_bandwidth:64 " + _ENERGY_14 + _RESIDENCIES + _LINKS_14 + _NAKS + _XGMI
    + "xgmi_link_status[8] padding " + _CLOCKS_14 + _PARTITIONS
)  # fmt: skip

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

#: The members of each layout, by revision and size in bytes.
LAYOUTS: Mapping[tuple[Revision, int], str] = {
    ((1, 0), 80): _V1_0,
    ((1, 1), 96): _V1_1,
    ((1, 2), 104): _V1_2,
    ((1, 3), 120): _V1_3,
    ((1, 4), 288): _V1_4,
    ((1, 5), 360): _V1_5,
    ((1, 6), 384): _V1_6_SHORT,
    ((1, 6), 1_664): _V1_6,
    ((1, 7), 2_208): _V1_7.format("xcp_1"),
    ((1, 8), 3_872): _V1_7.format("xcp_2"),
    ((2, 0), 120): _V2_0,
    ((2, 1), 120): _V2_1,
    ((2, 2), 128): _V2_2,
    ((2, 3), 152): _V2_3,
    ((2, 4), 168): _V2_4,
    ((3, 0), 264): _V3_0,
}
#: A partition's figures: how busy each of its 8 compute dies is, in percent, then engines for video
#: (32 or 40 for JPEG, 4 for the rest) and 1, 2 or 5 counters of each die.
_NESTED: Mapping[str, str] = {
    "xcp": "gfx_busy_inst[8]:32 rest[36] rest1[8]:64",
    "xcp_1": "gfx_busy_inst[8]:32 rest[36] rest1[16]:64",
    "xcp_2": "gfx_busy_inst[8]:32 rest[44] rest1[40]:64",
}


class Attribute(NamedTuple):
    """A member of a table that describes itself, and the unit that it has to be in."""

    member: str
    unit: int


#: The revision whose members are attributes: a count of 32 bits, then for each its encoding in 64
#: bits and its values, packed (`SMU_METRICS_SCALAR` in drivers/gpu/drm/amd/pm/swsmu/smu_cmn.h).
ATTRIBUTE_REVISION: Revision = (1, 9)
#: The values' types by `amdgpu_metrics_attr_type`, as codes of `struct`.
ATTRIBUTE_TYPES = "BbHhIiQq"
#: What is used, by `amdgpu_metrics_attr_id`. The units are those of `amdgpu_metrics_attr_unit`: 1
#: is MHz, 2 °C, 3 W, 7 0.1 GT/s, 10 %.
ATTRIBUTES: Mapping[int, Attribute] = {
    0: Attribute("temperature_hotspot", 2),
    1: Attribute("temperature_mem", 2),
    3: Attribute("curr_socket_power", 3),
    4: Attribute("average_gfx_activity", 10),
    5: Attribute("average_umc_activity", 10),
    7: Attribute("energy_accumulator", 0),
    16: Attribute("pcie_link_width", 0),
    17: Attribute("pcie_link_speed", 7),
    33: Attribute("current_gfxclk", 1),
    37: Attribute("current_uclk", 1),
    38: Attribute("num_partition", 0),
    40: Attribute("gfx_busy_inst", 10),
}


@cache
def structure(revision: Revision, size: int) -> type[LittleEndianStructure]:
    """The layout of a revision and size as a ctypes structure, its header included."""
    header: list[tuple[str, Any]] = [("size", c_uint16), ("format", c_uint8), ("content", c_uint8)]
    name = "GpuMetrics{}_{}_{}".format(*revision, size)
    return _structure(name, header + _members(LAYOUTS[revision, size]))


def _structure(name: str, members: list[tuple[str, Any]]) -> type[LittleEndianStructure]:
    return type(name, (LittleEndianStructure,), {"_fields_": members})


def _members(layout: str) -> list[tuple[str, Any]]:
    members: list[tuple[str, Any]] = []
    for word in layout.split():
        match = _WORD.fullmatch(word)
        assert match is not None, word
        name, count, kind = match.groups()
        part = _INTEGERS.get(kind or "16") or _structure(kind, _members(_NESTED[kind]))
        members.append((name, part * int(count) if count else part))
    return members
