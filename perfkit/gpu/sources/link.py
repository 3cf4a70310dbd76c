"""The PCIe link between a card and its slot.

Vega and Navi cards have a PCIe switch of their own, and their device shows the link inside the
card, which is always fast. The slot's link is that of the switch's upstream port, a bridge above
the device. Where the bus does not show it (a virtual machine, a recording), the marked row of
`pp_dpm_pcie` and then `gpu_metrics` tell it, which the driver reads from the card. Older chips have
no switch, and their `pp_dpm_pcie` has fixed lanes (smu7_hwmgr.c), so there the device comes first.
An APU has no slot either way: what its device shows is a link inside the chip, and is noted so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from perfkit.gpu.device.chips import Chip
from perfkit.gpu.device.record import PADDING, PORT, DeviceRecord
from perfkit.gpu.device.schema import Found, Number, Trouble, check
from perfkit.gpu.sources.gpu_metrics import parse_metrics
from perfkit.gpu.sources.sysfs import Candidate, parse_field, parse_level, scaled

#: Families whose cards have no switch, and those whose cards have one; others may.
_SWITCHLESS = frozenset({"si", "ci", "vi", "polaris"})
_SWITCHED = frozenset({"vega", "navi1", "navi2", "navi3", "navi4"})
_SPEED = re.compile(rb"(\d{1,3}(?:\.\d+)?) GT/s(?: PCIe)?", re.IGNORECASE)
#: `8.0GT/s, x16 619Mhz *`; old drivers wrote `8.0GB, x16 *`.
_LEVEL = re.compile(
    rb"\s*\d{1,3}\s*:\s*(\d{1,3}(?:\.\d+)?)\s*G(?:T/s|B(?:/s)?),?\s*x(\d{1,2})(?:\s+\d+\s*MHz)?\s*(\*)[^*\d]*",
    re.IGNORECASE,
)


def parse_speed(raw: bytes) -> float:
    """A link's speed in GT/s per lane, as `8.0 GT/s PCIe`; raises ValueError."""
    text = raw.rstrip(PADDING)
    match = _SPEED.fullmatch(text)
    if match is None:
        raise ValueError(f"not a link speed: {text[:20]!r}")
    return check("pcie_speed_gts", float(match[1]))


_OWN: Mapping[str, Candidate] = {
    "pcie_speed_gts": Candidate("current_link_speed", parse_speed),
    "pcie_width": Candidate("current_link_width", scaled("pcie_width")),
}
_PORT = {name: own._replace(file=PORT + own.file) for name, own in _OWN.items()}
_TABLE: Mapping[str, Candidate] = {
    "pcie_speed_gts": Candidate("pp_dpm_pcie", lambda raw: parse_level(raw, _LEVEL)[0]),
    "pcie_width": Candidate("pp_dpm_pcie", lambda raw: int(parse_level(raw, _LEVEL)[1])),
}


def link_candidates(record: DeviceRecord, name: str, chip: Chip | None) -> Iterator[Candidate]:
    """The files that may have a field of the slot's link, most trusted first."""
    if name not in _OWN:
        return
    if chip is not None and (chip.is_apu or chip.family in _SWITCHLESS):
        yield _OWN[name]
    elif record.files.port is not None:
        yield _PORT[name]
    yield _TABLE[name]


def parse_link(
    record: DeviceRecord, wanted: Collection[str], found: Found, chip: Chip | None, is_apu: bool
) -> None:
    """Add the slot's link, and a note where two sources disagree about it."""
    for name in _OWN:
        if name not in wanted:
            continue
        files = [_OWN[name]] if is_apu else list(link_candidates(record, name, chip))
        parse_field(name, files, record, found)
        if is_apu and name in found.values:
            found.troubles[name] = Trouble("an APU has no slot; this is a link inside the chip")
        elif not is_apu and (chip is None or chip.family not in _SWITCHLESS):
            _compare(record, name, found, chip is not None and chip.family in _SWITCHED)


def _compare(record: DeviceRecord, name: str, found: Found, has_switch: bool) -> None:
    """Take what `gpu_metrics` says where no file tells, and note what differs from the value."""
    metrics = Found()
    parse_metrics(record, [name], metrics)
    if name in metrics.values:
        found.values.setdefault(name, metrics.values[name])
    own = _value(record, _OWN[name])
    if name not in found.values and own is not None:
        if has_switch:
            text = f"{_OWN[name].source}: {own:g}, which is the link inside the card"
            found.troubles[name] = Trouble(text)
            return
        found.put(name, own, _OWN[name].source)
    if name not in found.values:
        return
    taken = found.values[name]
    others = {_TABLE[name].source: _value(record, _TABLE[name])}
    others |= {value.source: value.value for value in metrics.values.values()}
    if record.files.port is None:
        others[f"{_OWN[name].source}, which may be inside the card,"] = own
    differ = [f"{source} {v:g}" for source, v in others.items() if v not in (None, taken.value)]
    if differ:
        text = f"{taken.source} says {taken.value:g}, {', '.join(differ)}"
        found.troubles[name] = Trouble(text)


def _value(record: DeviceRecord, candidate: Candidate) -> Number | None:
    with suppress(OSError, ValueError):
        return candidate.parse(record[candidate.file])
    return None
