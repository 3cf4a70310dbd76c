"""Two specs against each other: run side by side now, or as they were saved.

Side by side is the real comparison. A block is one run of each of three arms, A, B and A again,
each on processes of its own, in an order that is drawn by lot; what the second A differs from the
first by is what the machine does to identical code, and bounds what may be claimed of B.

Two saved results are two runs, far apart in time. Their samples bound what varied within each run
and say nothing of what changed between the two, which was more than any sample shows: identical
code differed by 26 % between two jobs, and single figures by a factor of 2. There is no second A to
tell how much it was this time. So nothing less than that factor is claimed of saved results, and
"same" never is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import msgspec

from cluster.spec import ClusterSpec
from perfkit.bench.experiments import catalogue
from perfkit.evidence.results import Result, ResultError, comparable, encode_fields
from perfkit.evidence.stats import (
    MIN_BLOCKS,
    Comparison,
    Direction,
    Verdict,
    abba,
    compare_blocks,
)

#: Enough for the bootstrapped interval, which bears an outlying block.
BLOCKS = 8
#: A, B, and C: the second A.
ARMS = "ABC"
#: Raised when a field of the JSON changes its meaning.
SCHEMA = 1
#: By how much a figure of one code may move from run to run: a factor of 1 plus this.
BETWEEN_RUNS = 1.0
#: The samples of a saved run are reduced to the medians of so many parts.
SAVED_PARTS = 10
#: Units of which less is better; of a rate, which has "/s" in it, more is.
LOWER_IS_BETTER = ("s", "ms", "µs", "ns", "bytes")


class NotComparable(ResultError):
    """Two saved results that must not be set side by side, and why, in one sentence."""


@dataclass(frozen=True)
class SpecComparison:
    """B against A with all that it rests on: `comparison` has the ratio, interval and verdict.

    `results` holds the raw results of each arm, "A", "B" and "C" (the second A; empty for saved
    ones), in the order they were run; `order` says which arm ran when, a group like "BCA" for each
    block. `differences` are the conditions that differ between saved results and were waved
    through.
    """

    comparison: Comparison
    results: dict[str, list[Result]]
    order: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What is compared, and which way is better: "latency of b against a (ms, …)"."""
        a, b = self.results["A"][0], self.results["B"][0]
        better = f"{a.unit}, {self.comparison.direction} is better"
        return f"{a.experiment} of {b.spec} against {a.spec} ({better})"

    @property
    def label(self) -> str:
        """The warning that belongs beside the ratio; empty where there is nothing to warn of."""
        if not self.differences:
            return ""
        return f"not measured alike, compared by force: {'; '.join(self.differences)}"

    def describe(self) -> str:
        """Say the whole comparison in one line, fit for a terminal."""
        label = f" [{self.label}]" if self.label else ""
        return f"{self.title}: {self.comparison.describe()}{label}"

    def encode(self) -> str:
        """JSON with one top-level field per line: the comparison's own, then the raw results."""
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

    def _repr_html_(self) -> str:
        label = f"<p><strong>{escape(self.label)}</strong></p>" if self.label else ""
        return f"<p>{escape(self.title)}</p>{label}{self.comparison._repr_html_()}"


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
    progress: Callable[[str], None] | None = None,
) -> SpecComparison:
    """Run an experiment on both specs, interleaved, and judge B by it, seen from A.

    Each of the `blocks` runs A, B and A again, every one on a fresh cluster, in an order that
    follows from `seed`, as do the payloads, which are the same for all. A run's figure is the
    median of its samples. The other options are those of `catalogue.run`;
    `progress` gets one line per run.

    Raises ExperimentError for fewer blocks than a verdict needs, and what `run` raises: nothing is
    concluded from a comparison in which a single task went wrong.
    """
    if blocks < MIN_BLOCKS:
        raise catalogue.ExperimentError(
            f"a verdict needs at least {MIN_BLOCKS} blocks, not {blocks}"
        )
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
        samples["A"],
        samples["B"],
        samples["C"],
        direction=_direction(results["A"][0]),
        seed=seed,
    )
    return SpecComparison(comparison, results, tuple(order))


def compare_saved(a: Result, b: Result, *, force: bool = False) -> SpecComparison:
    """Judge one saved result, seen from another.

    The interval is of the samples within each run, taken in up to ten consecutive parts each. A
    verdict other than "inconclusive" needs an interval beyond a factor of 2 from 1, since the runs
    were not interleaved and nothing controls for what changed between them.

    Results of different machines, workers, tasks or parameters are refused unless `force` is set,
    and then labelled; those of different experiments or units always. Raises NotComparable.
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
    """The comparison of two runs with what may be said of them."""
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
            f"{apart}, so nothing within {factor}, can be told from the machine's moods; "
            "compare the specs by name to run them side by side"
        )
    return msgspec.structs.replace(
        comparison,
        verdict=verdict,
        reason=reason,
        method=f"{comparison.method}, within two single runs",
    )


def _parts(samples: Sequence[float], count: int) -> list[Sequence[float]]:
    """The samples in `count` consecutive parts, as equal as can be."""
    ends = [len(samples) * i // count for i in range(count + 1)] if count else []
    return [samples[start:stop] for start, stop in pairwise(ends)]


def _direction(result: Result) -> Direction:
    """Which way is better; told by the unit where the experiment is none of `EXPERIMENTS`."""
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
