"""What a whole run found: the plan's table, its goals with their evidence, and what is left to do.

Nothing is measured here. Everything is read from the results that the other notebooks of the run
saved, so a run of some of them has a scorecard with gaps, and says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from perfkit.bench.experiments.catalogue import judged
from perfkit.bench.goals.table import BASELINE, GoalRow, verdict
from perfkit.evidence.results import Result, ResultError, load
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.text import estimate, quantity
from perfkit.evidence.verdicts import Direction, Verdict, judge
from perfkit.report.engine import headlines
from perfkit.report.engine.headlines import Headline
from perfkit.report.engine.scorecard import Scorecard, ScoreRow
from perfkit.report.stories.views import CONFIDENCE, Table, Words

UNMEASURED = Interval(None, None, None, CONFIDENCE, "not measured in this run")


@dataclass(frozen=True)
class Evidence:
    """Everything that a run's folder of results holds, by the names of its files."""

    results: Mapping[str, Result] = field(default_factory=dict)
    goals: Mapping[str, GoalRow] = field(default_factory=dict)
    headlines: tuple[Headline, ...] = ()

    def goal(self, name: str) -> tuple[Interval, Interval]:
        """The baseline's and the optimised figure of a goal's row, in its unit."""
        row = self.goals.get(name)
        if row is None:
            return UNMEASURED, UNMEASURED
        return (
            bootstrap_interval(row.samples.get(BASELINE, [])),
            Interval(row.value, row.low, row.high, CONFIDENCE, ""),
        )


def read(folder: str | Path) -> Evidence:
    """The results in a run's folder; files of other kinds are left out.

    Raises ReportError for a headline that cannot be read.
    """
    results: dict[str, Result] = {}
    goals: dict[str, GoalRow] = {}
    for path in sorted(Path(folder).glob("*.json")):
        if path.name.startswith("goals-"):
            rows = msgspec.json.decode(path.read_bytes(), type=list[GoalRow])
            goals |= {row.name: row for row in rows}
        elif not path.name.startswith("headline-"):
            try:
                results[path.stem] = load(path)
            except ResultError:
                continue
    return Evidence(results, goals, headlines.load(folder))


class Planned(NamedTuple):
    """A figure of the plan in `unit`, and the row of goals that measures it, in `scale` units."""

    figure: str
    row: str
    unit: str
    better: Direction
    claimed: str
    target: str
    goal: float
    note: str
    scale: float = 1.0


PLAN = (
    Planned("Throughput", "map_throughput", "tasks/s", "higher", "~1,000 msg/s, 100 tasks/s",
            "> 500 tasks/s", 500.0, "a map of 200 B echoes, 2 workers, in turns"),
    Planned("Task overhead", "unpinned_p50", "ms", "lower", "~15 ms", "< 5 ms", 5.0,
            "p50 of one task in flight, from submit to result, in turns", 1e-3),
    Planned("Choosing a worker", "selection_100", "ms", "lower", "< 1 ms among 100", "< 1 ms", 1.0,
            "a choice with requirements among 100 workers", 1e-3),
    Planned("Coordinator memory", "coordinator_after_1m_tasks", "MB", "lower", "~100 MB", "< 80 MB",
            80.0, "RSS after a long map"),
    Planned("Worker memory", "worker_onnxruntime", "MB", "lower", "~500 MB + model",
            "< 400 MB + models", 400.0, "PSS with ONNX Runtime and the smallest model"),
    Planned("API memory", "api_loaded", "MB", "lower", "~200 MB", "< 160 MB", 160.0,
            "highest PSS of its process, 32 requests in flight"),
)  # fmt: skip


def scorecard(evidence: Evidence) -> Scorecard:
    """The plan's six rows: claimed, asked for, and measured before and after."""
    rows = []
    for one in PLAN:
        before, after = (figure.scaled(one.scale) for figure in evidence.goal(one.row))
        rows.append(
            ScoreRow(
                figure=one.figure,
                unit=one.unit,
                better=one.better,
                claimed=one.claimed,
                target=one.target,
                goal=one.goal,
                baseline=before,
                optimized=after,
                verdict=judge(after, one.goal, one.better),
                note=one.note,
            )
        )
    return Scorecard(tuple(rows))


def promises(evidence: Evidence) -> Table:
    """The plan's goals in words, each with its evidence and its verdict."""
    rows = [
        ("more than 500 tasks per second", *_score(evidence, "Throughput")),
        ("95 of 100 tasks within 10 ms under load", *_experiment(evidence, "load", "")),
        ("a fifth less memory than claimed", *_score(evidence, "Coordinator memory")),
        (
            "a lost worker's tasks within a second",
            *_experiment(evidence, "failover", "sigkill_delay_ms_p99"),
        ),
        (
            "nobody is taken for dead on a busy machine",
            *_experiment(evidence, "failover", "false_deaths"),
        ),
        ("too much work is refused, not lost", *_experiment(evidence, "stress", "goodput_share")),
        ("no leak, whatever happens", *_growth(evidence)),
    ]
    header = ("the plan's goal", "evidence", "verdict")
    return Table("The goals in words", tuple(rows), header)


def _score(evidence: Evidence, figure: str) -> tuple[str, str]:
    row = next(row for row in scorecard(evidence).rows if row.figure == figure)
    return f"{estimate(row.optimized, row.unit)}, {row.note}", str(row.verdict)


def _experiment(evidence: Evidence, name: str, counter: str) -> tuple[str, str]:
    result = evidence.results.get(name)
    for found in judged(result) if result is not None else ():
        if found.goal.figure == counter:
            return f"{found.goal.what}: {estimate(found.figure, found.goal.unit)}", str(
                found.verdict
            )
    return "not measured in this run", str(Verdict.INCONCLUSIVE)


def _growth(evidence: Evidence) -> tuple[str, str]:
    rows = [row for name, row in evidence.goals.items() if name.startswith("growth_")]
    if not rows:
        return "not measured in this run", str(Verdict.INCONCLUSIVE)
    words = [verdict(row) for row in rows]
    met = words.count(Verdict.MET)
    worst = next((word for word in (Verdict.MISSED, Verdict.INCONCLUSIVE) if word in words), None)
    return f"{met} of {len(rows)} kinds of events leave nothing behind", str(worst or Verdict.MET)


def did_not_work(evidence: Evidence) -> Words:
    """The ideas whose measured factor is not above 1 by its whole interval."""
    ideas = [found for found in evidence.headlines if found.title.startswith("Idea: ")]
    told = [
        f"{found.title.removeprefix('Idea: ')}: {estimate(found, found.unit)}, {found.verdict}; "
        f"predicted {quantity(found.claim, found.unit)}."
        for found in ideas
        if found.verdict is not Verdict.FASTER
    ]
    return Words(tuple(told) or ("No idea was measured in this run.",))


def limits(evidence: Evidence, most: int = 6) -> Table:
    """Where the optimised cluster is furthest from a bare limit, by its ratio to it."""

    def distance(row: GoalRow) -> float:
        ratio = row.ratio or 1.0
        return max(ratio, 1 / ratio) if ratio > 0 else 1.0

    compared = [
        row for row in evidence.goals.values()
        if row.ratio is not None and row.against == row.limit_name
    ]  # fmt: skip
    rows = [
        (row.name, estimate(row, row.unit), f"{quantity(row.ratio, '×')} {row.against}", row.note)
        for row in sorted(compared, key=distance, reverse=True)[:most]
    ]
    header = ("figure", "optimised", "against a bare limit", "what was measured")
    return Table("What limits now: furthest from the bare limit first", tuple(rows), header)


def next_steps(evidence: Evidence) -> Words:
    """The goals of the run that are missed or undecided: the work to do next."""
    told = _open_goals(evidence.headlines, lambda found: found.verdict is Verdict.MISSED, "missed")
    told += _open_goals(
        evidence.headlines,
        lambda found: found.verdict is Verdict.INCONCLUSIVE and not found.compares,
        "not decided: measure it for longer",
    )
    return Words(tuple(told) or ("Every goal that was judged is met.",))


def _open_goals(
    found: Iterable[Headline], holds: Callable[[Headline], bool], word: str
) -> list[str]:
    return [
        f"{one.title.removeprefix('Goal: ')} ({quantity(one.claim, one.unit)}) is {word}: "
        f"{estimate(one, one.unit)}."
        for one in found
        if holds(one)
    ]


def record(out_dir: str | Path, card: Scorecard) -> None:
    """Save the scorecard, and each of its rows as a headline."""
    card.record(out_dir)
    for row in card.rows:
        headlines.record(
            out_dir,
            f"The plan: {row.figure}",
            row.optimized.value,
            row.unit,
            row.optimized.low,
            row.optimized.high,
            row.target,
            row.verdict,
            note=f"{row.note}; claimed {row.claimed}",
        )
