"""What the hot-paths notebook shows and says: each idea's prediction beside its measurement.

It is easy to believe in an optimisation, so every sentence here is made from results: which ideas
paid and by how much, which did not and are left out, where the prediction was wrong and in which
direction. On another machine, or after a change, the notebook says something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster.spec import BASELINE
from cluster.vocabulary.printable import count_of
from perfkit.bench.experiments.ablation import AGAIN, IdeaResult, Rung, Study
from perfkit.bench.experiments.roles import LoneTraces, profile_coordinator
from perfkit.bench.experiments.setting import is_full
from perfkit.bench.goals.cluster_runs import ClusterSizes
from perfkit.bench.goals.table import GoalRow, GoalTable
from perfkit.evidence.results import Result
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.stats import Comparison
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import UNKNOWN, estimate, measured, percent, quantity
from perfkit.evidence.verdicts import Verdict
from perfkit.optimized.specs import OPTIMIZED, SPECS
from perfkit.report.engine import headlines
from perfkit.report.figures.charts import Bar
from perfkit.report.stories.views import FULL, Table, Words, stages

if TYPE_CHECKING:
    import pandas as pd

    from perfkit.profile.cpu import CpuProfile

PROFILE_RUNS = 3
#: The optimised cluster gets this many times the tasks, or its profile would be empty.
FASTER = 10
MIB = 1 << 20


def task_counts(profile: str, tasks: int) -> dict[str, int]:
    """How many tasks, payloads and choices each measurement gets, and how many `rounds` of goals.

    The profile `full` takes FULL times as many of each.
    """
    times = FULL if is_full(profile) else 1
    tasks *= times
    return {
        "profiled": max(100, tasks),
        "traced": max(30, tasks // 16),
        "pool": max(1_000, min(200_000, 40 * tasks)),
        "big": max(4, min(64, tasks // 60)),
        "choices": max(40, tasks // 20),
        "latency": max(25, tasks // 4),
    }


def goal_sizes(profile: str, tasks: int) -> ClusterSizes:
    """How much the table of goals measures."""
    thorough = is_full(profile)
    tasks *= FULL if thorough else 1
    # Many short blocks: an interval of a ratio needs eight pairs of neighbours.
    return ClusterSizes(
        rounds=16 if thorough else 8,
        map_tasks=max(4_000, 20 * tasks),
        baseline_tasks=max(100, tasks // 5),
        submit_tasks=max(1_250, tasks),
        latency_tasks=max(40, tasks // 40),
        mixed_rounds=8 if thorough else 4,
        open_tasks=max(100, tasks // 40),
        burst_tasks=max(100, tasks // 10),
        big_payloads=8,
        choices=max(40, tasks // 40),
        codec_tasks=max(1_000, tasks // 2),
    )


def lone_stages(traces: LoneTraces) -> dict[str, list[Bar]]:
    """The stages of a lone task for their picture, a row for each spec and placement."""
    return {f"{spec}, {where}": stages(found) for (spec, where), found in traces.found.items()}


def lone_wholes(traces: LoneTraces) -> dict[str, Bar]:
    """The median from end to end of each row of `lone_stages`, in ms."""
    return {
        f"{spec}, {where}": Bar.of(spec, found.end_to_end.p50_ms)
        for (spec, where), found in traces.found.items()
    }


def lone_words(traces: LoneTraces, table: GoalTable) -> Words:
    """The figure of a lone task in both placements, from the goals; and where its traces say that
    the placements differ.
    """
    told = []
    for figure, where in (("latency", "Pinned"), ("unpinned", "Not pinned")):
        row, plain, messages = (
            table.of(f"{figure}_p50{end}") for end in ("", "_vs_baseline", "_vs_messages")
        )
        told.append(
            f"{where}, a lone task takes {estimate(row, row.unit)}, the baseline's "
            f"{quantity(row.baseline, row.unit)}: {_ratio(plain)} the baseline's, {_ratio(row)} "
            f"the bare hop, {_ratio(messages)} the same messages without a scheduler."
        )
    for (spec, where), found in traces.found.items():
        hops = sum(s.p50_ms.value or 0.0 for s in found.stages if s.stage.endswith("hop"))
        told.append(
            f"{spec}, {where}: {quantity(hops, 'ms')} of {estimate(found.end_to_end.p50_ms, 'ms')} "
            "are the four hops: the wire, wake-ups, and the code at both ends."
        )
    return Words(tuple(told))


def _ratio(row: GoalRow) -> str:
    return measured(row.ratio, "×", row.ratio_low, row.ratio_high)


def profile_runs(
    names: Sequence[str], out_dir: str | Path, *, workers: int, tasks: int, seed: int
) -> dict[str, list[CpuProfile]]:
    """A few profiles of each spec's coordinator by its name, kept as `.prof` files."""
    return {
        name: [
            profile_coordinator(
                SPECS[name],
                Path(out_dir) / f"coordinator-{name}-{number}.prof",
                workers=workers,
                tasks=tasks_of(name, tasks),
                seed=seed,
            )
            for number in range(1, PROFILE_RUNS + 1)
        ]
        for name in names
    }


def tasks_of(name: str, tasks: int) -> int:
    """How many tasks a profile of this spec takes."""
    return FASTER * tasks if name == OPTIMIZED.name else tasks


def how_to_open(profiles: Mapping[str, Sequence[CpuProfile]]) -> Table:
    """The profiles' files, and the command that opens each in a browser."""
    first = {name: runs[0] for name, runs in profiles.items() if runs}
    paths = {name: run.path for name, run in first.items() if run.path is not None}
    rows = [(name, f"perfkit profile view {path}") for name, path in paths.items()]
    note = "Run it in this folder. It opens snakeviz, which is in the extra [lab]."
    return Table("The profiles as files", tuple(rows), notes=(note,))


class Special(NamedTuple):
    """A spec, named as its idea, against the baseline on the load that the idea is meant for."""

    name: str
    load: str
    measured: Comparison


@dataclass(frozen=True)
class Ideas(Showable):
    """Every idea of the plan: its predicted gain, its measured gain, whether it is in OPTIMIZED."""

    rows: tuple[IdeaResult, ...]
    special: tuple[Special, ...] = ()

    @property
    def control(self) -> Bar:
        """The A/A arm: the baseline against itself."""
        found = self.rows[0].measured
        return Bar("A/A: the baseline again", found.aa_ratio, found.aa_low, found.aa_high)

    def bars(self) -> list[Bar]:
        """Each measured factor with its interval, beside the predicted one, and the A/A arm."""
        found = [
            Bar.of(row.idea.name, row.measured.factor, row.predicted.value) for row in self.rows
        ]
        return [*found, self.control]

    def special_bars(self) -> list[Bar]:
        """The factors on the loads that ideas are meant for."""
        return [Bar.of(f"{row.name}, {row.load}", row.measured.factor) for row in self.special]

    @property
    def words(self) -> Words:
        """A sentence for each idea, those that are left out last."""
        in_order = sorted(self.rows, key=lambda row: not row.idea.kept)
        return Words(tuple(self._sentence(row) for row in in_order))

    def record(self, out_dir: str | Path) -> None:
        """Save each idea's factor as a headline."""
        for row in self.rows:
            headlines.record(
                out_dir,
                f"Idea: {row.idea.name}",
                row.measured.ratio,
                "×",
                row.measured.low,
                row.measured.high,
                row.predicted.value,
                str(row.measured.verdict),
                note=f"throughput against {row.idea.against}; the claim is the prediction",
                compares=True,
            )

    def _sentence(self, row: IdeaResult) -> str:
        own = [found for found in self.special if found.name == row.idea.name]
        return " ".join(
            [
                f"{row.idea.name}: {_predicted(row)}, measured {_times(row.measured)} of "
                f"{row.idea.against}: {row.measured.verdict}.",
                *_surprise(row),
                *(
                    f"On its own load ({found.load}): {_times(found.measured)} of {BASELINE.name}, "
                    f"{found.measured.verdict}."
                    for found in own
                ),
                _conclusion(row, own),
            ]
        )

    def to_frame(self) -> pd.DataFrame:
        """A row for each idea: its factor, predicted and measured, and whether it is kept."""
        return data_frame(
            {
                "idea": row.idea.name,
                "against": row.idea.against,
                "predicted": row.predicted.value,
                "measured": row.measured.factor,
                "verdict": str(row.measured.verdict),
                "kept": row.idea.kept,
            }
            for row in self.rows
        )

    def _sheets(self) -> Iterator[Sheet]:
        rows = [
            (
                row.idea.name,
                _share(row),
                row.idea.left,
                estimate(row.predicted, "×"),
                f"{_times(row.measured)} of {row.idea.against}, {row.measured.verdict}",
                "yes" if row.idea.kept else "no",
            )
            for row in self.rows
        ]
        yield Sheet(
            "Throughput with one idea at a time (factors, 95 % intervals)",
            ("idea", "share of work", "of that is left", "predicted", "measured", "in OPTIMIZED"),
            rows,
            [
                f"A/A control: the baseline is {estimate(self.control, '×')} itself, over "
                f"{count_of(self.rows[0].measured.blocks, 'block')}."
            ],
        )

    def _figures(self) -> Figures:
        return "×", [(bar.label, bar) for bar in self.bars()]


def ladder(rungs: Sequence[Rung]) -> list[Bar]:
    """The rungs for their picture, the baseline's second arm beside the first."""
    return [Bar.of(rung.name, rung.figure) for rung in rungs]


def ladder_words(rungs: Sequence[Rung]) -> Words:
    """The gain of each rung over the one before it, and of all together."""
    climbing = [rung for rung in rungs if rung.name != AGAIN and rung.figure.value]
    told = []
    for below, rung in pairwise(climbing):
        times = (rung.figure.value or 0.0) / (below.figure.value or 1.0)
        told.append(f"{rung.name} does {quantity(times, '×')} {below.name}.")
    if climbing and (gain := climbing[-1].gain) is not None:
        told.append(f"All together: {_times(gain)} of the baseline.")
    return Words(tuple(told))


def special_loads(studies: Mapping[str, Study]) -> tuple[Special, ...]:
    """The specs that studies of other loads measured, each with that load's name."""
    return tuple(
        Special(name, load, found.compared(name))
        for load, found in studies.items()
        for name in found.figures
        if name not in (BASELINE.name, AGAIN)
    )


def study_files(*studies: Study) -> dict[str, Result]:
    """Every arm's result under a name for its file."""
    return {
        f"ablation-{found.load}-{arm.replace(' ', '-')}": result
        for found in studies
        for arm, result in found.results.items()
    }


def _times(found: Comparison) -> str:
    return found.factor.text("×")


def _share(row: IdeaResult) -> str:
    touched = row.idea.touches
    if touched is None or row.share.value is None:
        return UNKNOWN
    return f"{quantity(100 * row.share.value, '%')}: {touched.name}"


def _predicted(row: IdeaResult) -> str:
    if row.predicted.value is None:
        return f"nothing predicted ({row.idea.left})"
    touched = row.idea.touches.name if row.idea.touches is not None else ""
    return (
        f"it touches {percent(row.share)} of the coordinator's work ({touched}), so "
        f"{estimate(row.predicted, '×')} was predicted"
    )


def _surprise(row: IdeaResult) -> list[str]:
    """In which direction the prediction was wrong, where intervals decide it."""
    found, claim = row.measured, row.predicted
    if claim.value is None or found.low is None or found.high is None:
        return []
    if found.low > (claim.value if claim.high is None else claim.high):
        return ["More than predicted: it also saves work for the clients and the workers."]
    if found.high < (claim.value if claim.low is None else claim.low):
        return ["Less than predicted: by then everybody waits for something else."]
    return []


def _conclusion(row: IdeaResult, own: Sequence[Special]) -> str:
    """The consequence for OPTIMIZED; "did not pay" needs a verdict."""
    verdicts = {row.measured.verdict, *(found.measured.verdict for found in own)}
    place = "in OPTIMIZED" if row.idea.kept else "left out of OPTIMIZED"
    if Verdict.FASTER in verdicts:
        return f"It is {place}." if row.idea.kept else f"It is {place}, although it paid here."
    open_question = Verdict.INCONCLUSIVE in verdicts
    return f"{'No gain shows here' if open_question else 'It did not pay here'}; it is {place}."
