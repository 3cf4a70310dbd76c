"""What ``perfkit gpu`` shows people: a card in a few lines, the processes, and the live table.

The live table has a row for each card with the last minute of four figures, and below it why the
card needs a look, the worst first. An unknown value is a gap. Without a terminal it is a line for
each card and look.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.text import Text

from perfkit.cli.terminal.output import plain_table
from perfkit.evidence.text import quantity, size
from perfkit.gpu.device.schema import SAMPLED_FIELDS, CardState, GpuSample
from perfkit.gpu.probe import complaint
from perfkit.profile.activity.sparklines import RAMP, Series, sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfkit.gpu.sampler import GpuSampler

CELLS_MIN, CELLS_MAX = 4, 30
#: The columns of the live table, and how wide their figures get.
COLUMNS: Mapping[str, int] = {"busy": 5, "VRAM": 13, "power": 10, "hottest": 6}
#: The temperatures between which a sparkline is drawn if the card tells no critical one.
TEMPERATURE_FROM_C, TEMPERATURE_TO_C = 20.0, 110.0
BAD, WARNING, REMARK = "red", "yellow", "dim"
#: Fields of the live table, as people call them.
SHOWN: Mapping[str, str] = {
    "gpu_busy_pct": "busy", "vram_used_bytes": "VRAM", "power_w": "power",
    "hottest_c": "temperature",
}  # fmt: skip
#: Where the sampler has a column: the group and the place in its rows.
_PLACES = {
    "busy": ("activity", 0), "VRAM": ("activity", 1), "power": ("activity", 2),
}  # fmt: skip
LEFT_ALONE = "idle, and left alone so that it can fall asleep"
FOOT = "the last minute, newest at the right; Ctrl-C ends it"


@dataclass(frozen=True)
class Watched:
    """A card's newest sample, its last minute by column, and the sample that told its limits.

    A card that `rests` is idle, and the sampler does not ask it, so that it can fall asleep.
    """

    sample: GpuSample
    series: Mapping[str, Series]
    limits: GpuSample
    rests: bool = False

    @property
    def key(self) -> str:
        """Its PCI address, without the domain that nearly every machine has only one of."""
        return (self.sample.pci or self.sample.card).removeprefix("0000:")


class Watch:
    """The cards of a sampler from look to look."""

    def __init__(self, sampler: GpuSampler) -> None:
        self._sampler = sampler
        #: A card that sleeps or is gone tells no limits; these are its last.
        self._limits: dict[str, GpuSample] = {}

    def cards(self) -> list[Watched]:
        """Every card now; those that are gone, are being reset or are too hot come first."""
        cards = [self._card(key) for key in list(self._sampler.tracks)]
        return sorted(cards, key=lambda card: complaint(card.sample) is None)

    def _card(self, key: str) -> Watched:
        sample, series = self._sampler.sample(key), self._series(key)
        known = self._limits.get(key)
        if sample is None:
            nothing = GpuSample(card=key, name=known.name if known else None)
            return Watched(nothing, series, known or nothing, rests=True)
        if sample.state is CardState.ACTIVE:
            known = self._limits[key] = sample
        return Watched(sample, series, known or sample)

    def _series(self, key: str) -> dict[str, Series]:
        series: dict[str, Series] = {
            name: [(row.monotonic_s, row.values[place]) for row in self._sampler.rows(key, group)]
            for name, (group, place) in _PLACES.items()
        }
        series["hottest"] = [
            (row.monotonic_s, max((t for t in row.values[:3] if t is not None), default=None))
            for row in self._sampler.rows(key, "thermal")
        ]
        return series


def watched_samples(sampler: GpuSampler) -> list[GpuSample]:
    """A full sample of each card; one that is left alone has no values, and says why."""
    left_alone = dict.fromkeys(SAMPLED_FIELDS, LEFT_ALONE)
    return [
        sampler.sample(key) or replace(track.card.identity(), errors=left_alone)
        for key, track in list(sampler.tracks.items())
    ]


def reasons(card: Watched) -> Iterator[tuple[str, str]]:
    """Why a card needs a look, the worst first, each with its style."""
    sample = card.sample
    if card.rests:
        yield REMARK, LEFT_ALONE
        return
    if trouble := complaint(sample):
        yield BAD, trouble.removeprefix(f"{sample.pci or sample.card} is ")
    if sample.ras_uncorrected_n:
        yield BAD, f"{sample.ras_uncorrected_n:,} uncorrected errors"
    if sample.throttle_reasons:
        yield WARNING, f"throttled: {', '.join(sample.throttle_reasons)}"
    if sample.state is CardState.SUSPENDED:
        yield REMARK, "asleep, and not woken to be asked"
    if sample.state is CardState.ACTIVE:
        unknown = [word for name, word in SHOWN.items() if getattr(sample, name) is None]
        if unknown:
            yield REMARK, f"unknown: {', '.join(unknown)}"
        for name, word in SHOWN.items():
            if name in sample.errors and word not in unknown:
                yield REMARK, f"{word} doubtful: {sample.errors[name]}"


def live_table(cards: Sequence[Watched], width: int, now_s: float, ramp: str = RAMP) -> Text:
    """The cards as a table that fits `width`, two lines for each; in ASCII if the ramp is."""
    keys = max((len(card.key) for card in cards), default=0)
    fixed = keys + sum(COLUMNS.values()) + 3 * len(COLUMNS)
    cells = max(CELLS_MIN, min(CELLS_MAX, (width - fixed) // len(COLUMNS)))
    wide = {name: cells + 1 + figure for name, figure in COLUMNS.items()}
    head = "  ".join(["card".ljust(keys), *(name.rjust(wide[name]) for name in COLUMNS)])
    lines = [Text(head, "bold")]
    dropped = str.maketrans("", "", "°" if ramp.isascii() else "")
    for card in cards:
        line = Text().append(card.key.ljust(keys), "bold")
        figures = _figures(card.sample)
        for name, (low, high) in _scales(card.limits).items():
            drawn = sparkline(card.series[name], now_s, cells, low, high, ramp)
            figure = figures[name].translate(dropped)
            line.append(f"  {drawn}", "cyan").append(f" {figure.rjust(COLUMNS[name])}")
        lines.append(line)
        below = Text().append(f"  {card.sample.name or 'AMD card'}", "dim")
        for style, words in reasons(card):
            below.append("; ").append(words.translate(dropped), style)
        lines.append(below)
    lines.append(Text(FOOT, "dim"))
    for line in lines:
        line.truncate(width, overflow="crop" if ramp.isascii() else "ellipsis")
    return Text("\n").join(lines)


def plain_lines(cards: Sequence[Watched]) -> Text:
    """A line for each card, for a file or a pipe: time, figures, and why it needs a look."""
    clock = time.strftime("%H:%M:%S")
    return Text("\n").join(
        Text(
            "; ".join(
                (
                    f"{clock}  {card.sample.pci or card.sample.card}  "
                    + ", ".join(f"{name} {text}" for name, text in _figures(card.sample).items()),
                    *(words for _, words in reasons(card)),
                )
            )
        )
        for card in cards
    )


def _figures(sample: GpuSample) -> dict[str, str]:
    """The newest figures; an unknown one is a question mark."""
    used, total = (
        None if value is None else value / 2**30
        for value in (sample.vram_used_bytes, sample.vram_total_bytes)
    )
    cap = "" if sample.power_cap_w is None else f"/{sample.power_cap_w:.0f}"
    return {
        "busy": _figure(sample.gpu_busy_pct, unit=" %"),
        "VRAM": "?" if used is total is None else f"{_figure(used, 1)}/{_figure(total)} GiB",
        "power": _figure(sample.power_w, unit=f"{cap} W"),
        "hottest": _figure(sample.hottest_c, unit=" °C"),
    }


def _figure(value: float | None, digits: int = 0, unit: str = "") -> str:
    return "?" if value is None else f"{value:.{digits}f}{unit}"


def _scales(sample: GpuSample) -> dict[str, tuple[float, float | None]]:
    """Lowest and highest value of each sparkline."""
    limits_c = (sample.temp_junction_crit_c, sample.temp_edge_crit_c)
    top_c = next((limit for limit in limits_c if limit is not None), TEMPERATURE_TO_C)
    return {
        "busy": (0.0, 100.0),
        "VRAM": (0.0, sample.vram_total_bytes),
        "power": (0.0, sample.power_cap_w),
        "hottest": (TEMPERATURE_FROM_C, top_c),
    }


def card_lines(sample: GpuSample) -> list[Text]:
    """A card in a few lines, and what is doubtful of it."""
    head = [sample.name or "AMD card", sample.driver or "no driver", sample.state.value]
    lines = [Text.assemble((sample.pci or sample.card, "bold"), f"  {', '.join(head)}")]
    lines += [Text(f"  {line}") for line in (*_main_lines(sample), *_more_lines(sample))]
    for name, why in sample.errors.items():
        if getattr(sample, name) is not None:
            lines.append(Text(f"  {name} is doubtful: {why}", "dim"))
    if any(getattr(sample, name) is None for name in sample.errors):
        lines.append(Text("  --json tells why the rest is unknown", "dim"))
    return lines


def _main_lines(sample: GpuSample) -> list[str]:
    kind = f" ({sample.power_kind.value})" if sample.power_kind else ""
    width = "" if sample.pcie_width is None else f".0 x{sample.pcie_width}"
    return [
        f"busy {quantity(sample.gpu_busy_pct, '%')}, memory controller "
        f"{quantity(sample.mem_busy_pct, '%')}; VRAM {size(sample.vram_used_bytes)} of "
        f"{size(sample.vram_total_bytes)}, GTT {size(sample.gtt_used_bytes)}",
        f"core {quantity(sample.sclk_hz, 'MHz', 1e-6)}, memory "
        f"{quantity(sample.mclk_hz, 'MHz', 1e-6)}, {quantity(sample.voltage_mv, 'mV')}; power "
        f"{quantity(sample.power_w, 'W')}{kind} of {quantity(sample.power_cap_w, 'W')}",
        f"edge {quantity(sample.temp_edge_c, '°C')}, junction "
        f"{quantity(sample.temp_junction_c, '°C')}, memory {quantity(sample.temp_memory_c, '°C')}; "
        f"fan {quantity(sample.fan_rpm, 'rpm')}; PCIe {quantity(sample.pcie_gen)}{width}",
    ]


def _more_lines(sample: GpuSample) -> Iterator[str]:
    """What only some cards tell, where it is known."""
    parts = []
    if sample.throttle_reasons is not None:
        words = ", ".join(sample.throttle_reasons)
        parts.append(f"throttled: {words}" if words else "not throttled")
    errors = {"corrected": sample.ras_corrected_n, "uncorrected": sample.ras_uncorrected_n}
    if told := [f"{n:,} {kind}" for kind, n in errors.items() if n is not None]:
        parts.append(f"errors {', '.join(told)}")
    divided = {"compute": sample.compute_partition, "memory": sample.memory_partition}
    if told := [f"{kind} {mode}" for kind, mode in divided.items() if mode is not None]:
        parts.append(f"partitions {', '.join(told)}")
    if sample.energy_j is not None:
        parts.append(f"energy {quantity(sample.energy_j, 'J')}")
    if parts:
        yield "; ".join(parts)


class ProcessWatch:
    """The processes that use a card, from look to look."""

    def __init__(self) -> None:
        self._engine_ns: dict[tuple[int, str], Mapping[str, int]] = {}
        self._at_s = 0.0

    def views(self, now_s: float) -> list[RenderableType]:
        """The table of the processes, and what could not be seen of them.

        It has the time of each engine at first, and later its share since the look before.
        """
        from perfkit.gpu.processes import fdinfo
        from perfkit.gpu.readings import processes_sheet

        seen = fdinfo.look()
        elapsed_ns = (now_s - self._at_s) * 1e9 if self._at_s else None
        sheet = processes_sheet(seen, self._engine_ns, elapsed_ns)
        self._engine_ns = {(use.pid, use.pci): use.engine_ns for use in seen.uses}
        self._at_s = now_s
        table = plain_table(*sheet.header, left=("card", "process", *sheet.header[-1:]))
        for row in sheet.rows:
            table.add_row(*map(Text, row))
        shown = table if sheet.header else Text(sheet.caption)
        return [Text(), shown, *(Text(text, "dim") for text in sheet.notes)]
