"""What the hot-paths notebook shows and says: each idea's prediction beside what it measured.

An optimisation is easily believed in, so every sentence here is made from results: which ideas paid
and by how much, which did not and are left out, where the prediction was wrong and in which
direction. On another machine, or after a change, the same notebook tells another story by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster.spec import BASELINE
from perfkit.bench.experiments.ablation import AGAIN, Idea, IdeaResult, Rung, Study
from perfkit.bench.experiments.peers import Amount, PeerTable
from perfkit.bench.experiments.roles import profile_coordinator
from perfkit.bench.goals.cluster import GOALS
from perfkit.bench.goals.cluster_runs import ClusterSizes
from perfkit.bench.goals.table import Goal, GoalTable, verdict
from perfkit.evidence.results import Result
from perfkit.evidence.stats import Comparison, Verdict
from perfkit.evidence.tables import html_table
from perfkit.evidence.text import measured, quantity
from perfkit.optimized.specs import OPTIMIZED, SPECS
from perfkit.report.engine import headlines
from perfkit.report.figures.charts import Bar
from perfkit.report.figures.climb import Step
from perfkit.report.stories.views import FULL, Facts, Words, ends, percent

if TYPE_CHECKING:
    from perfkit.profile import CpuProfile

PROFILE_RUNS = 3
#: The optimised cluster gets so many times the tasks, or its profile would be of nothing.
FASTER = 10
MIB = 1 << 20


@dataclass(frozen=True)
class Amounts:
    """How much the notebook measures: tasks of each load, blocks and their length, sizes."""

    profiled: int
    traced: int
    sampled_s: float
    pool: int
    big: int
    choices: int
    peers: tuple[Amount, ...]
    limits: ClusterSizes


def amounts(profile: str, tasks: int) -> Amounts:
    """What follows from the notebook's parameters; `full` takes FULL times as many of each."""
    times = FULL if profile == "full" else 1
    tasks *= times
    return Amounts(
        profiled=max(100, tasks),
        traced=max(30, tasks // 16),
        sampled_s=min(2.0, tasks / 2_000) * times,
        pool=max(1_000, min(200_000, 40 * tasks)),
        big=max(4, min(64, tasks // 60)),
        choices=max(40, tasks // 20),
        peers=(
            Amount("throughput", max(100, tasks)),
            Amount("burst", max(20, tasks // 20)),
            Amount("latency", max(20, tasks // 20)),
        ),
        limits=ClusterSizes(
            rounds=4 * times,
            map_tasks=max(4_000, 25 * tasks),
            baseline_tasks=max(200, tasks // 2),
            submit_tasks=max(400, 2 * tasks),
            latency_tasks=max(100, tasks // 10),
            mixed_rounds=2 * times,
            open_tasks=max(100, tasks // 20),
            burst_tasks=max(200, tasks // 4),
            big_payloads=16,
            choices=max(40, tasks // 40),
            codec_tasks=max(1_000, tasks // 2),
        ),
    )


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


def how_to_open(profiles: Mapping[str, Sequence[CpuProfile]]) -> Facts:
    """The profiles' files, and the command that opens each in a browser."""
    rows = [
        (name, f"snakeviz {run.path}")
        for name, runs in profiles.items()
        for run in runs[:1]
        if run.path is not None
    ]
    return Facts(
        "The profiles as files", tuple(rows), "snakeviz is in the extra [lab]; run it here."
    )


class Special(NamedTuple):
    """A spec, named as its idea, against the baseline on the load that it is meant for."""

    name: str
    load: str
    measured: Comparison


@dataclass(frozen=True)
class Ideas:
    """Every idea of the plan: what it could bring, what it brought, whether it is in OPTIMIZED."""

    rows: tuple[IdeaResult, ...]
    special: tuple[Special, ...] = ()

    def bars(self) -> list[Bar]:
        """Each measured factor with its interval, beside the predicted one, and the A/A arm."""
        found = [
            Bar(row.idea.name, *_factor(row.measured), claim=row.predicted.value)
            for row in self.rows
        ]
        return [*found, _control(self.rows)]

    def special_bars(self) -> list[Bar]:
        """The factors on the loads that ideas are meant for."""
        return [Bar(f"{row.name}, {row.load}", *_factor(row.measured)) for row in self.special]

    @property
    def words(self) -> Words:
        """A sentence for each idea, those that are left out last."""
        in_order = sorted(self.rows, key=lambda row: not row.idea.kept)
        return Words(tuple(self._sentence(row) for row in in_order))

    def record(self, out_dir: str | Path) -> None:
        """Save each idea's factor as a headline."""
        for row in self.rows:
            value, low, high = _factor(row.measured)
            headlines.record(
                out_dir,
                f"Idea: {row.idea.name}",
                value,
                "×",
                low,
                high,
                row.predicted.value,
                str(row.measured.verdict),
                note=f"throughput against {row.idea.against}; the claim is what was predicted",
            )

    def _sentence(self, row: IdeaResult) -> str:
        told = f"{row.idea.name}: {_predicted(row)}, measured {_times(row.measured)} of "
        told += f"{row.idea.against}: {row.measured.verdict}. {_surprise(row)}"
        own = [found for found in self.special if found.name == row.idea.name]
        for found in own:
            load = found.load[:1].upper() + found.load[1:]
            told += f"{load}: {_times(found.measured)}, {found.measured.verdict}. "
        verdicts = [row.measured.verdict, *(found.measured.verdict for found in own)]
        return told + _conclusion(row.idea, verdicts)

    def _repr_html_(self) -> str:
        rows = [
            (
                row.idea.name,
                _share(row),
                row.idea.left,
                _factor_text(*ends(row.predicted)),
                f"{_times(row.measured)}{_of(row.idea)}, {row.measured.verdict}",
                "yes" if row.idea.kept else "no",
            )
            for row in self.rows
        ]
        control = _control(self.rows)
        blocks = self.rows[0].measured.blocks
        return html_table(
            "Throughput with one idea at a time (factors, 95 % intervals)",
            ("idea", "share of work", "of that is left", "predicted", "measured", "in OPTIMIZED"),
            rows,
            [
                f"A/A control: the baseline against itself is "
                f"{_factor_text(control.value, control.low, control.high)}, over {blocks} blocks."
            ],
        )


def steps(rungs: Sequence[Rung]) -> list[Step]:
    """The ladder for its picture, the baseline's second arm beside the first."""
    return [Step(rung.name, *ends(rung.figure), control=rung.name == AGAIN) for rung in rungs]


def ladder_words(rungs: Sequence[Rung]) -> Words:
    """What each rung adds to the one below it, and all of them together."""
    climbing = [rung for rung in rungs if rung.name != AGAIN and rung.figure.value]
    told = []
    for below, rung in pairwise(climbing):
        times = (rung.figure.value or 0.0) / (below.figure.value or 1.0)
        told.append(f"{rung.name} does × {times:.3g} of what {below.name} does.")
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


def peer_bars(table: PeerTable, experiment: str) -> list[Bar]:
    """One experiment on every engine; an engine that could not run is a gap."""
    return [Bar(row.name, *_ends_of(row.results.get(experiment))) for row in table.rows]


def peer_words(table: PeerTable) -> Words:
    """What each peer takes, as a multiple of the optimised cluster; and who is missing, and why."""
    ours = next((row for row in table.rows if row.name.endswith(OPTIMIZED.name)), None)
    told = []
    for row in table.rows:
        if row.reason:
            told.append(f"{row.name} is left out: {row.reason}.")
        if ours is None or row is ours:
            continue
        for experiment in ("burst", "latency"):
            theirs, own = row.results.get(experiment), ours.results.get(experiment)
            if theirs is None or own is None or not theirs.value or not own.value:
                continue
            unit, times = theirs.unit, theirs.value / own.value
            told.append(
                f"{row.name} takes {quantity(theirs.value, unit)} for the {experiment}, "
                f"× {times:.3g} of {ours.name}."
            )
    return Words(tuple(told))


def limit_words(table: GoalTable) -> Words:
    """How many goals are met, and which are not, each with its figure."""
    judged = [row for row in table.rows if row.goal is not None]
    met = [row for row in judged if row.met]
    told = [f"Of {len(judged)} goals {len(met)} are met by their whole interval."]
    for row in judged:
        if row.met:
            continue
        word = "missed" if row.met is False else "not decided"
        figure = measured(row.value, row.unit, row.low, row.high)
        ratio = (
            "" if row.ratio is None
            else f", × {row.ratio:.3g} of {row.against or 'the bare limit'}"
        )  # fmt: skip
        told.append(f"{row.name} ({row.goal_text}) is {word}: {figure}{ratio}.")
    return Words(tuple(told))


def record_limits(out_dir: str | Path, table: GoalTable) -> None:
    """Save each goal of the table of limits as a headline."""
    record_goals(out_dir, GOALS, table)


def record_goals(out_dir: str | Path, goals: Sequence[Goal], table: GoalTable) -> None:
    """Save each goal as a headline: its figure, or the ratio where that is what is asked."""
    for goal in goals:
        row = table.of(goal.name)
        of_ratio = goal.of == "ratio"
        figure = (row.ratio, row.ratio_low, row.ratio_high)
        value, low, high = figure if of_ratio else (row.value, row.low, row.high)
        headlines.record(
            out_dir,
            f"Goal: {row.name}",
            value,
            "×" if of_ratio else row.unit,
            low,
            high,
            row.goal_text,
            headlines.Verdict.MEASURED,
            note=f"{verdict(row)}; {row.note}",
        )


def study_files(*studies: Study) -> dict[str, Result]:
    """Every arm's result under a name for its file."""
    return {
        f"ablation-{found.load}-{arm.replace(' ', '-')}": result
        for found in studies
        for arm, result in found.results.items()
    }


def _ends_of(result: object) -> tuple[float | None, float | None, float | None]:
    value, low, high = (getattr(result, end, None) for end in ("value", "low", "high"))
    return value, low, high


def _factor(found: Comparison) -> tuple[float | None, float | None, float | None]:
    return found.ratio, found.low, found.high


def _factor_text(value: float | None, low: float | None, high: float | None) -> str:
    """A factor to three digits, unbroken."""
    texts = [quantity(None if end is None else float(f"{end:.3g}")) for end in (value, low, high)]
    interval = f" ({texts[1]}\u00a0to\u00a0{texts[2]})" if (low, high) != (None, None) else ""
    return texts[0] if value is None else f"×\u00a0{texts[0]}{interval}"


def _share(row: IdeaResult) -> str:
    touched = row.idea.touches
    if touched is None or row.share.value is None:
        return "unknown"
    return f"{100 * row.share.value:.3g} %: {touched.name}"


def _of(idea: Idea) -> str:
    return "" if idea.against == BASELINE.name else f" of {idea.against}"


def _times(found: Comparison) -> str:
    return _factor_text(*_factor(found))


def _control(rows: Sequence[IdeaResult]) -> Bar:
    found = rows[0].measured
    return Bar("A/A: the baseline again", found.aa_ratio, found.aa_low, found.aa_high)


def _predicted(row: IdeaResult) -> str:
    if row.predicted.value is None:
        return f"nothing predicted ({row.idea.left})"
    touched = row.idea.touches.name if row.idea.touches is not None else ""
    return (
        f"it touches {percent(row.share)} of the coordinator's work ({touched}), so "
        f"{_factor_text(*ends(row.predicted))} was predicted"
    )


def _surprise(row: IdeaResult) -> str:
    """In which direction the prediction was wrong, where intervals tell."""
    found, claim = row.measured, row.predicted
    if claim.value is None or found.low is None or found.high is None:
        return ""
    least = claim.value if claim.low is None else claim.low
    most = claim.value if claim.high is None else claim.high
    if found.low > most:
        return "More than predicted: it spares the clients and the workers something as well. "
    if found.high < least:
        return "Less than predicted: by then something else is what everybody waits for. "
    return ""


def _conclusion(idea: Idea, verdicts: Sequence[Verdict]) -> str:
    """What follows for OPTIMIZED; "did not pay" needs a verdict, an open question is called one."""
    if Verdict.FASTER in verdicts:
        return (
            "It is in OPTIMIZED."
            if idea.kept
            else "It is left out of OPTIMIZED, although it paid here."
        )
    shown = "No gain shows here" if Verdict.INCONCLUSIVE in verdicts else "It did not pay here"
    return f"{shown}; it is {'in' if idea.kept else 'left out of'} OPTIMIZED."
