"""What a search has found: the spec to use, and everything that speaks for and against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.spec import ClusterSpec, encode_spec
from cluster.vocabulary.printable import count_of
from perfkit.bench.tuning.loads import Objective
from perfkit.bench.tuning.space import Space, changed, changes_text, turned
from perfkit.bench.tuning.trials import ARMS, Trial, gain_of
from perfkit.evidence.environment import Environment
from perfkit.evidence.painting import Picture
from perfkit.evidence.results import Result, ResultError, write
from perfkit.evidence.samples import Interval
from perfkit.evidence.showing import Sheet, Showable, facts
from perfkit.evidence.stats import Comparison
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import UNKNOWN, measured
from perfkit.evidence.verdicts import Verdict
from perfkit.optimized.specs import FILE_SUFFIX

if TYPE_CHECKING:
    import pandas as pd

#: The experiment of the saved result, and how the name of its file ends.
EXPERIMENT, EVIDENCE = "tune", ".evidence.json"
UNIT = "× the start"
#: Candidates that a table or a picture shows.
SHOWN = 10
PAIRS_TEXT = (
    "A candidate's figure is the median of its pairs of blocks, with the least and the most."
)


@dataclass(frozen=True)
class Tuned(Showable):
    """The outcome of a search that began from `start`.

    `values` are what the best candidate changes; `arms` the figures of the proof by block, and
    `comparison` its verdict, None if nothing was proved. `trials` holds each candidate once.
    """

    start: ClusterSpec
    values: dict[str, Any]
    workload: str
    objective: Objective
    space: Space
    trials: tuple[Trial, ...]
    arms: Mapping[str, Sequence[float]]
    comparison: Comparison | None
    interrupted: bool
    workers: int
    seed: int
    sampler: str
    duration_s: float
    environment: Environment

    @property
    def verdict(self) -> Verdict:
        """Whether the best candidate is better than the start; inconclusive without a proof."""
        return self.comparison.verdict if self.comparison else Verdict.INCONCLUSIVE

    @property
    def gain(self) -> Interval:
        """The best candidate's figure over the start's, turned so that above 1 is better."""
        if self.comparison is None:
            return Interval(None, None, None, 0.95, "not proved")
        return gain_of(self.comparison)

    @property
    def best(self) -> ClusterSpec:
        """The best candidate, proved or not."""
        return turned(self.start, self.values) if self.values else self.start

    @property
    def spec(self) -> ClusterSpec:
        """The spec to use: the best candidate if it is proved, or if the proof was interrupted,
        else the start.
        """
        kept = self.verdict is Verdict.FASTER or (self.interrupted and self.values)
        return self.best if kept else self.start

    @property
    def ranked(self) -> list[Trial]:
        """The candidates from the best to the worst; those that failed come last."""
        return sorted(self.trials, key=lambda trial: trial.ratio or 0.0, reverse=True)

    @property
    def headline(self) -> str:
        """The outcome in one sentence."""
        what = f"{changes_text(self.values)} on {self.start.name}"
        if self.interrupted and not self.values:
            return f"interrupted before a candidate had run, so {self.start.name} stays"
        if self.interrupted:
            return f"interrupted: {what} looked best and is not proved"
        if self.comparison is None:
            return f"no candidate ran, so {self.start.name} stays"
        factor = f"{self.objective.name} × {self.gain.text()} ({self.comparison.confidence:.0%})"
        if self.verdict is Verdict.FASTER:
            return f"faster: {what}, {factor}"
        return f"{self.verdict}: {self.start.name} stays; the best was {what}, {factor}"

    @property
    def reason(self) -> str:
        """Why the verdict is what it is."""
        if self.comparison is not None:
            return self.comparison.reason
        failures = [trial.error for trial in self.trials if trial.error]
        return failures[0] if failures else "nothing was compared on fresh processes"

    @property
    def result(self) -> Result:
        """The outcome as a result with every raw figure; its value is the ratio of the proof."""
        gain = self.gain
        pairs = zip(*(self.arms.get(arm, ()) for arm in ARMS[:2]), strict=True)
        higher = self.objective.direction == "higher"
        return Result(
            experiment=EXPERIMENT,
            spec=self.spec.name,
            engine="zmq",
            workers=self.workers,
            tasks=None,
            value=gain.value,
            unit=UNIT,
            low=gain.low,
            high=gain.high,
            samples=[after / before if higher else before / after for before, after in pairs],
            environment=self.environment,
            seed=self.seed,
            duration_s=self.duration_s,
            series={f"{arm} ({self.objective.unit})": [*it] for arm, it in self.arms.items()},
            parameters={
                "workload": self.workload,
                "objective": self.objective.name,
                "verdict": str(self.verdict),
                "reason": self.reason,
                "interrupted": self.interrupted,
                "start": msgspec.to_builtins(self.start),
                "best": msgspec.to_builtins(self.best),
                "changes": self.values,
                "knobs": {knob: [*values] for knob, values in self.space.items()},
                "sampler": self.sampler,
                "trials": [vars(trial) for trial in self.trials],
                "interval": gain.method,
                "control": None if self.comparison is None else self.comparison.control_text,
            },
        )

    def encode(self) -> str:
        """The evidence: `result` as JSON."""
        return self.result.encode()

    def save_spec(self, path: str | Path) -> tuple[Path, Path]:
        """Write the spec to use and, beside it, the evidence; returns both files.

        Raises ResultError for a name that does not end in .json, and if it can't write.
        """
        target = Path(path)
        if target.suffix != FILE_SUFFIX or target.name.endswith(EVIDENCE):
            raise ResultError(f"a spec's file ends in {FILE_SUFFIX}, unlike {target}")
        evidence = target.with_suffix(EVIDENCE)
        write(self.encode(), evidence)
        write(msgspec.json.format(encode_spec(self.spec)) + "\n", target)
        return target, evidence

    def to_frame(self) -> pd.DataFrame:
        """A row for each candidate, best first: its knobs, its pairs of blocks and the median,
        least and most of their ratios to the start.
        """
        rows = []
        for trial in self.ranked:
            ends = {f"ratio_{end.__name__}": end(trial.ratios, default=None) for end in (min, max)}
            figures = {"ratio": trial.ratio, **ends, "pairs": len(trial.ratios)}
            rows.append({**trial.values, **figures, "error": trial.error})
        return data_frame(rows)

    def plot(self) -> Picture:
        """The proof with its interval, and the best candidates' ratios to the start."""
        from perfkit.report.figures.charts import Bar, bars_with_intervals

        bars = [Bar.of("proof", self.gain)]
        bars += [
            Bar(self._changes(it), it.ratio, min(it.ratios), max(it.ratios))
            for it in self.ranked[:SHOWN]
            if it.ratios
        ]
        caption = f"{self.workload}. The proof has its 95 % interval. {PAIRS_TEXT}"
        return bars_with_intervals(bars, UNIT, title=self.objective.name, caption=caption)

    def _sheets(self) -> Iterator[Sheet]:
        control = self.comparison.control_text if self.comparison else UNKNOWN
        yield facts(
            {
                "why": self.reason,
                "control": f"A/A {control}",
                "workload": f"{self.workload}, {count_of(self.workers, 'worker')}, seed "
                f"{self.seed}",
                "tried": f"{count_of(len(self.trials), 'candidate')} by {self.sampler}, of "
                f"{', '.join(self.space)}",
            },
            self.headline,
        )
        best = self.ranked[:SHOWN]
        if best:
            more = len(self.trials) - len(best)
            left = f" {more} more are not shown." if more else ""
            header = ("candidate", f"{self.objective.name}, {UNIT}")
            rows = [(self._changes(trial), _ratio_text(trial)) for trial in best]
            yield Sheet("Candidates", header, rows, [PAIRS_TEXT + left])

    def _changes(self, trial: Trial) -> str:
        return changes_text(changed(self.start, trial.values))


def _ratio_text(trial: Trial) -> str:
    """A candidate's ratio with the least and the most of its pairs."""
    if trial.ratio is None:
        return f"failed: {trial.error}"
    return f"× {measured(trial.ratio, '', min(trial.ratios), max(trial.ratios))}"
