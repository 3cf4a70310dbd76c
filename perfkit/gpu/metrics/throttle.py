"""What holds a card back, in words.

The kernel has one word of bits for all chips, `indep_throttle_status`, whose bits are the
`SMU_THROTTLER_…_BIT` of drivers/gpu/drm/amd/pm/swsmu/inc/amdgpu_smu.h, and one whose bits differ
from chip to chip, `throttle_status`. Those are in the headers that driver and firmware share, in
swsmu/inc/pmfw_if: smu11_driver_if_{navi10,sienna_cichlid,arcturus,vangogh}.h,
smu12_driver_if.h, smu13_driver_if_{aldebaran,yellow_carp,v13_0_4,v13_0_5,v13_0_6}.h; and for Vega
in powerplay/inc/smu9_driver_if.h and smu11_driver_if.h.
"""

from __future__ import annotations

from collections.abc import Mapping

#: What each throttler is in words, by its name without `SMU_THROTTLER_` and `_BIT`, and its bit.
_REASONS: Mapping[str, tuple[int, str]] = {
    "PPT0": (0, "package power limit 0"),
    "PPT1": (1, "package power limit 1"),
    "PPT2": (2, "package power limit 2"),
    "PPT3": (3, "package power limit 3"),
    "SPL": (4, "sustained power limit"),
    "FPPT": (5, "fast package power limit"),
    "SPPT": (6, "slow package power limit"),
    "SPPT_APU": (7, "slow power limit of the APU"),
    "TDC_GFX": (16, "current of the graphics core"),
    "TDC_SOC": (17, "current of the SoC"),
    "TDC_MEM": (18, "current of the memory"),
    "TDC_VDD": (19, "current of VDD"),
    "TDC_CVIP": (20, "current of CVIP"),
    "EDC_CPU": (21, "peak current of the CPU"),
    "EDC_GFX": (22, "peak current of the graphics core"),
    "APCC": (23, "peak current control"),
    "TEMP_GPU": (32, "temperature of the GPU"),
    "TEMP_CORE": (33, "temperature of the CPU cores"),
    "TEMP_MEM": (34, "temperature of the memory"),
    "TEMP_EDGE": (35, "temperature at the edge"),
    "TEMP_HOTSPOT": (36, "temperature at the hotspot"),
    "TEMP_SOC": (37, "temperature of the SoC"),
    "TEMP_VR_GFX": (38, "temperature of the graphics voltage regulator"),
    "TEMP_VR_SOC": (39, "temperature of the SoC voltage regulator"),
    "TEMP_VR_MEM0": (40, "temperature of memory voltage regulator 0"),
    "TEMP_VR_MEM1": (41, "temperature of memory voltage regulator 1"),
    "TEMP_LIQUID0": (42, "temperature of liquid 0"),
    "TEMP_LIQUID1": (43, "temperature of liquid 1"),
    "VRHOT0": (44, "voltage regulator 0 is hot"),
    "VRHOT1": (45, "voltage regulator 1 is hot"),
    "PROCHOT_CPU": (46, "CPU is signalled to be hot"),
    "PROCHOT_GFX": (47, "GPU is signalled to be hot"),
    "PPM": (56, "limit that the kernel only calls PPM"),
    "FIT": (57, "reliability limit"),
    # Only in words of a single chip:
    "TEMP_PLX": (64, "temperature of the PLX bridge"),
    "TEMP_SKIN": (65, "temperature of the skin"),
}
_INDEPENDENT: Mapping[int, str] = {bit: name for name, (bit, _) in _REASONS.items() if bit < 64}

_SMU_12_AND_13 = (
    "SPL FPPT SPPT SPPT_APU TEMP_CORE TEMP_GPU TEMP_SOC TDC_VDD TDC_SOC PROCHOT_CPU PROCHOT_GFX "
    "EDC_CPU EDC_GFX"
)
_HEAT = "- TEMP_EDGE TEMP_HOTSPOT TEMP_MEM TEMP_VR_GFX "
_HEAT_11 = _HEAT + "TEMP_VR_MEM0 TEMP_VR_MEM1 TEMP_VR_SOC TEMP_LIQUID0 TEMP_LIQUID1 TEMP_PLX "
_REST_11 = "TDC_GFX TDC_SOC PPT0 PPT1 PPT2 PPT3 FIT PPM APCC"
#: The bits of `throttle_status` from bit 0 on, by what the names of its chips begin with.
_DEPENDENT: Mapping[tuple[str, ...], str] = {
    ("Vega 12",): _HEAT + "TEMP_VR_MEM0 TEMP_LIQUID0 TEMP_PLX TEMP_SKIN TDC_GFX TDC_SOC PPT0 FIT "
    "PPM",
    ("Vega 20",): _HEAT + "TEMP_VR_SOC TEMP_VR_MEM0 TEMP_VR_MEM1 TEMP_LIQUID0 TEMP_PLX TEMP_SKIN "
    "TDC_GFX TDC_SOC PPT0 FIT PPM",
    ("Arcturus",): _HEAT + "TEMP_VR_MEM0 TEMP_VR_SOC TDC_GFX TDC_SOC PPT0 PPT1 PPT2 PPT3 PPM FIT "
    "APCC VRHOT0 VRHOT1",
    ("Aldebaran",): "PPT0 PPT1 TDC_GFX TDC_SOC TDC_MEM - TEMP_GPU TEMP_MEM - - - TEMP_VR_GFX "
    "TEMP_VR_SOC TEMP_VR_MEM0",
    ("Aqua Vanjaram", "MI3"): "PROCHOT_GFX PPT0 TEMP_GPU TEMP_VR_GFX TEMP_MEM",
    ("Navi 1",): _HEAT_11 + "TEMP_SKIN " + _REST_11,
    ("Navi 2",): _HEAT_11 + _REST_11,
    ("Van Gogh",): "SPL FPPT SPPT SPPT_APU TEMP_CORE TEMP_GPU TEMP_SOC TDC_VDD TDC_SOC TDC_GFX "
    "TDC_CVIP",
    (
        "Renoir", "Lucienne", "Cezanne", "Barcelo", "Rembrandt", "Raphael", "Granite Ridge",
        "Mendocino", "Phoenix", "Hawk",
    ): _SMU_12_AND_13,
}  # fmt: skip
#: The firmware of these sets the bit at any temperature, in idle too, so that it says nothing
#: (gitlab.freedesktop.org/drm/amd issue 3251, github.com/ROCm/rocm-systems issue 11781).
_ALWAYS_SET: Mapping[str, str] = {"navi3": "TEMP_HOTSPOT", "navi4": "TEMP_HOTSPOT"}


def throttle_reasons(bits: int, source: str, chip: str, family: str) -> tuple[str, ...] | None:
    """Why a card is held back, in the order of the bits; empty if it is not.

    `source` ends in the member that `bits` are from. None if bits are set that are the chip's own
    and not known for it. A bit without a known meaning is told by its number.
    """
    if source.endswith("indep_throttle_status"):
        names = _INDEPENDENT
    else:
        words = next((w for chips, w in _DEPENDENT.items() if chip.startswith(chips)), "")
        names = {bit: name for bit, name in enumerate(words.split()) if name != "-"}
        if bits and not names:
            return None
    ignored = _ALWAYS_SET.get(family)
    told = (names.get(bit, f"bit {bit}") for bit in range(bits.bit_length()) if bits >> bit & 1)
    return tuple(_in_words(name) for name in told if name != ignored)


def _in_words(name: str) -> str:
    _, words = _REASONS.get(name, (None, "without a known meaning"))
    return f"{words} ({name})"
