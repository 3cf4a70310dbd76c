"""What a sample's values say together, in words: why a card is throttled, and a doubtful 100 %."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perfkit.gpu.device.record import DeviceRecord
from perfkit.gpu.metrics.throttle import throttle_reasons

#: Utilisation from here on is doubted on a card that is idle by clock and power: the firmware of
#: some Raven, Picasso and others says 100 % for ever (gitlab.freedesktop.org/drm/amd issue 1932).
PINNED_PCT = 99
#: Idle is the lowest level's clock and this share of the power cap. Without levels or a cap, as on
#: most APUs, these count.
IDLE_CAP_SHARE = 0.2
IDLE_HZ = 300_000_000
IDLE_W = 10

_LEVEL = re.compile(r"^\s*\d{1,3}\s*:\s*(\d{1,7})\s*M[Hh]z", re.MULTILINE | re.ASCII)


def explain(values: dict[str, Any], record: DeviceRecord, chip: str, family: str) -> None:
    """Add why the card is throttled, and doubts, to the fields of a sample and their `errors`.

    `chip` and `family` are the chip's, empty if unknown.
    """
    source, errors = values["source"], values["errors"]
    bits = values.get("throttle_bits")
    if bits is not None:
        reasons = throttle_reasons(bits, source["throttle_bits"], chip, family)
        values["throttle_reasons"] = reasons
        if reasons is None:
            text = f"{source['throttle_bits']}: {bits:#x}, which is not documented for this chip"
            errors["throttle_reasons"] = text
    for name in ("gpu_busy_pct", "gpu_busy_avg_pct"):
        if values.get(name, 0) >= PINNED_PCT and (signs := _idle_signs(values, record)):
            text = f"{source[name]} says {values[name]:g} % at {signs}, which is idle"
            errors.setdefault(name, text)


def _idle_signs(values: Mapping[str, Any], record: DeviceRecord) -> str:
    """The clock and power of an idle card in words; empty if one of them shows work, or neither is
    known.
    """
    clock, power, cap = (values.get(name) for name in ("sclk_hz", "power_w", "power_cap_w"))
    signs = []
    if clock is not None:
        levels = _LEVEL.findall(record.text("pp_dpm_sclk") or "")
        if clock > min((int(mhz) * 1_000_000 for mhz in levels), default=IDLE_HZ):
            return ""
        signs.append(f"{clock / 1e6:.0f} MHz")
    if power is not None:
        if power > (IDLE_W if cap is None else cap * IDLE_CAP_SHARE):
            return ""
        signs.append(f"{power:.1f} W")
    return " and ".join(signs)
