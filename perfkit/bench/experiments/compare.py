"""Two specs against each other: run side by side now, or saved before.

Side by side is the real comparison. A block is one run of each of three arms, A, B and A again,
each on fresh processes, in an order drawn by lot. The difference between the two As is what the
machine does to identical code, and limits what may be claimed of B.

Two saved results are two runs, far apart in time. Their samples show what varied within each run,
not what changed between the two: identical code differed by 26 % between two jobs, and single
figures by a factor of 2. No second A tells how much it was this time. So nothing less than that
factor is claimed of saved results, and "same" never is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from cluster.spec import ClusterSpec
from perfkit.bench.experiments import catalogue
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Say
from perfkit.evidence.results import Result, ResultError, comparable, encode_fields
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.stats import MIN_BLOCKS, Comparison, abba, compare_blocks
from perfkit.evidence.tables import data_frame
from perfkit.evidence.verdicts import Direction, Verdict

if TYPE_CHECKING:
    import pandas as pd

#: Enough for the bootstrapped interval, which tolerates an outlying block.
BLOCKS = 8
#: A, B, and C: the second A.
ARMS = "ABC"
#: Raised when a field of the JSON changes its meaning.
SCHEMA = 1
#: Figures of identical code move between runs by up to a factor of 1 plus this.
BETWEEN_RUNS = 1.0
#: The samples of a saved run are reduced to the medians of this many parts.
SAVED_PARTS = 10
#: Units of which less is better; of rates, which contain "/s", more is better.
LOWER_IS_BETTER = ("s", "ms", "µs", "ns", "bytes")


class NotComparable(ResultError):
    """Two saved results that are not comparable; the message is one sentence."""


@dataclass(frozen=True)
class SpecComparison(Showable):
    """B against A with its evidence: `comparison` has the ratio, interval and verdict.

    `results` holds the raw results of each arm, "A", "B" and "C" (the second A; empty for saved
    ones), in the order of the runs; `order` has a group like "BCA" for each block. `differences`
    are the conditions that differ between saved results whose comparison was forced.
    """

    comparison: Comparison
    results: dict[str, list[Result]]
    order: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What is compared, and which direction is better: "latency of b against a (ms, …)"."""
        a, b = self.results["A"][0], self.results["B"][0]
        better = f"{a.unit}, {self.comparison.direction} is better"
        return f"{a.experiment} of {b.spec} against {a.spec} ({better})"

    @property
    def label(self) -> str:
        """The warning that belongs beside the ratio, or an empty text."""
        if not self.differences:
            return ""
        return f"not measured alike, compared by force: {'; '.join(self.differences)}"

    def describe(self) -> str:
        """The whole comparison in one line, for a terminal."""
        label = f" [{self.label}]" if self.label else ""
        return f"{self.title}: {self.comparison.describe()}{label}"

    def encode(self) -> str:
        """JSON with one top-level field per line: the comparison, then the raw results."""
        a, b = self.results["A"][0], self.results["B"][0]
        return encode_fields(
            {
                "schema": SCHEMA,
                "a": a.spec,
                "b": b.spec,
                "experiment": a.experiment,
                "unit": a.unit,
                **msgspec.structs.asdict(self.comparison),
                "differences": self.differences,
                "order": self.order,
                "results": self.results,
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """The comparison as one row, with what was compared."""
        return data_frame([{"title": self.title, **msgspec.structs.asdict(self.comparison)}])

    def _sheets(self) -> Iterator[Sheet]:
        yield from self.comparison.sheets(". ".join(filter(None, [self.title, self.label])))

    def _figures(self) -> Figures:
        return self.comparison._figures()


def compare_specs(
    a: ClusterSpec,
    b: ClusterSpec,
    *,
    experiment: str = "throughput",
    blocks: int = BLOCKS,
    workers: int = 2,
    tasks: int | None = None,
    seed: int = 0,
    model: str | None = None,
    progress: Say | None = None,
) -> SpecComparison:
    """Run an experiment on both specs, interleaved, and judge B against A.

    Each block runs A, B and A again, each on a fresh cluster, in an order that follows from `seed`,
    as do the payloads, which are the same for all. A run's figure is the median of its samples. The
    other options are those of `catalogue.run`; `progress` gets one line per run.

    Raises ExperimentError for fewer blocks than a verdict needs, and what `run` raises: a single
    wrong task ends the comparison.
    """
    if blocks < MIN_BLOCKS:
        raise ExperimentError(f"a verdict needs at least {MIN_BLOCKS} blocks, not {blocks}")
    specs = dict(zip(ARMS, (a, b, a), strict=True))
    results: dict[str, list[Result]] = {arm: [] for arm in ARMS}
    order = abba(blocks, seed, ARMS)
    for number, group in enumerate(order, 1):
        for arm in group:
            result = catalogue.run(
                experiment, spec=specs[arm], workers=workers, tasks=tasks, seed=seed, model=model
            )
            results[arm].append(result)
            if progress is not None:
                name = "A again" if arm == "C" else arm
                progress(f"block {number} of {blocks}, {name}: {result.describe()}")
    samples = {arm: [result.samples for result in results[arm]] for arm in ARMS}
    comparison = compare_blocks(
        samples["A"], samples["B"], samples["C"], direction=_direction(results["A"][0]), seed=seed
    )
    return SpecComparison(comparison, results, tuple(order))


def compare_saved(a: Result, b: Result, *, force: bool = False) -> SpecComparison:
    """Judge the saved result b against a.

    The interval is that of the samples within each run, in up to ten consecutive parts. A verdict
    other than "inconclusive" needs an interval beyond a factor of 2 from 1, because the runs were
    not interleaved and nothing controls for what changed between them.

    Raises NotComparable for different experiments or units, and unless `force` is set, which labels
    the comparison, for different machines, workers, tasks or parameters.
    """
    if (a.experiment, a.unit) != (b.experiment, b.unit):
        raise NotComparable(
            f"{a.experiment} in {a.unit} and {b.experiment} in {b.unit} cannot be compared: "
            "take two results of one experiment in one unit"
        )
    differences = comparable(a, b)
    if differences and not force:
        raise NotComparable(
            f"the two results were not measured alike ({'; '.join(differences)}); "
            "force the comparison (--force) to see it with that label"
        )
    parts = min(SAVED_PARTS, len(a.samples), len(b.samples))
    try:
        comparison = compare_blocks(
            _parts(a.samples, parts),
            _parts(b.samples, parts),
            direction=_direction(a),
            same_band=BETWEEN_RUNS,
        )
    except ValueError as error:
        raise NotComparable(f"samples of these results have no ratio: {error}") from None
    return SpecComparison(
        _not_interleaved(comparison), {"A": [a], "B": [b], "C": []}, (), tuple(differences)
    )


def _not_interleaved(comparison: Comparison) -> Comparison:
    """The comparison with the verdict that two separate runs allow."""
    apart = "the two runs were not interleaved and there is no A/A control"
    factor = f"a factor of {1 + BETWEEN_RUNS:g}, by which runs of the same code may differ"
    verdict = comparison.verdict
    if comparison.blocks < MIN_BLOCKS:
        reason = f"{comparison.blocks} samples of a run are fewer than {MIN_BLOCKS}, and {apart}"
    elif verdict in (Verdict.FASTER, Verdict.SLOWER):
        reason = f"{apart}, but the whole interval lies beyond {factor}"
    else:
        verdict = Verdict.INCONCLUSIVE
        reason = (
            f"{apart}, so nothing within {factor}, can be told from noise; "
            "compare the specs by name to run them side by side"
        )
    return msgspec.structs.replace(
        comparison,
        verdict=verdict,
        reason=reason,
        method=f"{comparison.method}, within two single runs",
    )


def _parts(samples: Sequence[float], count: int) -> list[Sequence[float]]:
    """The samples in `count` consecutive parts of about equal size."""
    ends = [len(samples) * i // count for i in range(count + 1)] if count else []
    return [samples[start:stop] for start, stop in pairwise(ends)]


def _direction(result: Result) -> Direction:
    """Which direction is better; the unit tells if the experiment is not in `EXPERIMENTS`."""
    if result.experiment in catalogue.EXPERIMENTS:
        return catalogue.EXPERIMENTS[result.experiment].direction
    if "/s" in result.unit:
        return "higher"
    if result.unit in LOWER_IS_BETTER:
        return "lower"
    raise NotComparable(
        f"whether more or fewer {result.unit} are better is not known, so {result.experiment} "
        "has no verdict"
    )
