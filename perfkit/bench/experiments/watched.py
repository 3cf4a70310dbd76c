"""Tasks run while the cards are watched: what a card did, beside how fast the tasks went.

Most machines have no AMD card. There a recorded or a made-up one stands in, and `CardSource` says
so: figures of a stand-in must never pass for this machine's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cluster.spec import ClusterSpec
from perfkit.bench.workloads.load import ExperimentError, Submitter, Work, map_s
from perfkit.bench.workloads.served import model_work
from perfkit.engines import make_engine
from perfkit.evidence.results import Recording, Result
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.gpu.device.discovery import DRM_ROOT, discover, no_card_text
from perfkit.gpu.device.made_up import made_up_card
from perfkit.gpu.device.schema import GpuSample
from perfkit.gpu.sampler import GROUPS, GpuSampler, Series, energy_j


class Origin(StrEnum):
    """Whose card it is."""

    MACHINE = "this machine's"
    GIVEN = "given"
    RECORDED = "recorded"
    MADE_UP = "made up"


@dataclass(frozen=True)
class CardSource:
    """The folder of the cards; `missing` says why it is not the machine's own /sys/class/drm."""

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
class TaskBlock:
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

    source: CardSource
    cards: tuple[WatchedCard, ...]
    blocks: tuple[TaskBlock, ...]
    result: Result

    def energy_mj_per_task(self, card: WatchedCard) -> Interval:
        """Millijoules a task while tasks ran, over the blocks; of the whole card, idle power too.

        Unknown if one block's energy is: unknown power is not guessed.
        """
        per_task = []
        for block in self.blocks:
            joules = energy_j(card.series["power_w"], block.began_s, block.ended_s)
            if joules is None:
                return bootstrap_interval([])
            per_task.append(1e3 * joules / block.tasks)
        return bootstrap_interval(per_task)


def resolved(path: str | Path) -> Path:
    """An absolute path; a relative one begins at the project, in any working folder."""
    return (Path(__file__).parents[3] / Path(path).expanduser()).resolve()


@contextmanager
def find_cards(drm_root: str | Path, recorded: str | Path = "") -> Iterator[CardSource]:
    """The cards below `drm_root`, else the `recorded` one, else a made-up one.

    Raises ExperimentError for a folder that was named and does not exist or has no card; only
    DRM_ROOT may be missing.
    """
    root = resolved(drm_root)
    found = discover(root)
    own = root == DRM_ROOT.resolve()
    if not (own or root.is_dir()):
        raise ExperimentError(f"drm_root: {root} is not a folder; give what has card0 in it")
    if found.cards:
        yield CardSource(Origin.MACHINE if own else Origin.GIVEN, root)
        return
    missing = no_card_text(Path(drm_root), found.skipped)
    if not str(recorded):
        with made_up_card() as made_up:
            yield CardSource(Origin.MADE_UP, made_up, missing)
        return
    tree = resolved(recorded)
    if not discover(tree).cards:
        raise ExperimentError(f"recorded: no AMD card below {tree}; give what has card0 in it")
    yield CardSource(Origin.RECORDED, tree, missing)


def watch(
    spec: ClusterSpec,
    source: CardSource,
    *,
    model: str = "digits",
    workers: int = 2,
    tasks: int = 20_000,
    seconds: float = 10.0,
    seed: int = 0,
) -> Watched:
    """Serve a model in blocks of `tasks`, one after the other for `seconds`, and watch the cards.

    The sampler's rings hold about a quarter of an hour; a longer run loses its beginning, and its
    energy is unknown. Raises what `model_work` raises, and WrongResult for a wrong answer.
    """
    work = model_work(model, tasks, seed)
    recording = Recording()
    with make_engine("zmq", workers=workers, spec=spec, models=work.models) as engine:
        map_s(engine, work)  # a warm-up
        # Power is wanted of an idle card too.
        sampler = GpuSampler(source.root, let_sleep=False)
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


def _blocks(engine: Submitter, work: Work, began_s: float, seconds: float) -> Iterator[TaskBlock]:
    """At least one block, and none that begins after `seconds`."""
    at_s = 0.0
    while True:
        yield TaskBlock(at_s, at_s + map_s(engine, work), len(work))
        at_s = time.monotonic() - began_s
        if at_s >= seconds:
            return


def _read(sampler: GpuSampler) -> None:
    for group in sampler.rates_hz:
        sampler.read(group)


def _series(sampler: GpuSampler, sample: GpuSample, began_s: float) -> dict[str, Series]:
    """Each watched field of a card over time."""
    series: dict[str, Series] = {}
    for group in sampler.rates_hz:
        rows = sampler.rows(sample.pci or sample.card, group)
        for place, name in enumerate(GROUPS[group]):
            series[name] = [(row.monotonic_s - began_s, row.values[place]) for row in rows]
    return series


def _columns(
    blocks: Sequence[TaskBlock], cards: Sequence[WatchedCard]
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
