"""The parts of the notebook of cards: each says first whose card it shows.

A recorded card's figures do not change and a made-up card's were never measured, so neither makes a
headline, and each picture and table says whose card it shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.vocabulary.printable import count_of
from perfkit.bench.experiments.setting import is_full
from perfkit.bench.experiments.watched import Origin, Watched, WatchedCard, resolved
from perfkit.bench.goals.gpu import GOALS, PROFILES, GpuSizes
from perfkit.bench.goals.table import GoalTable
from perfkit.evidence.painting import Picture
from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.text import UNKNOWN, interval, measured, quantity
from perfkit.gpu.readings import CardReadings
from perfkit.gpu.rocprof import KernelProfile, TopKernels, read
from perfkit.gpu.sampler import Series
from perfkit.report.engine import headlines
from perfkit.report.figures.charts import Bar, Figure, bars_with_intervals
from perfkit.report.figures.panels import Panel, panels
from perfkit.report.stories.goals import goal_words, record_goals
from perfkit.report.stories.hot_paths import MIB
from perfkit.report.stories.views import FULL, Table, Words

if TYPE_CHECKING:
    import pandas as pd

TOP = 10
TEMPERATURES = {"edge": "temp_edge_c", "junction": "temp_junction_c", "memory": "temp_memory_c"}
LABELS = {
    Origin.MACHINE: "a card of this machine",
    Origin.GIVEN: "a card of the folder that was given",
    Origin.RECORDED: "a recorded card, not of this run",
    Origin.MADE_UP: "a made-up card, no card ever said this",
}
FLAT = "Its files do not change, so no line of it is drawn over time."


@dataclass(frozen=True)
class Shown(Showable):
    """Results and pictures, one below the other."""

    parts: tuple[Showable | Figure, ...]

    def to_frame(self) -> pd.DataFrame:
        """The DataFrame of the first table; without one, a row for each part in words."""
        words = Words(tuple(sheet.text for sheet in self._sheets()))
        return next(self._tables(), words).to_frame()

    def plot(self) -> Picture:
        """The first picture, or that of the first table."""
        drawn = (part for part in self.parts if isinstance(part, Figure))
        table = next(self._tables(), None)
        return next(drawn, None) or (table.plot() if table else super().plot())

    def _tables(self) -> Iterator[Showable]:
        return (it for it in self.parts if not isinstance(it, Figure | Words))

    def _sheets(self) -> Iterator[Sheet]:
        for part in self.parts:
            if isinstance(part, Figure):
                yield Sheet(part.alt)
            else:
                yield from part._sheets()

    def _repr_html_(self) -> str:
        return "".join(part._repr_html_() for part in self.parts)


def run_seconds(profile: str, seconds: float) -> float:
    """How long the tasks run; `full` takes FULL times as long."""
    return seconds * (FULL if is_full(profile) else 1)


def goal_sizes(profile: str) -> GpuSizes:
    """How much of watching is measured."""
    if is_full(profile):
        return PROFILES["full"]
    return GpuSizes(rounds=3, samples=1_000, watch_s=0.6)


def cards(watched: Watched) -> Shown:
    """Whose cards these are, and a sample of each at the end of the run."""
    caption = f"At the end of the run: {LABELS[watched.source.origin]}"
    samples = tuple(card.sample for card in watched.cards)
    return Shown((source_words(watched), CardReadings(samples, caption=caption)))


def source_words(watched: Watched) -> Words:
    """Where the cards were looked for, whose they are, and whether the tasks ran on one."""
    source = watched.source
    told = {
        Origin.MACHINE: f"The cards are this machine's, below {source.root}.",
        Origin.GIVEN: (
            f"The cards are those in {source.root.name}, given in place of the machine's own; "
            "copied files do not change, and then the lines are flat."
        ),
        Origin.RECORDED: (
            f"Instead a recorded card is shown, from {source.root.name}: files copied from a card "
            f"of another machine. {FLAT}"
        ),
        Origin.MADE_UP: (
            "Instead a made-up card is shown, to see what this page is like; no card ever had "
            f"these figures. {FLAT}"
        ),
    }
    none = [f"This machine has none to show: {source.missing}."] if source.missing else []
    return Words((*none, told[source.origin], _provider_words(watched)))


def pictures(watched: Watched) -> Shown:
    """A picture of each card."""
    return Shown(tuple(picture(watched, card) for card in watched.cards))


def picture(watched: Watched, card: WatchedCard) -> Figure:
    """One card over the task throughput, on one time axis; unknown values are gaps.

    Of a card whose files do not change there is nothing to see over time, so it has no lines.
    """
    series = card.series
    temperatures = {name: series[field] for name, field in TEMPERATURES.items()}
    known = {name: points for name, points in temperatures.items() if _known(points)}
    throughput = [(block.ended_s, block.tasks_per_s) for block in watched.blocks]
    tasks = Panel("tasks", "1/s", {"throughput": throughput})
    lines = [
        Panel(
            "busy",
            "%",
            {"core": series["gpu_busy_pct"], "memory controller": series["mem_busy_pct"]},
        ),
        Panel("VRAM used", "MiB", {"used": _scaled(series["vram_used_bytes"], 1 / MIB)}),
        Panel("power", "W", {"power": series["power_w"]}),
        Panel("temperature", "°C", known or {"edge": temperatures["edge"]}),
    ]
    label = LABELS[watched.source.origin]
    flat = "" if watched.source.may_change else f" {FLAT}"
    caption = f"{card.key}: {label}.{flat} The throughput beneath is this run's, block by block."
    rows = [*lines, tasks] if watched.source.may_change else [tasks]
    return panels(rows, title=f"{card.key}, {label}, over the throughput of tasks", caption=caption)


def energy(watched: Watched) -> Table:
    """Power and energy per task of each card, and how they were found."""
    rows = []
    for card in watched.cards:
        kind = card.sample.power_kind
        power = _range(card.series["power_w"], "W") + (f" ({kind.value})" if kind else "")
        rows.append((card.key, LABELS[watched.source.origin], power, _per_task(watched, card)))
    notes = [
        f"Medians over {count_of(len(watched.blocks), 'block')}, with 95 % intervals: the whole "
        "card's power, "
        "idle power too, while tasks ran. Unknown if one power is.",
    ]
    if not watched.source.is_own:
        notes.append(
            "No energy was measured here: a card with this power would have taken this much beside "
            "the tasks of this run."
        )
    header = ("card", "which is", "power", "energy per task")
    title = "Energy" if watched.source.is_own else "What the energy would be"
    return Table(title, tuple(rows), header, tuple(notes))


def kernels(rocprof: str | Path, peak_gb_per_s: float | None) -> Shown:
    """The kernels that took the most time, and their bandwidth beside the card's peak.

    `rocprof` is a profile, or several with commas between them. Without one it says how to give
    one. Raises RocprofError for a file that is no profile.
    """
    files = _files(rocprof)
    if not files:
        words = "No rocprof file was given, so no kernel is shown; give one with -p rocprof=FILE."
        return Shown((Words((words,)),))
    profile = read(*files)
    peak = None if peak_gb_per_s is None else peak_gb_per_s * 1e9
    top = profile.top_kernels(TOP, peak)
    parts: list[Showable | Figure] = [top] if top.kernels else []
    if any(kernel.bandwidth_bytes_per_s is not None for kernel in top.kernels):
        parts.append(bandwidths(top))
    return Shown((*parts, _kernel_words(profile, top)))


def _files(rocprof: str | Path) -> tuple[Path, ...]:
    """The file of this name, or the files between its commas."""
    if resolved(rocprof).is_file():
        return (resolved(rocprof),)
    return tuple(resolved(name.strip()) for name in str(rocprof).split(",") if name.strip())


def bandwidths(top: TopKernels) -> Figure:
    """Bandwidth of each kernel in GB/s, beside the card's peak if it is known."""
    peak = None if top.peak_bytes_per_s is None else top.peak_bytes_per_s / 1e9
    rows = []
    for kernel in top.kernels:
        bandwidth = kernel.bandwidth_bytes_per_s
        giga = None if bandwidth is None else bandwidth / 1e9
        rows.append(Bar(_short(kernel.name), giga, claim=peak))
    return bars_with_intervals(
        rows,
        "GB/s",
        claim="the card's peak",
        title="bandwidth of kernels",
        caption="Bytes fetched and written over time; unknown without their counters.",
    )


def record(out_dir: str | Path, watched: Watched, goals: GoalTable) -> None:
    """Save the throughput, the energy of own cards and each goal as headlines."""
    result = watched.result
    headlines.record(
        out_dir,
        "Task throughput, cards watched",
        result.value,
        result.unit,
        result.low,
        result.high,
        note=f"model {result.parameters['model']} on {result.parameters['provider']}",
    )
    note = f"not measured: {watched.source.missing or 'the cards were given as a folder'}"
    if not watched.source.is_own:
        headlines.record(out_dir, "Energy per task", None, "mJ", note=note)
    for card in watched.cards if watched.source.is_own else ():
        found = watched.energy_mj_per_task(card)
        title, note = f"Energy per task, {card.key}", "of the whole card while tasks ran"
        headlines.record(out_dir, title, found.value, "mJ", found.low, found.high, note=note)
    record_goals(out_dir, GOALS, goals, "gpu")


def verdict(watched: Watched, goals: GoalTable) -> Words:
    """What the cards and the tasks did, and which goals are met."""
    result = watched.result
    told = [
        f"The model {result.parameters['model']} was served at {result.figure_text} while the "
        "cards were watched, every answer checked."
    ]
    if watched.source.is_own:
        told += [_card_words(watched, card) for card in watched.cards]
    else:
        told.append(f"No card was measured: this page shows {LABELS[watched.source.origin]}.")
    return Words((*told, *goal_words(goals).sentences))


def _card_words(watched: Watched, card: WatchedCard) -> str:
    series = card.series
    hottest = [point for name in TEMPERATURES.values() for point in series[name]]
    return (
        f"{card.key}: busy {_range(series['gpu_busy_pct'], '%')}, VRAM "
        f"{_range(_scaled(series['vram_used_bytes'], 1 / MIB), 'MiB')}, power "
        f"{_range(series['power_w'], 'W')}, temperature {_range(hottest, '°C')}; energy per task "
        f"{_per_task(watched, card)}."
    )


def _per_task(watched: Watched, card: WatchedCard) -> str:
    found = watched.energy_mj_per_task(card)
    return measured(found.value, "mJ", found.low, found.high)


def _provider_words(watched: Watched) -> str:
    provider = str(watched.result.parameters["provider"])
    if provider.startswith("CPU"):
        return f"The tasks ran on {provider}; no card ran them."
    return f"The tasks ran on {provider}."


def _kernel_words(profile: KernelProfile, top: TopKernels) -> Words:
    told = [
        f"{profile.file} ({profile.format}): {profile.dispatches_text} dispatches of {top.names:,} "
        f"kernels, {count_of(len(profile.transfers), 'transfer')}. None of it is from this run."
    ]
    if top.kernels and top.peak_bytes_per_s is None:
        told.append("The card's peak is unknown; give it in GB/s with -p peak_gb_per_s=256.")
    if top.kernels and all(kernel.bandwidth_bytes_per_s is None for kernel in top.kernels):
        told.append("Bandwidth is unknown: the file lacks its times or its counters.")
    return Words((*told, *profile.notes))


def _known(points: Series) -> list[float]:
    return [value for _, value in points if value is not None]


def _scaled(points: Series, factor: float) -> list[tuple[float, float | None]]:
    return [(at, None if value is None else value * factor) for at, value in points]


def _range(points: Series, unit: str) -> str:
    """From the lowest to the highest value, and how many samples are unknown."""
    known = _known(points)
    if not known:
        return UNKNOWN
    low, high = min(known), max(known)
    text = quantity(high, unit) if low == high else interval(low, high, unit)
    lost = len(points) - len(known)
    return f"{text}, {lost} of {len(points)} samples unknown" if lost else text


def _short(name: str, longest: int = 36) -> str:
    """A kernel's name without its template arguments and parameters, which fill lines."""
    plain = name.partition("(")[0].partition("<")[0] or name
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"
