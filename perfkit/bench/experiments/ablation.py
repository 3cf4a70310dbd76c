"""What each idea is worth: predicted from the profile, then measured beside what it builds on.

The prediction is Amdahl's: an idea that touches a share *s* of the coordinator's work and leaves a
part *r* of it makes the whole 1 / (1 - s + s·r) times as fast. An unknown *r* is taken as 0, which
makes the prediction a ceiling. It is made before the measurement, from the baseline's profile and
from counts, and assumes that the coordinator is the bottleneck: an idea that also saves work in
clients and workers may beat it, one that only moves a wait will not reach it.

All specs take turns, each block on fresh processes, and the baseline has a second arm, the A/A
control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import msgspec
import psutil

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.task import Requirements
from perfkit.bench.counts.costs import messages_per_task
from perfkit.bench.counts.headers import codec_us
from perfkit.bench.counts.selection import measure_selection
from perfkit.bench.experiments.shares import (
    CHOICE,
    CODEC,
    ELIGIBLE,
    QUEUE,
    SOCKETS,
    TURN,
    Part,
    share,
)
from perfkit.bench.workloads.load import Work, echo_work, map_s, rate_and_cpu_us
from perfkit.bench.workloads.rounds import Say, prefixed, take_turns
from perfkit.evidence.results import Recording, Result
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.stats import Comparison, compare_blocks
from perfkit.optimized.specs import ABLATIONS, LADDER, OPTIMIZED, SPECS
from perfkit.profile.cpu import CpuProfile

#: The name of the baseline's second arm.
AGAIN = "baseline again"
#: The figure that is compared: a rate.
FIGURE = "per_s"
FIRST_TASKS = 250
CODEC_TASKS, CODEC_ROUNDS = 2_000, 3
NEEDED = Requirements(min_vram_bytes=4 << 30, gpu_family="polaris")

#: Figures of one arm, block by block.
Blocks: TypeAlias = Mapping[str, Sequence[float]]
#: Runs one block on a spec and returns its figures by name.
Workload: TypeAlias = Callable[[ClusterSpec], Mapping[str, float]]
#: A running cluster of a spec, with a client.
Clusters: TypeAlias = Callable[[ClusterSpec], AbstractContextManager[tuple[LocalCluster, Client]]]


@dataclass(frozen=True)
class Idea:
    """One idea of the plan: the spec that has it, the spec it is compared with, what it touches.

    `touches` is None if no profile of busy time can tell. `left` says in words which part of the
    share is assumed to remain; `counted_by` names the count that this part follows from.
    """

    name: str
    touches: Part | None
    left: str = "nothing (a ceiling)"
    against: str = BASELINE.name
    counted_by: str = ""

    @property
    def spec(self) -> ClusterSpec:
        """The spec with this idea alone."""
        return ABLATIONS[self.name]

    @property
    def kept(self) -> bool:
        """Whether OPTIMIZED has it, in this form or, for a number, at least as much of it."""
        for name in self.spec.__struct_fields__:
            plain, ours, theirs = (getattr(it, name) for it in (BASELINE, self.spec, OPTIMIZED))
            more = isinstance(ours, int) and isinstance(theirs, int) and theirs >= ours
            if ours not in (plain, theirs) and not more and name not in ("name", "policies"):
                return False
        return True


MESSAGES, CODEC_COST = "messages per task", "codec µs per task"
#: What fewer messages leave of the work per message is counted, not guessed.
IDEAS: tuple[Idea, ...] = (
    Idea("capability-cache", ELIGIBLE),
    Idea("load-scores", CHOICE),
    Idea("priority-queue", QUEUE),
    Idea("batch-assignment", TURN, f"as its {MESSAGES}", counted_by=MESSAGES),
    Idea("packed-codec", CODEC, f"as its {CODEC_COST}", counted_by=CODEC_COST),
    Idea("zero-copy", SOCKETS, "all: no frame of this load is large"),
    Idea("pooling", CODEC, f"as its {CODEC_COST}", "packed-codec", CODEC_COST),
    Idea("fewer-handshakes", TURN, f"as its {MESSAGES}", counted_by=MESSAGES),
    Idea("socket-tuning", SOCKETS),
    Idea("pipelining", None, "unknown: it hides a wait, which is not in a profile of work"),
)


@dataclass(frozen=True)
class IdeaResult:
    """An idea's predicted factor, with its interval over profiles, and the measured one."""

    idea: Idea
    share: Interval
    left: float | None
    predicted: Interval
    measured: Comparison


@dataclass(frozen=True)
class Rung:
    """One spec between the baseline and the optimised: its figure, and its gain so far."""

    name: str
    figure: Interval
    gain: Comparison | None


@dataclass(frozen=True)
class Study:
    """Specs under one load, block by block, side by side; `results` holds the same as files.

    `figures` holds each figure's blocks by spec; AGAIN is the baseline's second arm.
    """

    load: str
    figures: Mapping[str, Blocks]
    results: Mapping[str, Result]
    seed: int

    def compared(self, name: str, against: str = BASELINE.name) -> Comparison:
        """A spec against another by FIGURE, with the baseline's two arms as the A/A control."""
        control = self._ratio(BASELINE.name, AGAIN)
        found = self._ratio(against, name, AGAIN if against == BASELINE.name else None)
        # The control is the baseline's for every comparison.
        aa = {"aa_ratio": control.ratio, "aa_low": control.low, "aa_high": control.high}
        return msgspec.structs.replace(found, **aa)

    def _ratio(self, a: str, b: str, again: str | None = None) -> Comparison:
        below, above = (self.figures[arm][FIGURE] for arm in (a, b))
        control = None if again is None else self.figures[again][FIGURE]
        return compare_blocks(below, above, control, direction="higher", seed=self.seed)


def predict(
    idea: Idea, profiles: Sequence[CpuProfile], counts: Mapping[str, Mapping[str, float | None]]
) -> tuple[Interval, float | None, Interval]:
    """The idea's share of the profiles of `Idea.against`, the part it leaves, and the factor.

    `counts` has, by spec, the counts per task that `Idea.counted_by` names. Without a profile or a
    count the values are unknown.
    """
    if idea.touches is None:
        return bootstrap_interval([]), None, bootstrap_interval([])
    found = [share(profile, idea.touches) for profile in profiles]
    shares = [value for value in found if value is not None]
    left: float | None = 1.0 if idea.left.startswith("all") else 0.0
    if idea.counted_by:
        ours = counts.get(idea.name, {}).get(idea.counted_by)
        theirs = counts.get(idea.against, {}).get(idea.counted_by)
        left = ours / theirs if ours is not None and theirs else None
    factors = [] if left is None else [amdahl(value, left) for value in shares]
    known = [factor for factor in factors if factor is not None]
    return bootstrap_interval(shares), left, bootstrap_interval(known)


def amdahl(touched: float, left: float) -> float | None:
    """The speed-up of a whole of which the share `touched` shrinks to a part `left` of itself.

    None if nothing would remain. G. M. Amdahl, "Validity of the single processor approach", AFIPS
    1967.
    """
    remaining = 1.0 - touched + touched * left
    return 1.0 / remaining if remaining > 0 else None


def study(
    name: str,
    load: Workload,
    specs: Sequence[ClusterSpec],
    *,
    unit: str,
    blocks: int = 8,
    workers: int = 2,
    seed: int = 0,
    progress: Say | None = None,
) -> Study:
    """Run `blocks` blocks of a load on the specs, the first of them twice, in turns.

    Specs that differ only in their names share an arm. The order within a block is drawn from the
    seed, and every other block is the reverse of the one before.
    """
    recording = Recording()
    arms = {specs[0].name: specs[0], AGAIN: specs[0]} | {spec.name: spec for spec in specs}
    twins = _twins(arms)
    turns = {arm: partial(load, spec) for arm, spec in arms.items() if arm not in twins}
    samples = take_turns(turns, blocks, seed, unit, prefixed(progress, name), warm=False)
    found = {
        arm: {figure: by_arm[twins.get(arm, arm)] for figure, by_arm in samples.items()}
        for arm in arms
    }
    results = {
        arm: recording.result(
            f"ablation {name}",
            arms[arm],
            bootstrap_interval(figures[FIGURE], seed=seed),
            unit,
            figures[FIGURE],
            workers=workers,
            tasks=None,
            seed=seed,
            parameters={"arm": arm, "blocks": blocks},
            series={figure: [*values] for figure, values in figures.items()},
        )
        for arm, figures in found.items()
    }
    return Study(name, found, results, seed)


@contextmanager
def clusters(workers: int, *, fresh: bool) -> Iterator[Clusters]:
    """Makes clusters for the blocks of a study: a fresh one for each block, or one for each spec.

    A kept cluster saves its start, a second a block, and is idle while other specs have their turn.
    """
    with ExitStack() as stack:
        kept: dict[str, tuple[LocalCluster, Client]] = {}

        @contextmanager
        def running(spec: ClusterSpec) -> Iterator[tuple[LocalCluster, Client]]:
            if fresh:
                with LocalCluster(workers, spec) as local, local.client() as client:
                    yield local, client
                return
            if spec.name not in kept:
                local = stack.enter_context(LocalCluster(workers, spec))
                kept[spec.name] = local, stack.enter_context(local.client())
            yield kept[spec.name]

        yield running


def mapping(work: Work, running: Clusters, block_s: float) -> Workload:
    """A load: tasks per second of a map, and the coordinator's CPU per task.

    The number of tasks that last about `block_s` seconds is found once for each spec, so that all
    its blocks are alike; a quarter of them runs first as warm-up.
    """
    amounts: dict[str, int] = {}

    def block(spec: ClusterSpec) -> dict[str, float]:
        with running(spec) as (local, client):
            drive = partial(map_s, client)
            if spec.name not in amounts:
                amounts[spec.name] = _amount(drive, work, block_s)
            counted = work.part(0, amounts[spec.name])
            drive(work.part(0, max(1, len(counted) // 4)))
            rate, cpu_us = rate_and_cpu_us(drive, counted, psutil.Process(local.coordinator_pid))
        return {FIGURE: rate, "cpu_us": cpu_us}

    return block


def _amount(map_s: Callable[[Work], float], work: Work, block_s: float) -> int:
    """The number of tasks that take `block_s`, by maps that double until they take a third of it.

    Of two equal maps the quicker one counts: a hiccup must not make all blocks short.
    """
    tasks = min(FIRST_TASKS, len(work))
    while True:
        part = work.part(0, tasks)
        took_s = min(map_s(part), map_s(part))
        if took_s >= block_s / 3 or tasks == len(work):
            return max(1, min(len(work), round(tasks * block_s / took_s)))
        tasks = min(2 * tasks, len(work))


def choosing(workers: int, choices: int, seed: int) -> Workload:
    """A load: choices per second among many made-up workers, in this process, with requirements."""

    def block(spec: ClusterSpec) -> dict[str, float]:
        found = measure_selection(
            spec, workers=workers, choices=choices, seed=seed, requirements=NEEDED
        )
        return {FIGURE: 1e6 / found.value} if found.value else {}

    return block


def climb(found: Study) -> list[Rung]:
    """The baseline, its second arm, and every rung of LADDER, each compared with the baseline."""
    rungs = []
    for name in (BASELINE.name, AGAIN, *(spec.name for spec in LADDER[1:])):
        gain = None if name == BASELINE.name else found.compared(name)
        figure = bootstrap_interval(found.figures[name][FIGURE], seed=found.seed)
        rungs.append(Rung(name, figure, gain))
    return rungs


def compare_ideas(
    found: Study,
    profiles: Mapping[str, Sequence[CpuProfile]],
    counts: Mapping[str, Mapping[str, float | None]],
) -> list[IdeaResult]:
    """Every idea's prediction, from the profiles of `Idea.against`, beside its blocks."""
    return [
        IdeaResult(
            idea,
            *predict(idea, profiles[idea.against], counts),
            found.compared(idea.name, idea.against),
        )
        for idea in IDEAS
    ]


def count_for_ideas(seed: int) -> dict[str, dict[str, float | None]]:
    """The counts behind the predictions, by spec: of each idea and of `Idea.against`."""
    counted: dict[str, dict[str, float | None]] = {}
    work = echo_work(CODEC_TASKS, seed)
    for idea in IDEAS:
        for name in (idea.name, idea.against):
            spec, known = SPECS[name], counted.setdefault(name, {})
            if idea.counted_by == CODEC_COST and CODEC_COST not in known:
                known[CODEC_COST] = min(codec_us(spec, work) for _ in range(CODEC_ROUNDS))
            elif idea.counted_by == MESSAGES and MESSAGES not in known:
                known[MESSAGES] = messages_per_task(spec)
    return counted


def study_specs() -> list[ClusterSpec]:
    """The specs of a study of the ideas: the baseline, each idea alone, and the ladder."""
    return [BASELINE, *(idea.spec for idea in IDEAS), *LADDER[1:]]


def _twins(arms: Mapping[str, ClusterSpec]) -> dict[str, str]:
    """Arms that need not run, each with the arm that differs only in its name."""
    first: dict[ClusterSpec, str] = {}
    twins = {}
    for name, spec in arms.items():
        if name == AGAIN:
            continue
        bare = msgspec.structs.replace(spec, name="arm")
        if bare in first:
            twins[name] = first[bare]
        first.setdefault(bare, name)
    return twins
