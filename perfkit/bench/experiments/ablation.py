"""What each idea is worth: predicted from the profile, then measured beside what it builds on.

The prediction is Amdahl's: an idea that touches a share *s* of the coordinator's work and leaves a
part *r* of it makes the whole 1 / (1 - s + s·r) times as fast. Where nothing says how much is left,
*r* is 0 and the prediction is a ceiling. It is made before the measurement, from the baseline's
profile and from counts, and takes the coordinator for what everybody waits for: an idea that also
spares the clients and the workers something may beat it, one that only moves a wait will not reach
it.

All specs take turns, each block on fresh processes, and the baseline has a second arm: what it
differs from the first by is what the machine does to identical code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from string import ascii_letters

import msgspec
import psutil

from cluster.local import LocalCluster
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
from perfkit.bench.workloads.load import Work, echo_work, map_s
from perfkit.evidence.recording import Recording
from perfkit.evidence.results import Result
from perfkit.evidence.stats import (
    Comparison,
    Interval,
    abba,
    bootstrap_interval,
    compare_blocks,
)
from perfkit.optimized.specs import ABLATIONS, LADDER, OPTIMIZED, SPECS
from perfkit.profile.cpu import CpuProfile

#: The name of the baseline's second arm.
AGAIN = "baseline again"
#: What is compared: how many of something a second.
FIGURE = "per_s"
FIRST_TASKS = 250
CODEC_TASKS, CODEC_ROUNDS = 2_000, 3
NEEDED = Requirements(min_vram_bytes=4 << 30, gpu_family="polaris")

#: Figures of one arm, block by block; the first of them is the one that is compared.
Blocks = Mapping[str, Sequence[float]]
#: One block of one spec, on whatever it needs: figures by name.
Load = Callable[[ClusterSpec], Mapping[str, float]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Idea:
    """One idea of the plan: the spec that has it, what it is held `against`, what it touches.

    `touches` None means that no profile of busy time can tell, and `left` says in words what is
    taken to be left of the share ("nothing", or what the remaining part is counted by).
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
        return all(
            name == "policies"
            or ours == theirs
            or (isinstance(ours, int) and isinstance(theirs, int) and theirs >= ours)
            for name, ours, theirs in _changes(self.spec)
        )


MESSAGES, CODEC_COST = "messages per task", "codec µs per task"
#: What is left of the work for a message when there are fewer messages is counted, not guessed.
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
    """An idea's predicted gain, a factor with its interval over profiles, and the measured one."""

    idea: Idea
    share: Interval
    left: float | None
    predicted: Interval
    measured: Comparison


@dataclass(frozen=True)
class Rung:
    """One spec on the way from the baseline to the optimised: its figure, and its gain so far."""

    name: str
    figure: Interval
    gain: Comparison | None


@dataclass(frozen=True)
class Study:
    """What specs did under one load, block by block, side by side; `results` is the same as files.

    `figures` holds by spec each figure's blocks; AGAIN is the baseline's second arm.
    """

    load: str
    figures: Mapping[str, Blocks]
    results: Mapping[str, Result]
    seed: int

    def compared(self, name: str, against: str = BASELINE.name) -> Comparison:
        """A spec against another by FIGURE, with the control that the baseline's two arms are."""
        of, figures = partial(_ratio, seed=self.seed), self.figures
        control = of(figures[BASELINE.name], figures[AGAIN])
        found = of(
            figures[against], figures[name], figures[AGAIN] if against == BASELINE.name else None
        )
        # The control is the baseline's, whichever spec another is held against.
        aa = {"aa_ratio": control.ratio, "aa_low": control.low, "aa_high": control.high}
        return msgspec.structs.replace(found, **aa)


def predict(
    idea: Idea, profiles: Sequence[CpuProfile], counts: Mapping[str, Mapping[str, float | None]]
) -> tuple[Interval, float | None, Interval]:
    """The idea's share of the profiles of what it is held against, what it leaves, and the factor.

    `counts` has by spec the counts per task that `Idea.counted_by` names. Unknown where the profile
    or a count is.
    """
    unknown = bootstrap_interval([])
    if idea.touches is None:
        return unknown, None, unknown
    found = [share(profile, idea.touches) for profile in profiles]
    shares = [value for value in found if value is not None]
    left: float | None = 1.0 if idea.left.startswith("all") else 0.0
    if idea.counted_by:
        ours = counts.get(idea.name, {}).get(idea.counted_by)
        theirs = counts.get(idea.against, {}).get(idea.counted_by)
        left = ours / theirs if ours is not None and theirs else None
    if left is None:
        return bootstrap_interval(shares), None, unknown
    factors = [amdahl(value, left) for value in shares]
    known = [factor for factor in factors if factor is not None]
    return bootstrap_interval(shares), left, bootstrap_interval(known)


def amdahl(touched: float, left: float) -> float | None:
    """How many times as fast a whole gets of which a share is cut to a part `left` of itself.

    None where nothing would be left: no factor is that large. G. M. Amdahl, "Validity of the single
    processor approach", AFIPS 1967.
    """
    remaining = 1.0 - touched + touched * left
    return 1.0 / remaining if remaining > 0 else None


def study(
    name: str,
    load: Load,
    specs: Sequence[ClusterSpec],
    *,
    unit: str,
    blocks: int = 8,
    workers: int = 2,
    seed: int = 0,
    progress: Say | None = None,
) -> Study:
    """Run a load on the specs, the first of them twice, in turns, `blocks` blocks of each.

    Specs that are the same but for their names share an arm. The order within a block is drawn from
    the seed, and every other block is the reverse of the one before.
    """
    recording = Recording()
    arms = {specs[0].name: specs[0], AGAIN: specs[0]} | {spec.name: spec for spec in specs}
    twins = _twins(arms)
    letters = dict(zip(ascii_letters, (arm for arm in arms if arm not in twins), strict=False))
    found: dict[str, dict[str, list[float]]] = {arm: {} for arm in letters.values()}
    for number, order in enumerate(abba(blocks, seed, "".join(letters)), 1):
        for arm in map(letters.__getitem__, order):
            for figure, value in load(arms[arm]).items():
                found[arm].setdefault(figure, []).append(value)
        if progress is not None:
            progress(f"{name}: block {number} of {blocks}, {len(letters)} arms")
    found |= {arm: found[twin] for arm, twin in twins.items()}
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


def mapping(work: Work, workers: int, block_s: float) -> Load:
    """A load: tasks per second of a map on a fresh cluster, and the coordinator's CPU per task.

    How many tasks last about `block_s` seconds is found out once for each spec, so that all of its
    blocks are alike; a quarter of them goes first, to warm the cluster up.
    """
    amounts: dict[str, int] = {}

    def block(spec: ClusterSpec) -> dict[str, float]:
        with LocalCluster(workers, spec) as local, local.client() as client:
            if spec.name not in amounts:
                amounts[spec.name] = _amount(partial(map_s, client), work, block_s)
            counted = work.part(0, amounts[spec.name])
            map_s(client, work.part(0, max(1, len(counted) // 4)))
            process = psutil.Process(local.coordinator_pid)
            before = process.cpu_times()
            took_s = map_s(client, counted)
            after = process.cpu_times()
        # Each by itself: ticks that did not change then differ by exactly nothing.
        cpu_s = (after.user - before.user) + (after.system - before.system)
        return {FIGURE: len(counted) / took_s, "cpu_us": cpu_s * 1e6 / len(counted)}

    return block


def _amount(map_s: Callable[[Work], float], work: Work, block_s: float) -> int:
    """How many tasks take so many seconds, by maps that double until they take a third of them.

    Each is done twice and the quicker one counts: a hiccup must not make all blocks short.
    """
    tasks = min(FIRST_TASKS, len(work))
    while True:
        part = work.part(0, tasks)
        took_s = min(map_s(part), map_s(part))
        if took_s >= block_s / 3 or tasks == len(work):
            return max(1, min(len(work), round(tasks * block_s / took_s)))
        tasks = min(2 * tasks, len(work))


def choosing(workers: int, choices: int, seed: int) -> Load:
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
    """Every idea's prediction, from the profiles of what it is held against, beside its blocks."""
    return [
        IdeaResult(
            idea,
            *predict(idea, profiles[idea.against], counts),
            found.compared(idea.name, idea.against),
        )
        for idea in IDEAS
    ]


def count_for_ideas(seed: int) -> dict[str, dict[str, float | None]]:
    """The counts that predictions rest on, by spec: the ideas' own and of what they build on."""
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
    """Everything a study of the ideas runs: the baseline, each idea alone, and the ladder."""
    return [BASELINE, *(idea.spec for idea in IDEAS), *LADDER[1:]]


def _ratio(a: Blocks, b: Blocks, again: Blocks | None = None, seed: int = 0) -> Comparison:
    control = None if again is None else again[FIGURE]
    return compare_blocks(a[FIGURE], b[FIGURE], control, direction="higher", seed=seed)


def _changes(spec: ClusterSpec) -> list[tuple[str, object, object]]:
    """What an idea changes of the baseline: the field, its own value and OPTIMIZED's."""
    return [
        (name, ours, getattr(OPTIMIZED, name))
        for name in spec.__struct_fields__
        if name != "name" and (ours := getattr(spec, name)) != getattr(BASELINE, name)
    ]


def _twins(arms: Mapping[str, ClusterSpec]) -> dict[str, str]:
    """Which arms need not run because another one is the same but for its name."""
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
