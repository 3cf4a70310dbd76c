"""The search for a faster spec: candidates by Optuna, the best few again, then the proof.

The search and the proof are kept apart. Whatever looks best of many noisy candidates looks better
than it is, so the verdict comes from fresh processes that took no part in the search.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.tuning.loads import Load, make_load
from perfkit.bench.tuning.sampling import Sampler, load_optuna, maximise
from perfkit.bench.tuning.space import (
    SEARCHED,
    Space,
    changed,
    changes_text,
    known_points,
    space_of,
    turned,
)
from perfkit.bench.tuning.trials import (
    ARMS,
    BLOCK_S,
    Block,
    Trial,
    confirm,
    judge_arms,
    measure_pairs,
    running,
)
from perfkit.bench.tuning.tuned import Tuned
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Say, prefixed
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.stats import MIN_BLOCKS
from perfkit.evidence.text import duration, quantity

#: Blocks of each arm in the proof, if the time allows; a verdict needs MIN_BLOCKS.
PROOF_BLOCKS = 10
#: The most that the proof, and the choice among the finalists, may take of the time.
PROOF_PART, FINAL_PART = 0.4, 0.15
FINALISTS = 3
#: The clusters of a proof take some of this: a search that is given less goes on all the same.
SHORTEST_S = 60.0
#: A change is undone if that costs less than this.
WORTH = 0.03


def tune(
    start: ClusterSpec = BASELINE,
    load: Load | None = None,
    *,
    knobs: Iterable[str] | Mapping[str, Iterable[Any]] = SEARCHED,
    minutes: float = 5.0,
    workers: int = 2,
    seed: int = 0,
    sampler: Sampler = "tpe",
    hints: bool = True,
    block_s: float = BLOCK_S,
    progress: Say | None = None,
) -> Tuned:
    """Search the knobs for a spec that is better than `start` under a load on this machine.

    `load` is a throughput unless given, see `make_load`; for a function of yours and its items it
    is ``tune(load=function_load(function, items))``. `knobs` names them, or maps each to the values
    to try. The sampler "tpe" is guided by what it has seen and, with `hints`, tries the
    values of other specs first; "grid" tries every combination once. An interrupt (Ctrl-C) ends the
    search and returns what was found so far, without a proof.

    Raises ExperimentError for options out of range and without Optuna, ClusterError for a knob that
    is not searched and if the start itself does not run.
    """
    load_optuna()
    if not minutes > 0:
        raise ExperimentError(f"a search takes some minutes, not {minutes:g}")
    given: tuple[Any, Any] = start, load
    if not (isinstance(given[0], ClusterSpec) and isinstance(given[1], Load | None)):
        raise ExperimentError(
            "a search takes a spec to begin from and a load of make_load or function_load: "
            f"tune(BASELINE, function_load(function, items)), not {start!r:.60} and {load!r:.60}"
        )
    load = load or make_load(seed=seed)
    _check_time(load, minutes)
    space = space_of(start, knobs)
    environment = fingerprint()
    search = _Search(
        start, load, space, workers, seed, block_s, minutes * 60, prefixed(progress, "tune")
    )
    arms: dict[str, list[float]] = {}
    interrupted = False
    try:
        search.run(sampler, hints)
        arms = search.prove()
    except KeyboardInterrupt:
        interrupted = True
    return Tuned(
        start=start,
        values=search.values,
        workload=load.text,
        objective=load.objective,
        space=space,
        trials=tuple(search.trials.values()),
        arms=arms,
        comparison=judge_arms(arms, load.objective.direction, seed) if arms else None,
        interrupted=interrupted,
        workers=workers,
        seed=seed,
        sampler=sampler,
        duration_s=search.spent_s,
        environment=environment,
    )


def _check_time(load: Load, minutes: float) -> None:
    """Raise ExperimentError if the load alone, in the fewest blocks of a proof, takes longer."""
    # Each block is on a fresh cluster, warmed up by a quarter of the work.
    least_s = 1.25 * load.once_s * len(ARMS) * MIN_BLOCKS
    if least_s > max(minutes * 60, SHORTEST_S):
        raise ExperimentError(
            f"{minutes:g} minutes are too few: the work takes {duration(load.once_s)}, and a proof "
            f"repeats it, for {duration(least_s)}; take fewer tasks, or more minutes"
        )


@dataclass
class _Search:
    """One search: what was tried, by the text of its values, and the time that is left."""

    start: ClusterSpec
    load: Load
    space: Space
    workers: int
    seed: int
    block_s: float
    budget_s: float
    say: Say
    trials: dict[str, Trial] = field(default_factory=dict)
    _began_s: float = field(default_factory=time.monotonic)
    #: How long a fresh cluster and a block of the start take.
    _fresh_s: float = 0.0
    _lean: dict[str, Any] | None = None

    @property
    def spent_s(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._began_s

    @property
    def values(self) -> dict[str, Any]:
        """What the best candidate so far changes; nothing if none ran."""
        best = self._ranked()
        return self._lean or (changed(self.start, best[0].values) if best else {})

    def run(self, sampler: Sampler, hints: bool) -> None:
        """Measure candidates, the best few again, and drop changes that earn nothing."""
        self.say(f"starts {self.start.name}; {self.load.text}")
        with running(self.load, self.start, self.workers, self.block_s) as start:
            start()
            self._fresh_s = self.spent_s
            proof_s = min(PROOF_PART * self.budget_s, self._proof_s(PROOF_BLOCKS))
            proof_s = max(proof_s, self._proof_s(MIN_BLOCKS))
            until_s = (1 - FINAL_PART) * self.budget_s - proof_s

            def ratio_of(values: dict[str, Any]) -> float | None:
                trial = self._measure(values, start)
                self._tell(trial, until_s)
                return trial.ratio

            maximise(
                ratio_of,
                self.space,
                sampler=sampler,
                first=known_points(self.start, self.space) if hints and sampler == "tpe" else (),
                seed=self.seed,
                timeout_s=until_s - self.spent_s,
            )
            # The first look favours the lucky ones.
            for trial in self._ranked()[:FINALISTS]:
                self._tell(self._measure(trial.values, start), until_s)
        self._lean = self._without_idle_changes(self.budget_s - proof_s)

    def prove(self) -> dict[str, list[float]]:
        """Figures of the start, the best and the start again, on fresh processes in turns.

        Nothing if no candidate ran.
        """
        if not self.values:
            return {}
        left_s = self.budget_s - self.spent_s
        blocks = max(MIN_BLOCKS, min(PROOF_BLOCKS, int(left_s / self._proof_s(1))))
        specs = (self.start, turned(self.start, self.values), self.start)
        return confirm(
            self.load,
            dict(zip(ARMS, specs, strict=True)),
            blocks=blocks,
            workers=self.workers,
            seed=self.seed,
            block_s=self.block_s,
            say=self.say,
        )

    def _proof_s(self, blocks: int) -> float:
        return len(ARMS) * blocks * self._fresh_s

    def _ranked(self) -> list[Trial]:
        """The candidates that ran and are not the start, best first."""
        ran = (it for it in self.trials.values() if it.ratios and changed(self.start, it.values))
        return sorted(ran, key=lambda trial: trial.ratio or 0.0, reverse=True)

    def _measure(self, values: dict[str, Any], start: Block) -> Trial:
        """Add pairs of blocks to a candidate; one that fails keeps its error."""
        trial = self.trials.setdefault(repr(values), Trial(values))
        best = self._ranked()
        goal = best[0].ratio if best else None
        try:
            trial.ratios += self._pairs(turned(self.start, values), start, goal or 0.0)
        except ClusterError as error:
            trial.error = str(error).partition("\n")[0]
        except KeyboardInterrupt:
            trial.error = "interrupted"
            raise
        return trial

    def _pairs(self, spec: ClusterSpec, reference: Block, goal: float) -> list[float]:
        with running(self.load, spec, self.workers, self.block_s) as block:
            direction, seed = self.load.objective.direction, self.seed + len(self.trials)
            return [*measure_pairs(reference, block, direction, seed, goal)]

    def _without_idle_changes(self, until_s: float) -> dict[str, Any] | None:
        """What the best candidate changes and earns: each change is undone that earns less than
        WORTH, as measured beside the best.
        """
        values = self.values
        if len(values) < 2 or self.spent_s + 2 * self._fresh_s > until_s:
            return None
        with running(self.load, turned(self.start, values), self.workers, self.block_s) as best:
            for knob in reversed(values):
                if self.spent_s + self._fresh_s > until_s:
                    break
                fewer = {other: value for other, value in values.items() if other != knob}
                try:
                    found = Trial({}, self._pairs(turned(self.start, fewer), best, 1.0))
                except ClusterError:
                    continue
                if found.ratio is not None and found.ratio >= 1 - WORTH:
                    self.say(f"it is as good without {changes_text({knob: values[knob]})}")
                    values = fewer
        return values

    def _tell(self, trial: Trial, until_s: float) -> None:
        what = f"× {quantity(trial.ratio)}" if trial.ratio else f"failed: {trial.error}"
        best = self._ranked()[:1]
        parts = [
            f"{len(self.trials)} tried, {self._text(trial)} {what}",
            *(f"best × {quantity(it.ratio)} {self._text(it)}" for it in best),
            f"{duration(max(0.0, until_s - self.spent_s))} of the search left",
        ]
        self.say("; ".join(parts))

    def _text(self, trial: Trial) -> str:
        return changes_text(changed(self.start, trial.values))
