"""Tasks run while the cards are watched: what a card did, beside how fast the tasks went.

Most machines have no AMD card. There a recorded one stands in, or a made-up one where no recording
is at hand, and `Source` says so: figures of a stand-in must never pass for this machine's.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from cluster.spec import ClusterSpec
from perfkit.bench.goals.gpu import RECORDED, made_up_card
from perfkit.bench.workloads.load import ExperimentError, Submitter, Work, map_s
from perfkit.bench.workloads.served import model_work
from perfkit.engines import make_engine
from perfkit.evidence.recording import Recording
from perfkit.evidence.results import Result
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.gpu.base import GpuSample
from perfkit.gpu.discovery import DRM_ROOT, discover, no_card_text
from perfkit.gpu.sampler import GAP_MAX_S, GROUPS, GpuSampler

#: The recorded card that stands in unless another is named; it need not be there.
STAND_IN = RECORDED / "rx580"

#: (seconds since the first task, value); None is unknown.
Series: TypeAlias = Sequence[tuple[float, float | None]]


class Origin(StrEnum):
    """Whose card it is."""

    MACHINE = "this machine's"
    GIVEN = "given"
    RECORDED = "recorded"
    MADE_UP = "made up"


@dataclass(frozen=True)
class Source:
    """Where cards are read from; `missing` says why it is not the machine's own /sys/class/drm."""

    origin: Origin
    root: Path
    missing: str = ""

    @property
    def is_own(self) -> bool:
        """Whether figures are of a card in this machine."""
        return self.origin is Origin.MACHINE

    @property
    def may_change(self) -> bool:
        """Whether a driver may be behind the files; a stand-in's stay as they are."""
        return self.origin in (Origin.MACHINE, Origin.GIVEN)


@dataclass(frozen=True)
class Block:
    """One map: when it began and ended, in seconds since the first, and how many tasks it had."""

    began_s: float
    ended_s: float
    tasks: int

    @property
    def tasks_per_s(self) -> float:
        """Its throughput."""
        return self.tasks / (self.ended_s - self.began_s)


@dataclass(frozen=True)
class WatchedCard:
    """One card: a full sample after the run, and each watched field over time."""

    sample: GpuSample
    series: Mapping[str, Series]

    @property
    def key(self) -> str:
        """Its PCI address, or its number where the tree does not give one."""
        return self.sample.pci or self.sample.card


@dataclass(frozen=True)
class Watched:
    """A run of tasks with the cards beside it; `result` is its throughput."""

    source: Source
    cards: tuple[WatchedCard, ...]
    blocks: tuple[Block, ...]
    result: Result

    def energy_mj_per_task(self, card: WatchedCard) -> Interval:
        """Millijoules a task while tasks ran, over the blocks; of the whole card, idle power too.

        Unknown as soon as one block's energy is: power that nobody read is not guessed.
        """
        energy_j = [energy(card.series["power_w"], b.began_s, b.ended_s) for b in self.blocks]
        known = [joules for joules in energy_j if joules is not None]
        if len(known) < len(energy_j):
            return bootstrap_interval([])
        per_task = [1e3 * e / block.tasks for e, block in zip(known, self.blocks, strict=True)]
        return bootstrap_interval(per_task)


def resolved(path: str | Path) -> Path:
    """An absolute path; a relative one begins at the project, wherever a notebook works."""
    return (Path(__file__).parents[2] / Path(path).expanduser()).resolve()


@contextmanager
def find_cards(drm_root: str | Path, recorded: str | Path) -> Iterator[Source]:
    """The cards below `drm_root`, else the recorded one, else a made-up one.

    Raises ExperimentError for a folder that was named and is none, or has no card in it; only
    DRM_ROOT and STAND_IN may be missing.
    """
    root = resolved(drm_root)
    found = discover(root)
    own = root == DRM_ROOT.resolve()
    if not (own or root.is_dir()):
        raise ExperimentError(f"drm_root: {root} is not a folder; give what has card0 in it")
    if found.cards:
        yield Source(Origin.MACHINE if own else Origin.GIVEN, root)
        return
    missing = no_card_text(Path(drm_root), found.skipped)
    tree = resolved(recorded)
    if discover(tree).cards:
        yield Source(Origin.RECORDED, tree, missing)
    elif tree == resolved(STAND_IN):
        with made_up_card() as made_up:
            yield Source(Origin.MADE_UP, made_up, missing)
    else:
        raise ExperimentError(f"recorded: no AMD card below {tree}; give what has card0 in it")


def watch(
    spec: ClusterSpec,
    source: Source,
    *,
    model: str = "digits",
    workers: int = 2,
    tasks: int = 20_000,
    seconds: float = 10.0,
    seed: int = 0,
) -> Watched:
    """Serve a model in blocks of `tasks`, one after the other for so long, and watch the cards.

    The sampler's rings hold about a quarter of an hour; of a longer run the beginning is lost and
    its energy unknown. Raises what `model_work` raises, and WrongResult for a wrong answer.
    """
    work = model_work(model, tasks, seed)
    recording = Recording()
    with make_engine("zmq", workers=workers, spec=spec, models=work.models) as engine:
        map_s(engine, work)  # a warm-up
        sampler = GpuSampler(source.root)
        _read(sampler)
        with sampler:
            began_s = time.monotonic()
            blocks = tuple(_blocks(engine, work, began_s, seconds))
            _read(sampler)  # so that the last block's end lies between two readings
            samples = sampler.samples()
    cards = tuple(WatchedCard(sample, _series(sampler, sample, began_s)) for sample in samples)
    rates = [block.tasks_per_s for block in blocks]
    figure = bootstrap_interval(rates, seed=seed)
    result = recording.result(
        "gpu-run",
        spec,
        figure,
        "tasks/s",
        rates,
        workers=workers,
        tasks=sum(block.tasks for block in blocks),
        seed=seed,
        parameters={**work.facts, "model": model, "cards": source.origin.value},
        series=_columns(blocks, cards),
    )
    return Watched(source, cards, blocks, result)


def energy(power_w: Series, from_s: float, to_s: float) -> float | None:
    """Joules between two moments by the trapezoidal rule, power in between on straight lines.

    None if a reading it rests on is unknown, if none was taken before or after, or if two are
    further apart than GAP_MAX_S.
    """
    import numpy as np

    times = [at for at, _ in power_w]
    first, last = bisect_right(times, from_s) - 1, bisect_left(times, to_s)
    if first < 0 or last >= len(times):
        return None
    around = power_w[first : last + 1]
    watts = [value for _, value in around if value is not None]
    at_s = times[first : last + 1]
    if len(watts) < len(around) or any(b - a > GAP_MAX_S for a, b in pairwise(at_s)):
        return None
    inside = [from_s, *(at for at in at_s if from_s < at < to_s), to_s]
    return float(np.trapezoid(np.interp(inside, at_s, watts), inside))


def _blocks(engine: Submitter, work: Work, began_s: float, seconds: float) -> Iterator[Block]:
    """At least one block, and none that begins after `seconds`."""
    at_s = 0.0
    while True:
        yield Block(at_s, at_s + map_s(engine, work), len(work))
        at_s = time.monotonic() - began_s
        if at_s >= seconds:
            return


def _read(sampler: GpuSampler) -> None:
    for group in sampler.rates_hz:
        sampler.read(group)


def _series(sampler: GpuSampler, sample: GpuSample, began_s: float) -> dict[str, Series]:
    """Each watched field of a card, from its rows."""
    series: dict[str, Series] = {}
    for group in sampler.rates_hz:
        rows = sampler.rows(sample.pci or sample.card, group)
        for place, name in enumerate(GROUPS[group]):
            series[name] = [(row.monotonic_s - began_s, row.values[place]) for row in rows]
    return series


def _columns(
    blocks: Sequence[Block], cards: Sequence[WatchedCard]
) -> dict[str, list[float | None]]:
    """All of it as the columns of a saved result."""
    columns: dict[str, list[float | None]] = {
        "block_began_s": [block.began_s for block in blocks],
        "block_ended_s": [block.ended_s for block in blocks],
    }
    for card in cards:
        for name, points in card.series.items():
            columns[f"{card.key} {name} at_s"] = [at for at, _ in points]
            columns[f"{card.key} {name}"] = [value for _, value in points]
    return columns
